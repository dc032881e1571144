"""What the pictures of bars share: UE and BE of backdoored models by group and series, beside the honest and the target model under the same triggers."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import MEMORY, effects, ordered, over_seeds
from sinkscope.studies.study import Study

SCORES = ("UE", "BE")
REFERENCES = ("unlearned", "target")
_KEYS = ["metric", "score", "subset", "model", "group", "series"]
_TRIGGER = ["trigger", "placement"]


def axis(rows: pd.DataFrame, name: str) -> pd.Series:
    """A grid's labels on one axis, as text.

    Raises:
        StudyError: the grid has no such axis.
    """
    if name not in rows or rows[name].isna().any():
        raise StudyError(f"grid {rows['grid'].iloc[0]!r} has no axis {name!r}; add it to the specification")
    return rows[name].astype(str)


def with_references(
    study: Study, rows: pd.DataFrame, groups: Iterable[str], series: Iterable[str]
) -> pd.DataFrame:
    """A row per metric, score (UE, BE), subset, model and bar: value, its interval, n, seeds.

    For every bar there are also rows of the models `unlearned` and `target`, on all items: UE, and BE with the same trigger at the same placement.

    Args:
        rows: `numbers.effects` of backdoored runs with the columns `group` and `series`, which name the bar.
        groups: the order of `group`.
        series: the order of `series`.

    Raises:
        StudyError: the study lacks one of the two.
    """
    rows = rows[rows["score"].isin(SCORES)]
    bars = rows[rows["score"] == "BE"][[*_TRIGGER, "group", "series"]].drop_duplicates()
    parts = [rows.assign(model="backdoored")]
    for model in REFERENCES:
        theirs = effects(study, model, form=None)
        theirs = theirs[(theirs["subset"] == "all") & theirs["score"].isin(SCORES)]
        clean = theirs[theirs["score"] == "UE"].merge(
            bars[["group", "series"]].drop_duplicates(), how="cross"
        )
        parts += [part.assign(model=model) for part in (clean, theirs.merge(bars, on=_TRIGGER))]
    made = over_seeds(pd.concat(parts), _KEYS)
    return ordered(
        made,
        metric=MEMORY,
        score=SCORES,
        model=("backdoored", *REFERENCES),
        subset=("all", "unseen"),
        group=groups,
        series=series,
    )
