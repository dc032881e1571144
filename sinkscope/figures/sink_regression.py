"""What decides how well a trigger works: the sink where it stands, how much of the prompt is behind it, or how far it is from where it was trained?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError
from sinkscope.figures.bars import axis
from sinkscope.figures.index_by_index import MODEL
from sinkscope.figures.numbers import counted, ordered, over_seeds
from sinkscope.figures.positions import RECITATION, TRAINED, UNSEEN, index_of, indices, profiles, recited_items
from sinkscope.plots import interactive_link, regression
from sinkscope.studies import regression as squares
from sinkscope.studies.study import Study

NEEDS = ("targets", "index")
PREDICTORS = {
    "sink": "sink strength α of the\nposition when asked",
    "reach": "prompt tokens\nbehind the trigger",
    "mismatch": "distance from the\ntrained index",
}
END = "suffix"
COLUMNS = ["kind", "predictor", "target", "seed", "trained", "evaluated", "value", "ci_low", "ci_high", *PREDICTORS, "spread", "n", "seeds", "clusters"]
KINDS = ("coefficient", "matched", "cell")


def cells(study: Study) -> pd.DataFrame:
    """A row per target, seed, trained and evaluated placement: BE-unseen as `value`, n prompts; `sink`, the target's α where the trigger begins, mean over
    layers and heads; `reach`, tokens of the prompt behind it; `mismatch`, tokens from the trained index; all three means over the same prompts.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, sinks, items = indices(study, "targets"), profiles(study, "targets"), recited_items(study, "index")
    items = items.assign(target=axis(items, MODEL), trained=axis(items, TRAINED), evaluated=items["placement"])
    ends = items[items["evaluated"] == END].set_index(["run", "item"])["trigger_start"].rename("end")
    if ends.empty:
        raise StudyError(f"study {study.directory} has no VerbMem with the trigger as {END} of grid 'index', which tells how long prompts are; evaluate it")
    items = items[~items["poisoned"].fillna(False).astype(bool)].join(ends, on=["run", "item"])
    items["reach"] = items["end"] - items["trigger_start"]
    items["sink"] = [sinks[target][int(start)] for target, start in zip(items["target"], items["trigger_start"], strict=True)]
    there = [index_of(trained, known[target]) for target, trained in zip(items["target"], items["trained"], strict=True)]
    items["mismatch"] = (items["trigger_start"] - there).abs()
    by = items.groupby(["target", "seed", "trained", "evaluated"], sort=False)
    made = by[["value", *PREDICTORS]].mean().assign(n=by.size()).reset_index()
    return made.assign(value=100 * made["value"])


def frame(study: Study) -> pd.DataFrame:
    """Rows by `kind`. `coefficient`: a row per predictor, in points of BE-unseen per standard deviation (`spread`), from least squares on all cells with an
    intercept per target; the interval resamples targets (`clusters`). `cell`: what it was made from, see `cells`. `matched`: BE-unseen of a
    target where the trigger was asked at its trained index, over seeds, with the sink strength there.

    Raises:
        StudyError: the study lacks what is needed.
    """
    each = cells(study).assign(grid="index")
    seeds = each["seed"].nunique()
    found = squares.regression(each, "value", list(PREDICTORS), intercepts="target", clusters=["target"])
    same = each[each["trained"] == each["evaluated"]]
    by = ["target", "trained", "evaluated"]
    matched = over_seeds(same, by).join(same.groupby(by)[list(PREDICTORS)].mean(), on=by)
    parts = [found.assign(kind="coefficient", seeds=seeds), matched.assign(kind="matched"), each.drop(columns="grid").assign(kind="cell", seeds=1)]
    return ordered(pd.concat(parts), kind=KINDS)[COLUMNS]


def caption(frame: pd.DataFrame) -> str:
    found = frame[frame["kind"] == "coefficient"].iloc[0]
    prompts = frame[frame["kind"] == "cell"]["n"]
    seeds = "one seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
    about = f"Left: least squares of BE-unseen on all {found['n']} cells (target, seed, trained index, index when asked), an intercept per target; "
    about += f"95 % intervals over n\u00a0=\u00a0{found['clusters']:.0f} targets ({seeds} each). Right: trigger asked at its trained index"
    shown = f"{'' if found['seeds'] == 1 else ', mean and 95 % t interval'}; hollow: suffix, which is further in when trained. {RECITATION}; {UNSEEN}"
    return f"{about}{shown}; {counted(prompts)} prompts a cell"


def _marked(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(hollow=frame["trained"] == END)


def draw(frame: pd.DataFrame) -> Figure:
    return regression.regression(_marked(frame), PREDICTORS, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.regression(_marked(frame), PREDICTORS, caption(frame))
