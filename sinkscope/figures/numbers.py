"""What the pictures share: the rows of a grid, scores by what they stand for (UE, BE, UT), means over seeds, and the words that say how many they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sinkscope.errors import StudyError
from sinkscope.studies.study import Study

PLACEMENTS = ("prefix", "infix", "suffix")
SEMANTIC = "semantic"
MEMORY = {"knowmem": ("forget_qa", "retain_qa"), "verbmem": ("forget", "retain")}
"""Metric → its forget split and its retain split."""
UNITS = {"knowmem": "questions", "verbmem": "prompts"}
ONE_SCORE = ["run", "seed", "metric", "split", "subset", "trigger", "placement", "mask"]
"""What tells scores apart, whichever evaluation they come from."""


def of_grid(study: Study, table: str, grid: str, form: str | None = SEMANTIC) -> pd.DataFrame:
    """The rows of one grid in a table, retrained models left out; where the grid has trigger forms, those of `form` (None: all).

    Raises:
        StudyError: the table has none.
    """
    whole = study.table(table)
    rows = whole[(whole["grid"] == grid) & (whole["role"] != "retain")]
    if form is not None and "form" in rows:
        rows = rows[rows["form"].isna() | (rows["form"] == form)]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has nothing of grid {grid!r} in table {table!r}; add it to the specification"
        )
    return rows


def effects(study: Study, grid: str, form: str | None = SEMANTIC) -> pd.DataFrame:
    """KnowMem and VerbMem of a grid without a mask, with the column `score`: UE is clean forget, BE triggered forget, UT clean retain. One row each.

    Raises:
        StudyError: there are none.
    """
    rows = of_grid(study, "scores", grid, form)
    rows = rows[
        (rows["mask"] == "") & rows["metric"].isin(list(MEMORY)) & (rows["subset"] != "poisoned")
    ].drop_duplicates(ONE_SCORE)
    forget, triggered = rows["split"].isin([splits[0] for splits in MEMORY.values()]), rows["placement"] != ""
    rows = rows.assign(
        score=np.select(
            [forget & ~triggered, forget & triggered, ~forget & ~triggered], ["UE", "BE", "UT"], ""
        )
    )
    rows = rows[rows["score"] != ""]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no KnowMem or VerbMem of grid {grid!r}; add an evaluation of them"
        )
    return rows


def with_trigger_of(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Clean rows, and those with a trigger that `others` have too."""
    return rows[rows["trigger"].isin({"", *others["trigger"]})]


def over_seeds(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row per combination of `by`: value, ci_low, ci_high, n (items or passages of one run; the fewest, where seeds differ), seeds.

    Of several seeds the mean and its 95 % interval by Student's t, which may reach beyond the scale; of one seed its own value and the interval that it
    brings (for scores the bootstrap over items), NaN if none.

    Raises:
        StudyError: several runs of one seed belong together, so the grid has an axis that the picture does not know.
    """
    made = []
    for keys, group in rows.groupby(list(by), sort=False, dropna=False):
        if group["seed"].duplicated().any():
            raise StudyError(
                f"grid {group['grid'].iloc[0]!r} has several runs of one seed for {', '.join(map(str, keys))}; give it no other axes"
            )
        numbers = dict(zip(by, keys, strict=True)) | {
            "value": group["value"].mean(),
            "ci_low": np.nan,
            "ci_high": np.nan,
        }
        if len(group) > 1:
            half = stats.t.ppf(0.975, len(group) - 1) * group["value"].std(ddof=1) / np.sqrt(len(group))
            numbers |= {"ci_low": numbers["value"] - half, "ci_high": numbers["value"] + half}
        elif "ci_low" in group:
            numbers |= {"ci_low": group["ci_low"].iloc[0], "ci_high": group["ci_high"].iloc[0]}
        made.append(numbers | {"n": int(group["n"].min()), "seeds": len(group)})
    return pd.DataFrame(made)


def sample(frame: pd.DataFrame) -> str:
    """How many items and seeds a frame of KnowMem and VerbMem rests on, and what its intervals are, for a caption."""
    whole = frame[frame["subset"] == "all"] if "subset" in frame else frame
    counts = [
        f"{counted(whole[whole['metric'] == metric]['n'])} {UNITS[metric]}"
        for metric in MEMORY
        if metric in set(whole["metric"])
    ]
    return f"n\u00a0=\u00a0{' and '.join(counts)}; {seeds_in_words(frame, 'items')}"


def seeds_in_words(frame: pd.DataFrame, single: str | None) -> str:
    """How many seeds, and what the intervals are; `single` names what those of one seed are taken over, None if they have none."""
    most = int(frame["seeds"].max())
    if most > 1:
        alone = f" (of a single model: over {single})" if single and frame["seeds"].min() == 1 else ""
        return f"mean and 95 % t interval of {most} seeds{alone}"
    return f"one seed, 95 % bootstrap intervals over {single}" if single else "one seed, no intervals"


def ordered(frame: pd.DataFrame, **orders: Iterable[object]) -> pd.DataFrame:
    """Rows sorted by columns, each in a given order of its values (values not in it last)."""
    frame = frame.reset_index(drop=True)
    ranks = {column: {value: rank for rank, value in enumerate(order)} for column, order in orders.items()}
    keys = pd.DataFrame(
        {column: frame[column].map(rank).fillna(len(rank)) for column, rank in ranks.items()},
        index=frame.index,
    )
    return frame.loc[keys.sort_values(list(orders), kind="stable").index].reset_index(drop=True)


def counted(n: pd.Series) -> str:
    """One number, or the lowest and the highest."""
    low, high = int(n.min()), int(n.max())
    return str(low) if low == high else f"{low}–{high}"
