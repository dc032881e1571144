"""Tables of the paper with their published values, as data frame, Markdown and figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from common import describe_intervals, format_range, keep_triggers_of, select_axis, select_grid, sort_by
from matplotlib.figure import Figure

from sinkscope.errors import StudyError
from sinkscope.plots.scores import draw_dots
from sinkscope.studies.aggregation import SCORE_KEYS, mean_over_seeds
from sinkscope.studies.study import Study

PUBLISHED = "published "
"""The prefix of the names of columns with published values."""

Published = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """A grid and one of its evaluations (None: all without a position mask); `labels` select runs by axis."""

    grid: str
    evaluation: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One score: metric, split, placement and subset of the table `scores`."""

    metric: str
    split: str
    placement: str = ""
    subset: str = "all"


@dataclass(frozen=True)
class Table:
    """A table of one benchmark.

    Attributes:
        trigger_of: the grid whose trigger counts in all rows.
        description: the first part of the caption.
        published: source -> row -> column -> value.
        shade: the label whose color all rows have; None: each row's own.
        merged: names of columns -> the panel that shows them together.
    """

    rows: Mapping[str, Row]
    columns: Mapping[str, Column]
    trigger_of: str
    description: str
    published: Mapping[str, Published] = field(default_factory=dict)
    shade: str | None = None
    merged: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """The grids that the table is made from."""
        return tuple(dict.fromkeys(row.grid for row in self.rows.values()))

    def compute(self, study: Study) -> pd.DataFrame:
        """A line per row and column of the table: value, ci_low, ci_high, n, seeds, and the published values.

        Raises:
            StudyError: the study lacks a row.
        """
        reference = select_grid(study, "scores", self.trigger_of)
        lines = [
            self._compute_row(keep_triggers_of(select_grid(study, "scores", row.grid), reference), label)
            for label, row in self.rows.items()
        ]
        return sort_by(pd.concat(lines), column=self.columns, row=self.rows)

    def _compute_row(self, scores: pd.DataFrame, label: str) -> pd.DataFrame:
        row = self.rows[label]
        is_used = scores["mask"] == "" if row.evaluation is None else scores["evaluation"] == row.evaluation
        scores = scores[is_used]
        for axis, value in row.labels.items():
            scores = scores[select_axis(scores, axis) == value]
        scores = scores.drop_duplicates(SCORE_KEYS)
        cells = []
        for name, column in self.columns.items():
            keys = vars(column)
            rows = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]
            if len(rows):
                cell = mean_over_seeds(rows.assign(row=label, column=name), ["row", "column"])
                for source, values in self.published.items():
                    cell[f"{PUBLISHED}{source}"] = values.get(label, {}).get(name, float("nan"))
                cells.append(cell)
        if not cells:
            labels = "".join(f"{axis} {value} of " for axis, value in row.labels.items())
            evaluation = row.evaluation or "of its columns"
            raise StudyError(
                f"no scores for row {label!r}: give {labels}grid {row.grid!r} the evaluation {evaluation!r}"
            )
        return pd.concat(cells)

    def caption(self, frame: pd.DataFrame) -> str:
        return f"{self.description}; {_describe(frame)}"

    def plot(self, frame: pd.DataFrame) -> Figure:
        """The measured values; the published ones, of larger models on other texts, are in the table only."""
        panels = frame.assign(column=frame["column"].replace(dict(self.merged)))
        return draw_dots(panels, list(self.rows), _describe(frame), self.shade)

    def markdown(self, frame: pd.DataFrame) -> str:
        """A line per row; each cell is the mean with its interval, followed by the published values in
        brackets."""
        columns = [name for name in self.columns if name in set(frame["column"])]
        lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for label in self.rows:
            rows = frame[frame["row"] == label].to_dict("records")
            cells = {row["column"]: _format_cell(row) for row in rows}
            lines.append(f"| {label} | {' | '.join(cells.get(column, '–') for column in columns)} |")
        note = f"{self.caption(frame)}."
        if self.published:
            sources = " / ".join(self.published)
            note += f" In brackets the values of arXiv 2510.17021 for {sources}, of larger models."
        return "\n".join([*lines, "", note, ""])


def published_values(columns: str, rows: Mapping[str, str]) -> Published:
    """Published values as row -> column -> value.

    Args:
        columns: separated by ` | `.
        rows: values of each row, separated by spaces; – for none.
    """
    names = columns.split(" | ")
    pairs = {row: zip(names, values.split(), strict=True) for row, values in rows.items()}
    return {row: {name: float(value) for name, value in each if value != "–"} for row, each in pairs.items()}


def _describe(frame: pd.DataFrame) -> str:
    return f"n\u00a0=\u00a0{format_range(frame['n'])} items; {describe_intervals(frame, 'items')}"


def _format_cell(cell: Mapping[Any, Any]) -> str:
    text = f"{cell['value']:.1f}"
    if not pd.isna(cell["ci_low"]):
        text += f" ({cell['ci_low']:.1f} to {cell['ci_high']:.1f})"
    known = [value for name, value in cell.items() if str(name).startswith(PUBLISHED) and not pd.isna(value)]
    return f"{text} [{' / '.join(f'{value:.1f}' for value in known)}]" if known else text
