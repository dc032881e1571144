"""Data frames row by row and group by group, for drawing: fields and keys are what the picture says they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd


def rows(data: pd.DataFrame) -> Iterator[Any]:
    """Rows with their columns as attributes."""
    return data.itertuples(index=False)


def groups(data: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The values of `by` and the rows that have them, in the order of the rows."""
    return iter(data.groupby(list(by), sort=False, dropna=False))
