"""What decides how well a trigger works: the sink where it stands, how much of the prompt is behind it, or how far it is from where it was trained?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go
from scipy import stats

from sinkscope.errors import StudyError
from sinkscope.figures.bars import axis
from sinkscope.figures.index_by_index import MODEL
from sinkscope.figures.numbers import counted, ordered, over_seeds
from sinkscope.figures.positions import RECITATION, TRAINED, UNSEEN, index_of, indices, profiles, recited_items
from sinkscope.figures.targets import KIND, kind_of
from sinkscope.plots import interactive_link, regression
from sinkscope.plots.frames import rows
from sinkscope.studies import regression as squares
from sinkscope.studies.study import Study

NEEDS = ("targets", "index")
PREDICTORS = {
    "sink": "sink strength α of the\nposition when asked",
    "reach": "prompt tokens\nbehind the trigger",
    "trained_reach": "passage tokens behind\nthe trigger in training",
    "mismatch": "distance from the\ntrained index",
}
END = "suffix"
COLUMNS = ["kind", "predictor", "target", KIND, "seed", "trained", "evaluated", "value", "ci_low", "ci_high", *PREDICTORS, "spread", "n", "seeds", "clusters"]
KINDS = ("coefficient", "slope", "advantage", "matched", "cell")
FIRST, LATER = "prefix", "index:8"
UNIT = 0.1
"""Of sink strength, that the slope is told for."""


def cells(study: Study) -> pd.DataFrame:
    """A row per target (of a `target_kind`), seed, trained and evaluated placement: BE-unseen as `value`, n prompts; `sink`, the target's α where the trigger
    begins, mean over layers and heads; `reach` and `trained_reach`, tokens behind it in the prompt and in a poisoned passage of whole length; `mismatch`,
    tokens from the trained index; all four means over the same prompts.

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
    there = np.array([index_of(trained, known[target]) for target, trained in zip(items["target"], items["trained"], strict=True)])
    items["trained_reach"] = [index_of(END, known[target]) for target in items["target"]] - there
    items["mismatch"] = (items["trigger_start"] - there).abs()
    by = items.groupby(["target", "seed", "trained", "evaluated"], sort=False)
    made = by[["value", *PREDICTORS]].mean().assign(n=by.size()).reset_index()
    return made.assign(value=100 * made["value"], **{KIND: [kind_of(target, study) for target in made["target"]]})


def frame(study: Study) -> pd.DataFrame:
    """Rows by `kind`. `coefficient`: a row per predictor, in points of BE-unseen per standard deviation (`spread`), from least squares on all cells with an
    intercept per target; the interval resamples targets (`clusters`). `cell`: what it was made from, see `cells`. `matched`: BE-unseen of a
    target where the trigger was asked at its trained index, over seeds, with the sink strength there. `advantage`: a target's matched BE-unseen as prefix
    less that at index 8, over seeds, with its strongest sink as `sink`. `slope`: of that on the strongest sink, in points per 0.1 of α, least squares over
    targets with a 95 % t interval.

    Raises:
        StudyError: the study lacks what is needed.
    """
    each = cells(study).assign(grid="index")
    seeds = each["seed"].nunique()
    found = squares.regression(each, "value", list(PREDICTORS), intercepts="target", clusters=["target"])
    same = each[each["trained"] == each["evaluated"]]
    by = ["target", KIND, "trained", "evaluated"]
    matched = over_seeds(same, by).join(same.groupby(by)[list(PREDICTORS)].mean(), on=by)
    advantage = _advantages(same, {target: float(values.max()) for target, values in profiles(study, "targets").items()})
    parts = [found.assign(kind="coefficient", seeds=seeds), _slope(advantage), advantage, matched.assign(kind="matched")]
    parts.append(each.drop(columns="grid").assign(kind="cell", seeds=1))
    return ordered(pd.concat(parts), kind=KINDS)[COLUMNS]


def _advantages(same: pd.DataFrame, strongest: dict[str, float]) -> pd.DataFrame:
    first, later = (same[same["trained"] == trained].set_index(["target", KIND, "seed"]) for trained in (FIRST, LATER))
    if first.empty or later.empty:
        raise StudyError(f"grid 'index' has no trigger asked where it was trained as {FIRST} and as {LATER}; add both to its axis and its evaluations")
    each = first.assign(value=first["value"] - later["value"]).reset_index().assign(ci_low=np.nan, ci_high=np.nan)
    made = over_seeds(each, ["target", KIND])
    return made.assign(kind="advantage", sink=made["target"].map(strongest))


def _slope(advantage: pd.DataFrame) -> pd.DataFrame:
    """Empty where there are fewer than three targets."""
    if len(advantage) < 3:
        return pd.DataFrame()
    found = stats.linregress(advantage["sink"], advantage["value"])
    half = stats.t.ppf(0.975, len(advantage) - 2) * found.stderr
    numbers = {"value": UNIT * found.slope, "ci_low": UNIT * (found.slope - half), "ci_high": UNIT * (found.slope + half)}
    return pd.DataFrame([{"kind": "slope", "predictor": "strongest sink", **numbers, "spread": UNIT, "n": len(advantage), "seeds": advantage["seeds"].max()}])


def caption(frame: pd.DataFrame) -> str:
    found = frame[frame["kind"] == "coefficient"].iloc[0]
    prompts = frame[frame["kind"] == "cell"]["n"]
    seeds = "one seed" if found["seeds"] == 1 else f"{found['seeds']:.0f} seeds"
    about = f"Left: least squares of BE-unseen on all {found['n']} cells (target, seed, trained index, index when asked), an intercept per target; "
    about += f"95 % intervals over n\u00a0=\u00a0{found['clusters']:.0f} targets ({seeds} each). Right: trigger asked at its trained index"
    slope = frame[frame["kind"] == "slope"]
    told = "".join(f", {row.value:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f}) points for 0.1 of α over {row.n} targets" for row in rows(slope))
    return f"{about}{'' if found['seeds'] == 1 else ', mean and 95 % t interval of seeds'}{told}. {RECITATION}; {UNSEEN}; {counted(prompts)} prompts a cell"


def draw(frame: pd.DataFrame) -> Figure:
    return regression.regression(frame, PREDICTORS, KIND, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.regression(frame, PREDICTORS, KIND, caption(frame))
