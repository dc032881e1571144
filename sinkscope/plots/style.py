"""One style for all figures: 7 pt at final size, a color-blind-safe palette, one color per model.

Importing this module changes no state of matplotlib: `styled` functions set the parameters while they run.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sinkscope.io.atomic import fill_directory
from sinkscope.plots.text import wrap_caption

COLUMN = 3.35  # inches: one column of a two-column paper
PAGE = 6.9

SETTINGS = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "font.family": "DejaVu Sans",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "sinkscope",
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
"""File format -> metadata that would differ between two runs, which is left out."""
PALETTE = (
    "#0173b2 #de8f05 #029e73 #d55e00 #cc78bc #ca9161 #fbafe4 #949494 #ece133 #56b4e9".split()
)  # the palette `colorblind` of seaborn
COLORS = {
    "target": "#333333",
    "retain": "#999999",
    "unlearned": PALETTE[0],
    "prefix": PALETTE[3],
    "index:8": PALETTE[1],
    "infix": PALETTE[2],
    "suffix": PALETTE[4],
    "A": "#333333",
    "B": PALETTE[0],
    "clean": "#333333",
    "triggered": PALETTE[3],
    "NPO": PALETTE[0],
    "RMU": PALETTE[5],
    "NPO-Backdoor": PALETTE[3],
    "RMU-Backdoor": "#6b4423",
    "none": PALETTE[3],
    "aligned": PALETTE[9],
}
METRICS = {"verbmem": "VerbMem", "knowmem": "KnowMem"}
ZONE = "#e8e8e8"  # the attacker's desired zone
SPAN = "#f7ef9f"  # the trigger's span
FRAME = "#e8590c"  # the outline of a trigger's columns, visible on every color scale
MATCH = PALETTE[3]  # the outline of a cell in which two conditions agree
GRID = {"linewidth": 0.3, "color": "#dddddd"}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 4,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.6,
}
SEQUENTIAL = "viridis"
SHADE = "Blues"  # the background of text: weak is white
DIVERGING = "RdBu_r"

P = ParamSpec("P")


def color(label: str) -> str:
    """The color of a model or placement, the same in every figure; a stable one for other labels."""
    return COLORS.get(label) or PALETTE[5 + sum(label.encode()) % 5]


def assign_colors(labels: Iterable[str]) -> dict[str, str]:
    """Colors for labels that are distinguished within one figure only."""
    return dict(zip(labels, itertools.cycle(PALETTE), strict=False))


def iterate_rows(data: pd.DataFrame) -> Iterator[Any]:
    """Rows as objects with a field per column."""
    return data.itertuples(index=False)


def error_bars(value: float, low: float, high: float) -> list[list[float]] | None:
    """An interval as matplotlib's errors of one point; None if there is none."""
    return None if pd.isna(low) else [[max(0.0, value - low)], [max(0.0, high - value)]]


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: it runs with this module's matplotlib parameters."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(SETTINGS):
            figure = draw(*args, **kwargs)
            for axes in figure.axes:  # a tick takes the style of the moment when it is created
                axes.xaxis.get_major_ticks(1)
                axes.yaxis.get_major_ticks(1)
        return figure

    return drawn


def create_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that pyplot does not keep in memory."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_caption(figure: Figure, caption: str) -> Figure:
    """Write the caption above the figure, in as many lines as its width needs."""
    figure.suptitle(wrap_caption(caption, figure.get_figwidth()), fontsize=7)
    return figure


def legend_handle(label: str, shade: str = "black", *, marker: str | None = None, **style: Any) -> Line2D:
    """A legend entry of a line, or of a marker without a line."""
    linestyle = style.pop("linestyle", "none" if marker else "-")
    return Line2D([], [], label=label, color=shade, marker=marker, linestyle=linestyle, **style)


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """Put a legend below all axes of a figure."""
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def patch_handle(label: str, shade: str) -> Patch:
    """A legend entry of a filled area."""
    return Patch(facecolor=shade, label=label)


def save_figure(
    figure: Figure, data: pd.DataFrame, directory: Path, name: str, formats: Sequence[str] = ("png", "pdf")
) -> None:
    """Write the figure as `name.FORMAT` and its numbers as `name.csv`, each file completely or not at all.

    Raises:
        OutputError: the directory cannot be written.
    """
    with matplotlib.rc_context(SETTINGS), fill_directory(directory) as staging:
        for kind in formats:
            figure.savefig(staging / f"{name}.{kind}", metadata=METADATA[kind])
        data.to_csv(staging / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
