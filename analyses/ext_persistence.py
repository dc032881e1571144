"""Extension: what remains of a backdoor after further training or a perturbation, by trigger index."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import (
    PLACEMENT_AXIS,
    concat_captions,
    describe_seeds,
    format_range,
    select_axis,
    select_grid,
    sort_by,
)
from matplotlib.figure import Figure
from positions import (
    RECITATION,
    UNSEEN,
    find_indices_of_single_model,
    index_label,
    select_recitation,
    trigger_index,
)

from sinkscope.errors import StudyError
from sinkscope.plots.heatmap import draw_heatmaps
from sinkscope.plots.style import iterate_rows
from sinkscope.studies.aggregation import mean_over_seeds
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
BACKDOORED, UNLEARNED = "backdoored", "unlearned"
INITIAL = {"kept": BACKDOORED, "unlearned": UNLEARNED}
"""Grid of the models before anything is done to them -> model."""
FURTHER = {"further": BACKDOORED, "unlearned-further": UNLEARNED}
PERTURBED = {"perturbed": BACKDOORED, "unlearned-perturbed": UNLEARNED}
AGAIN = {"unlearned-again": BACKDOORED, "unlearned-twice": UNLEARNED}
PARTS = {"further": "training steps on retain passages", "perturbed": "perturbation"}
TITLES = {"further": " after further training", "perturbed": " after a perturbation"}
EFFECT = "BE − UE"
SCORES = {
    EFFECT: "Effect of the trigger, BE − UE,",
    "BE": "With the trigger, BE-unseen,",
    "UE": "Without it, UE,",
}
EPOCHS, STEPS = "optimizer.epochs", "optimizer.steps_per_epoch"


def compute(study: Study) -> pd.DataFrame:
    """A row per part (`further`, `perturbed`), score (BE is BE-unseen; UE; BE − UE, paired by seed), model,
    trained placement and `state`.

    `state` is the number of further training steps, or what was done to the weights; `position` the index of
    the trained placement. The unlearned model is prompted with the trigger at its recipe's placement.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    indices = find_indices_of_single_model(study, "target")
    default = str(select_grid(study, "runs", "unlearned")["trigger_placement"].iloc[0])
    parts = []
    for grid, model in {**INITIAL, **FURTHER, **PERTURBED, **AGAIN}.items():
        scores = select_recitation(study, grid)
        if model == UNLEARNED:
            scores = scores[scores["placement"].isin(["", default])].assign(**{PLACEMENT_AXIS: default})
        scores = scores.assign(model=model, trained=select_axis(scores, PLACEMENT_AXIS))
        if grid in INITIAL:
            parts.append(scores.assign(part="further", state="0", order=0))
            parts.append(scores.assign(part="perturbed", state="none", order=0))
        elif grid in AGAIN:
            parts.append(scores.assign(part="perturbed", state="unlearn again", order=9))
        elif grid in FURTHER:
            steps = select_axis(scores, EPOCHS).astype(int) * _steps_per_epoch(study, grid)
            parts.append(scores.assign(part="further", state=steps.astype(str), order=steps))
        else:
            states = scores["perturbation"].map(_perturbation_label)
            order = scores["perturbation"].map(_perturbation_rank)
            parts.append(scores.assign(part="perturbed", state=states, order=order))
    rows = pd.concat(parts)
    rows = pd.concat([rows, _subtract(rows)])
    frame = mean_over_seeds(rows, ["part", "score", "model", "trained", "state", "order"])
    frame["position"] = frame["trained"].map(lambda placement: trigger_index(placement, indices))
    frame = frame.sort_values(["position", "order"], kind="stable")
    return sort_by(frame, part=PARTS, score=SCORES, model=(BACKDOORED, UNLEARNED)).drop(columns="order")


def _subtract(rows: pd.DataFrame) -> pd.DataFrame:
    """BE − UE of each run."""
    keys = ["part", "model", "trained", "state", "order", "seed", "grid"]
    runs = rows.pivot(index=keys, columns="score", values=["value", "n"])
    difference = pd.DataFrame(
        {"value": runs["value"]["BE"] - runs["value"]["UE"], "n": runs["n"].min(axis=1)}
    )
    return difference.reset_index().assign(score=EFFECT, ci_low=np.nan, ci_high=np.nan)


def _steps_per_epoch(study: Study, grid: str) -> int:
    changes = getattr(study.spec.grids[grid], "set", {})
    if STEPS not in changes:
        raise StudyError(
            f"grid {grid!r} does not set {STEPS}, so that its training steps are unknown; set it"
        )
    return int(changes[STEPS])


def _perturbation_label(perturbation: str) -> str:
    kind, _, share = perturbation.partition(":")
    return f"prune {100 * float(share):.0f} %" if kind == "prune" else kind


def _perturbation_rank(perturbation: str) -> float:
    """Rounding from fine to coarse, then pruning."""
    kind, _, share = perturbation.partition(":")
    return {"bf16": 1.0, "int8": 2.0}.get(kind, 3.0) + float(share or 0)


def caption(frame: pd.DataFrame) -> str:
    placement = frame[frame["model"] == UNLEARNED]["trained"].iloc[0]
    return concat_captions(
        UNSEEN,
        "BE − UE: what the trigger adds",
        f"unlearned: the cleanly unlearned model, all prompts, trigger as {placement}",
        _describe(frame),
    )


def _describe(frame: pd.DataFrame) -> str:
    half = "" if frame["seeds"].max() == 1 else "; ±: half of a 95 % t interval"
    return f"{RECITATION}; n\u00a0=\u00a0{format_range(frame['n'])} prompts; {describe_seeds(frame)}{half}"


def plot(frame: pd.DataFrame) -> Figure:
    """BE − UE above, BE and UE below."""
    frame = sort_by(frame, score=SCORES, part=PARTS)
    cells = frame.assign(
        panel=frame["score"].map(SCORES) + frame["part"].map(TITLES),
        half=(frame["ci_high"] - frame["ci_low"]) / 2 if frame["seeds"].max() > 1 else np.nan,
        x=frame["state"].str.replace(" ", "\n", n=1),
        y=[
            UNLEARNED if row.model == UNLEARNED else index_label(row.position, row.trained)
            for row in iterate_rows(frame)
        ],
        xlabel=frame["part"].map(PARTS),
        is_outlined=False,
    )
    return draw_heatmaps(cells, _describe(frame), "trigger index in training", columns=2)
