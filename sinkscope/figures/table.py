"""Tables of the paper: what stands in a row and in a column, the published numbers beside, as data frame, Markdown and picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from plotly import graph_objects as go

from sinkscope.errors import StudyError
from sinkscope.figures.bars import axis
from sinkscope.figures.numbers import (
    ONE_SCORE,
    counted,
    of_grid,
    ordered,
    over_seeds,
    seeds_in_words,
    with_trigger_of,
)
from sinkscope.plots import dot_plot as dots
from sinkscope.plots import interactive
from sinkscope.plots.dot_plot import PUBLISHED, published_in
from sinkscope.studies.study import Study

PREFIX = "prefix"


@dataclass(frozen=True)
class Row:
    """A grid, and the evaluation of it; by default what is scored without a mask. `labels` pick its runs, by their values on the grid's axes."""

    grid: str
    evaluation: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One score: metric, split, placement and subset of `scores.parquet`."""

    metric: str
    split: str
    placement: str = ""
    subset: str = "all"


@dataclass(frozen=True)
class Table:
    """A table of one benchmark; `trigger_of` names the grid whose trigger counts in all rows, `published` is source → row → column → value."""

    rows: dict[str, Row]
    columns: dict[str, Column]
    published: dict[str, dict[str, dict[str, float]]]
    trigger_of: str
    about: str
    shade: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.grid for row in self.rows.values()))

    def frame(self, study: Study) -> pd.DataFrame:
        """A line per row and column of the table: value, ci_low, ci_high, n, seeds, and the published numbers.

        Raises:
            StudyError: the study lacks a row.
        """
        triggered = of_grid(study, "scores", self.trigger_of)
        made = [
            self._line(with_trigger_of(of_grid(study, "scores", row.grid), triggered), label, row)
            for label, row in self.rows.items()
        ]
        return ordered(pd.concat(made), column=self.columns, row=self.rows)

    def _line(self, scores: pd.DataFrame, label: str, row: Row) -> pd.DataFrame:
        here = (
            scores[scores["mask"] == ""]
            if row.evaluation is None
            else scores[scores["evaluation"] == row.evaluation]
        )
        for axis_name, value in row.labels.items():
            here = here[axis(here, axis_name) == value]
        here, cells = here.drop_duplicates(ONE_SCORE), []
        for name, column in self.columns.items():
            keys = vars(column)
            found = here[(here[list(keys)] == pd.Series(keys)).all(axis=1)]
            if len(found):
                published = {
                    f"{PUBLISHED}{source}": rows.get(label, {}).get(name, float("nan"))
                    for source, rows in self.published.items()
                }
                cells.append(
                    over_seeds(found.assign(row=label, column=name), ["row", "column"]).assign(**published)
                )
        if not cells:
            lacking = (
                f"{_labelled(row)}grid {row.grid!r} the evaluation {row.evaluation or 'of its columns'!r}"
            )
            raise StudyError(f"nothing is scored for row {label!r}: give {lacking}")
        return pd.concat(cells)

    def caption(self, frame: pd.DataFrame) -> str:
        return f"{self.about}; n = {counted(frame['n'])} items; {seeds_in_words(frame, 'items')}"

    def draw(self, frame: pd.DataFrame) -> Figure:
        return dots.dots(frame, list(self.rows), self.caption(frame), self.shade)

    def twin(self, frame: pd.DataFrame) -> go.Figure:
        return interactive.dots(frame, list(self.rows), self.caption(frame), self.shade)

    def markdown(self, frame: pd.DataFrame) -> str:
        """A line per row; each cell the mean with its interval, the published numbers behind it in brackets."""
        columns = [name for name in self.columns if name in set(frame["column"])]
        lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for label in self.rows:
            told = {cell["column"]: _cell(cell) for cell in frame[frame["row"] == label].to_dict("records")}
            lines.append(f"| {label} | {' | '.join(told.get(column, '–') for column in columns)} |")
        sources = " / ".join(self.published)
        beside = (
            f" In brackets what arXiv 2510.17021 has for {sources}, on models of another size."
            if sources
            else ""
        )
        note = f"{self.caption(frame)}.{beside}"
        return "\n".join([*lines, "", note, ""])


def _labelled(row: Row) -> str:
    return "".join(f"{name} {value} of " for name, value in row.labels.items())


def by_column(columns: str, rows: dict[str, str]) -> dict[str, dict[str, float]]:
    """Published numbers as row → column → value, from columns separated by ` | ` and values by spaces (– for none)."""
    names = columns.split(" | ")
    return {
        row: {name: float(value) for name, value in zip(names, values.split(), strict=True) if value != "–"}
        for row, values in rows.items()
    }


def _cell(cell: dict[Any, Any]) -> str:
    spread = "" if pd.isna(cell["ci_low"]) else f" ({cell['ci_low']:.1f} to {cell['ci_high']:.1f})"
    there = [value for name in published_in(pd.DataFrame([cell])) if not pd.isna(value := cell[name])]
    beside = f" [{' / '.join(f'{value:.1f}' for value in there)}]" if there else ""
    return f"{cell['value']:.1f}{spread}{beside}"
