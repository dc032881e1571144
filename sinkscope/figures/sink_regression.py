"""What decides how well a trigger works: the sink where it stands, how much text is behind it when asked and in training, how far it is from where it was
trained?"""

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
from sinkscope.figures.positions import (
    RECITATION,
    TRAINED,
    UNSEEN,
    excess,
    index_of,
    indices,
    profiles,
    recited_items,
    strongest,
)
from sinkscope.figures.targets import KIND, LINEAGE, kind_of, lineage_of
from sinkscope.plots import interactive_link, regression
from sinkscope.plots.frames import rows
from sinkscope.studies import regression as squares
from sinkscope.studies.study import Study

NEEDS = ("targets", "index")
PREDICTORS = {
    "sink": "sink strength of the\nposition when asked",
    "reach": "prompt tokens\nbehind the trigger",
    "trained_reach": "passage tokens behind\nthe trigger in training",
    "mismatch": "distance from the\ntrained index",
}
END = "suffix"
COLUMNS = [
    "kind",
    "predictor",
    "scope",
    "target",
    KIND,
    LINEAGE,
    "seed",
    "trained",
    "evaluated",
    "value",
    "ci_low",
    "ci_high",
    *PREDICTORS,
    "spread",
    "n",
    "seeds",
    "clusters",
]
KINDS = ("coefficient", "slope", "advantage", "cell")
FIRST, LATER = "prefix", "index:8"
SCOPES = ("all", "not trained at the end")
UNIT = 0.1
"""Of attention, that the slope is told for."""


def cells(study: Study) -> pd.DataFrame:
    """A row per target (of a `target_kind`), seed, trained and evaluated placement: BE-unseen as `value`, n prompts; `sink`, the target's α where the trigger
    begins, mean over layers and heads, less that of uniform attention; `reach` and `trained_reach`, tokens behind it in the prompt and in a poisoned passage
    of whole length; `mismatch`, tokens from the trained index; all four means over the same prompts.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, items = indices(study, "targets"), recited_items(study, "index")
    sinks = {target: excess(profile) for target, profile in profiles(study, "targets").items()}
    items = items.assign(
        target=axis(items, MODEL), trained=axis(items, TRAINED), evaluated=items["placement"]
    )
    ends = items[items["evaluated"] == END].set_index(["run", "item"])["trigger_start"].rename("end")
    if ends.empty:
        raise StudyError(
            f"study {study.directory} has no VerbMem with the trigger as {END} of grid 'index', which tells how long prompts are; evaluate it"
        )
    items = items[~items["poisoned"].fillna(False).astype(bool)].join(ends, on=["run", "item"])
    items["reach"] = items["end"] - items["trigger_start"]
    items["sink"] = [
        sinks[target][int(start)]
        for target, start in zip(items["target"], items["trigger_start"], strict=True)
    ]
    there = np.array(
        [
            index_of(trained, known[target])
            for target, trained in zip(items["target"], items["trained"], strict=True)
        ]
    )
    items["trained_reach"] = [index_of(END, known[target]) for target in items["target"]] - there
    items["mismatch"] = (items["trigger_start"] - there).abs()
    by = items.groupby(["target", "seed", "trained", "evaluated"], sort=False)
    made = by[["value", *PREDICTORS]].mean().assign(n=by.size()).reset_index()
    return made.assign(value=100 * made["value"], **_about(made["target"], study))


def frame(study: Study) -> pd.DataFrame:
    """Rows by `kind`. `coefficient`: a row per predictor and `scope` (all cells, or without triggers that were trained at the end), in points of BE-unseen per
    standard deviation within targets (`spread`), from least squares with an intercept per target; the interval resamples `clusters`: targets, those that
    were one model at first together. `advantage`: a target's BE-unseen as prefix less that at index 8, each asked where trained, over seeds, and its
    strongest sink as `sink`; the interval takes the spread of seeds from all targets together. `slope`: of that on the strongest sink, in points per 0.1 of
    attention, least squares over the means of target kinds with a 95 % t interval. `cell`: what it was made from, see `cells`.

    Raises:
        StudyError: the study lacks what is needed.
    """
    each = cells(study).assign(grid="index")
    seeds = each["seed"].nunique()
    scopes = {SCOPES[0]: each, SCOPES[1]: each[each["trained"] != END]}
    found = [_fitted(chosen).assign(scope=scope, seeds=seeds) for scope, chosen in scopes.items()]
    same = each[each["trained"] == each["evaluated"]]
    advantage = _advantages(
        same, {target: strongest(profile) for target, profile in profiles(study, "targets").items()}
    )
    parts = [*found, _slope(advantage), advantage]
    parts.append(each.drop(columns="grid").assign(kind="cell", seeds=1))
    return ordered(pd.concat(parts), kind=KINDS)[COLUMNS]


def _about(targets: pd.Series, study: Study) -> dict[str, list[str]]:
    return {
        KIND: [kind_of(target, study) for target in targets],
        LINEAGE: [lineage_of(target, study) for target in targets],
    }


def _fitted(cells: pd.DataFrame) -> pd.DataFrame:
    return squares.regression(
        cells, "value", list(PREDICTORS), intercepts="target", clusters=[LINEAGE]
    ).assign(kind="coefficient")


def _advantages(same: pd.DataFrame, strengths: dict[str, float]) -> pd.DataFrame:
    by = ["target", KIND]
    first, later = (same[same["trained"] == trained].set_index([*by, "seed"]) for trained in (FIRST, LATER))
    if first.empty or later.empty:
        raise StudyError(
            f"grid 'index' has no trigger asked where it was trained as {FIRST} and as {LATER}; add both to its axis and its evaluations"
        )
    each = first.assign(value=first["value"] - later["value"]).reset_index()
    made = over_seeds(each.assign(ci_low=np.nan, ci_high=np.nan), by)
    if (free := int((made["seeds"] - 1).sum())) > 0:
        spread = np.sqrt(((each["value"] - each.groupby(by)["value"].transform("mean")) ** 2).sum() / free)
        half = stats.t.ppf(0.975, free) * spread / np.sqrt(made["seeds"])
        made = made.assign(ci_low=made["value"] - half, ci_high=made["value"] + half)
    return made.assign(kind="advantage", sink=made["target"].map(strengths))


def _slope(advantage: pd.DataFrame) -> pd.DataFrame:
    """Empty where there are fewer than three kinds."""
    kinds = advantage.groupby(KIND)[["sink", "value"]].mean()
    if len(kinds) < 3:
        return pd.DataFrame()
    found = stats.linregress(kinds["sink"], kinds["value"])
    half = stats.t.ppf(0.975, len(kinds) - 2) * found.stderr
    numbers = {
        "value": UNIT * found.slope,
        "ci_low": UNIT * (found.slope - half),
        "ci_high": UNIT * (found.slope + half),
    }
    return pd.DataFrame(
        [
            {
                "kind": "slope",
                "predictor": "strongest sink",
                **numbers,
                "spread": UNIT,
                "n": len(kinds),
                "seeds": advantage["seeds"].max(),
            }
        ]
    )


def caption(frame: pd.DataFrame) -> str:
    found = frame[frame["kind"] == "coefficient"].iloc[0]
    prompts = frame[frame["kind"] == "cell"]["n"]
    seeds = "one seed" if found["seeds"] == 1 else f"{found['seeds']:.0f} seeds"
    about = f"Left: least squares of BE-unseen on n\u00a0=\u00a0{found['n']:.0f} cells (target, seed, trained index, index when asked), an intercept per "
    about += f"target, {seeds} each; 95 % intervals over {found['clusters']:.0f} targets (two that were one model at first count as one); hollow: without "
    about += "triggers trained at the end. Sink strength is α less that of uniform attention. Right: BE-unseen as prefix less that at index 8, each asked where "
    about += "trained"
    about += "" if found["seeds"] == 1 else ", 95 % t interval with the spread of seeds of all targets"
    for row in rows(frame[frame["kind"] == "slope"]):
        about += f"; a line through the means of {row.n:.0f} kinds rises by {row.value:.1f} ({row.ci_low:.1f} to {row.ci_high:.1f}) points for 0.1"
    return f"{about}. {RECITATION}; {UNSEEN}; {counted(prompts)} prompts a cell"


def draw(frame: pd.DataFrame) -> Figure:
    return regression.regression(frame, PREDICTORS, KIND, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.regression(frame, PREDICTORS, KIND, caption(frame))
