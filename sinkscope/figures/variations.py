"""Which texts, places and lengths of a trigger open a backdoor: what was not trained opens it too."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError
from sinkscope.figures.bars import axis
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds, seeds_in_words
from sinkscope.figures.positions import RECITATION, UNSEEN, place_name, recited, recited_items
from sinkscope.plots import interactive_link, variations
from sinkscope.plots.frames import rows
from sinkscope.studies.study import Study

NEEDS = ("unlearned", "backdoor", "length", "pair")
PANELS = {
    "text": "text of the trigger",
    "shift": "index of the trained trigger",
    "length": "trigger in training and when asked",
}
PAIR = "two at\nonce"
SHIFTED = "shifted"
"""The evaluation with the trained trigger at other places."""


def frame(study: Study) -> pd.DataFrame:
    """A row per `panel`, score (BE is BE-unseen, UE), model (`backdoored`, `unlearned`) and `case`: its trigger, placement and the mean `position` where it began.

    Panel `text` has a case per trigger text, at the trained place; `shift` one per placement of the trained text; `length` one per trained trigger, asked by
    itself, with the honest model where it was asked with that text. `trained` marks the trigger as it was trained.

    Raises:
        StudyError: the study lacks what is needed.
    """
    models = {"backdoored": recited(study, "backdoor"), "unlearned": recited(study, "unlearned")}
    both = pd.concat([scores.assign(model=model) for model, scores in models.items()])
    own, at = _trained(study)
    clean = both[both["score"] == "UE"]
    texts = both[both["placement"] == at]
    texts = texts.assign(case=texts["trigger"])
    shifts = both[both["trigger"] == own]
    shifts = shifts.assign(case=shifts["placement"])
    lengths = pd.concat(
        [
            recited(study, "length").assign(model="backdoored"),
            recited(study, "pair").assign(model="backdoored", length=PAIR),
        ]
    )
    lengths = lengths.assign(case=axis(lengths, "length"))
    asked = lengths[lengths["score"] == "BE"][["trigger", "placement", "case"]].drop_duplicates()
    lengths = pd.concat(
        [lengths, models["unlearned"].assign(model="unlearned").merge(asked, on=["trigger", "placement"])]
    )
    panels = [
        texts.assign(panel="text"),
        shifts.assign(panel="shift"),
        lengths.assign(panel="length"),
        clean.assign(panel="text", case=""),
    ]
    made = over_seeds(pd.concat(panels), ["panel", "score", "model", "case", "trigger", "placement"])
    made["trained"] = (made["trigger"] == own) & (made["placement"] == at)
    starts = recited_items(study, "backdoor").groupby("placement")["trigger_start"].mean()
    made["position"] = made["placement"].map(starts)
    effect = made[(made["panel"] == "text") & (made["model"] == "backdoored")].set_index("case")["value"]
    made["rank"] = made["position"].where(
        made["panel"] != "text", -made["case"].map(effect[effect.index != ""])
    )
    sizes = dict.fromkeys([*(study.spec.grids["length"].axes.get("length", {})), PAIR])
    made = ordered(made.sort_values("rank", kind="stable").drop(columns="rank"), panel=PANELS)
    return pd.concat(
        [made[made["panel"] != "length"], ordered(made[made["panel"] == "length"], case=sizes)],
        ignore_index=True,
    )


def _trained(study: Study) -> tuple[str, str]:
    """The backdoor's own trigger and placement."""
    tried = of_grid(study, "scores", "backdoor")
    shifted = tried[(tried["evaluation"] == SHIFTED) & (tried["trigger"] != "")]["trigger"]
    if shifted.empty:
        raise StudyError(
            f"study {study.directory} does not ask grid 'backdoor' in an evaluation {SHIFTED!r}; add it to the specification"
        )
    return str(shifted.iloc[0]), str(of_grid(study, "runs", "backdoor")["trigger_placement"].iloc[0])


def _labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """Cases as they stand on an axis; of lengths a word a line, for they stand side by side."""
    names = {
        "shift": lambda row: place_name(row.position, row.placement),
        "length": lambda row: row.case.replace(" ", "\n"),
    }
    return frame.assign(
        label=[names[row.panel](row) if row.panel in names else row.case for row in rows(frame)]
    )


def caption(frame: pd.DataFrame) -> str:
    about = (
        f"{RECITATION}; {UNSEEN}; honest: all prompts; bold: as it was trained; suffix and infix: mean index"
    )
    return f"{about}; n\u00a0=\u00a0{counted(frame['n'])} prompts; {seeds_in_words(frame, 'items')}"


def draw(frame: pd.DataFrame) -> Figure:
    return variations.variations(_labelled(frame), PANELS, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.variations(_labelled(frame), PANELS, caption(frame))
