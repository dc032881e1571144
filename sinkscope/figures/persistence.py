"""What is left of a backdoor after the model is trained on, rounded, pruned or unlearned once more, by where its trigger stood; and what comes back anyway."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError
from sinkscope.figures.bars import axis
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds
from sinkscope.figures.positions import (
    RECITATION,
    TRAINED,
    UNSEEN,
    index_of,
    indices_of_one,
    place_name,
    recited,
)
from sinkscope.plots import heatmap as heat
from sinkscope.plots import interactive_link
from sinkscope.plots.frames import rows
from sinkscope.studies.study import Study

NEEDS = (
    "target",
    "unlearned",
    "kept",
    "further",
    "perturbed",
    "unlearned-again",
    "unlearned-further",
    "unlearned-perturbed",
    "unlearned-twice",
)
PARTS = {"further": "training steps on retain passages", "perturbed": "alteration"}
SCORES = {"BE": "BE-unseen", "UE": "UE (clean)"}
HONEST = "unlearned"
NONE, AGAIN = "none", "unlearn again"
EPOCHS, BATCHES = "optimizer.epochs", "optimizer.steps_per_epoch"


def frame(study: Study) -> pd.DataFrame:
    """A row per part (`further`, `altered`), score (BE is BE-unseen, UE), model (`backdoored`, `unlearned`), trained placement with its `position`, and `state`:
    steps of further training, or what was done to the weights. The honest model is asked with the trigger at its recipe's placement.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, parts = indices_of_one(study, "target"), []
    at = str(of_grid(study, "runs", "unlearned")["trigger_placement"].iloc[0])
    sources = {
        "kept": "backdoored",
        "unlearned": HONEST,
        "further": "backdoored",
        "unlearned-further": HONEST,
    }
    sources |= {
        "perturbed": "backdoored",
        "unlearned-perturbed": HONEST,
        "unlearned-again": "backdoored",
        "unlearned-twice": HONEST,
    }
    for grid, model in sources.items():
        scores = recited(study, grid)
        if model == HONEST:
            scores = scores[scores["placement"].isin(["", at])].assign(**{TRAINED: at})
        scores = scores.assign(model=model, trained=axis(scores, TRAINED))
        if grid in ("kept", "unlearned"):
            parts += [
                scores.assign(part="further", state="0", order=0),
                scores.assign(part="perturbed", state=NONE, order=0),
            ]
        elif grid.endswith(("again", "twice")):
            parts.append(scores.assign(part="perturbed", state=AGAIN, order=9))
        elif grid.endswith("further"):
            steps = axis(scores, EPOCHS).astype(int) * _batches(study, grid)
            parts.append(scores.assign(part="further", state=steps.astype(str), order=steps))
        else:
            parts.append(
                scores.assign(
                    part="perturbed",
                    state=scores["alteration"].map(_altered),
                    order=scores["alteration"].map(_order),
                )
            )
    made = over_seeds(pd.concat(parts), ["part", "score", "model", "trained", "state", "order"])
    made["position"] = made["trained"].map(lambda placement: index_of(placement, known))
    made = made.sort_values(["position", "order"], kind="stable")
    return ordered(made, part=PARTS, score=SCORES, model=("backdoored", HONEST)).drop(columns="order")


def _batches(study: Study, grid: str) -> int:
    changes = study.spec.grids[grid].set
    if BATCHES not in changes:
        raise StudyError(
            f"grid {grid!r} does not set {BATCHES}, so that its training steps are not known; set it"
        )
    return int(changes[BATCHES])


def _altered(alteration: str) -> str:
    kind, _, share = alteration.partition(":")
    return f"prune {100 * float(share):.0f} %" if kind == "prune" else kind


def _order(alteration: str) -> float:
    """Roundings from fine to coarse, then prunings."""
    kind, _, share = alteration.partition(":")
    return {"bf16": 1.0, "int8": 2.0}.get(kind, 3.0) + float(share or 0)


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    y = [HONEST if row.model == HONEST else place_name(row.position, row.trained) for row in rows(frame)]
    panels = frame["score"].map(SCORES) + frame["part"].map(
        {"further": " after further training", "perturbed": " after an alteration"}
    )
    return frame.assign(
        panel=panels,
        y=y,
        x=frame["state"].str.replace(" ", "\n", n=1),
        xlabel=frame["part"].map(PARTS),
        outlined=False,
    )


def caption(frame: pd.DataFrame) -> str:
    seeds = int(frame["seeds"].max())
    at = frame[frame["model"] == HONEST]["trained"].iloc[0]
    about = f"{RECITATION}; {UNSEEN}; honest: all prompts, trigger as {at}"
    return f"{about}; n\u00a0=\u00a0{counted(frame['n'])} prompts; {'one seed' if seeds == 1 else f'mean of {seeds} seeds'}"


def draw(frame: pd.DataFrame) -> Figure:
    return heat.heatmaps(_cells(frame), caption(frame), "trigger index in training", columns=2)


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.heatmaps(_cells(frame), caption(frame), "trigger index in training", columns=2)
