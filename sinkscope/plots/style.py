"""One style for all figures: 7 pt at final size, a color-blind-safe palette, one color per model.

Importing this module changes no state of matplotlib: `styled` functions set the parameters while they run.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec
from unicodedata import category

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sinkscope.io.atomic import fill_directory

COLUMN = 3.35  # inches: one column of a two-column paper
PAGE = 6.9
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Lohit Devanagari",
    "Nirmala UI",
    "Noto Sans Hebrew",
    "Noto Sans Arabic",
    "Noto Sans Thai",
    "Arial Unicode MS",
    "Unifont",
)
"""Common fonts with characters that DejaVu lacks."""
FALLBACKS = [font for font in OTHER_SCRIPTS if font in {each.name for each in fontManager.ttflist}]
"""Those that are installed."""
SETTINGS: dict[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "font.family": [SANS, *FALLBACKS],
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "sinkscope",
    "hatch.linewidth": 0.5,
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
# the palette `colorblind` of seaborn
PALETTE = "#0173b2 #de8f05 #029e73 #d55e00 #cc78bc #ca9161 #fbafe4 #949494 #ece133 #56b4e9".split()
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
SPAN = "#f7ef9f"  # the trigger's span
FRAME = "#e8590c"  # the outline of a trigger's columns, visible on every color scale
MATCH = PALETTE[3]  # the outline of a cell in which two conditions agree
GRID: dict[str, Any] = {"linewidth": 0.3, "color": "#dddddd"}
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
MISSING = "□"
SIGNS = {"\n": "⏎", "\t": "⇥", " ": "␣"}
NOTE_COLOR = "#444444"
NOTE_SIZE = 6  # pt
NOTE_CHARACTERS = 22  # per inch, at that size
NOTE_LINES = 2
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....", "xxxx")

P = ParamSpec("P")


def color(label: str) -> str:
    """The color of a model or placement, the same in every figure; a stable one for other labels."""
    return COLORS.get(label) or PALETTE[5 + sum(label.encode()) % 5]


def assign_colors(labels: Iterable[str]) -> dict[str, str]:
    """Colors for labels that are distinguished within one figure only."""
    return dict(zip(labels, itertools.cycle(PALETTE), strict=False))


def show_whitespace(token: str) -> str:
    """A token as one line: ␣ for a space, ⏎ for a newline, escapes of what does not print, ∅ if empty."""
    signs = [SIGNS.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token]
    return "".join(signs) or "∅"


def truncate(token: str, width: int) -> str:
    """At most `width` characters; the last one is … if there were more."""
    return token if len(token) <= width else token[: width - 1] + "…"


def sanitize_glyphs(text: str, font: str = SANS) -> str:
    """The text as matplotlib draws it without a warning, with $ escaped.

    □ stands for characters that neither `font` has nor one of the installed `FALLBACKS`.
    """
    fonts = [font, *FALLBACKS]
    drawn = (c if c == "\n" or any(ord(c) in _characters(each) for each in fonts) else MISSING for c in text)
    return "".join(drawn).replace("$", r"\$")


def count_columns(text: str) -> int:
    """How many columns of the monospaced font a text takes: two for characters that it lacks.

    A mark that combines with the character before it takes none.
    """
    marks = {i for i, c in enumerate(text) if i > 0 and category(c) in ("Mn", "Me")}
    return sum(1 if ord(c) in _characters(MONO) else 2 for i, c in enumerate(text) if i not in marks)


@functools.cache
def _characters(font: str) -> frozenset[int]:
    return frozenset(FT2Font(findfont(font)).get_charmap())


def shorten(text: str, length: int) -> str:
    """At most `length` characters; what is too much is left out in the middle."""
    if len(text) <= length:
        return text
    tail = (length - 3) // 2
    return f"{text[: length - 3 - tail]} … {text[len(text) - tail :]}"


def wrap_note(text: str, width: float) -> str:
    """A note below a figure of `width` inches, in at most two lines; a longer one is cut in the middle."""
    per_line = int(width * NOTE_CHARACTERS)
    for length in range(per_line * NOTE_LINES, 0, -8):
        lines = textwrap.wrap(shorten(text, length), per_line, break_on_hyphens=False)
        if len(lines) <= NOTE_LINES:
            break
    return sanitize_glyphs("\n".join(lines))


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


def create_panels(figure: Figure, n: int, columns: int, **options: Any) -> list[Axes]:
    """The axes of `n` panels in rows of `columns`, from left to right and top to bottom.

    Args:
        options: of `Figure.subplots`.
    """
    grid = figure.subplots(-(-n // columns), columns, squeeze=False, **options)
    for axes in grid.flat[n:]:
        axes.set_visible(False)
    return list(grid.flat[:n])


def mark_trigger(axes: Axes, start: float, stop: float) -> None:
    """Shade the positions of a trigger, [start, stop)."""
    axes.axvspan(start - 0.5, stop - 0.5, facecolor=SPAN, linewidth=0, zorder=0, label="trigger")


def set_note(figure: Figure, note: str) -> Figure:
    """Write below the figure, small, what it was measured on; its caption is beside it, not in it."""
    figure.supxlabel(wrap_note(note, figure.get_figwidth()), fontsize=NOTE_SIZE, color=NOTE_COLOR)
    return figure


def legend_handle(label: str, shade: str = "black", *, marker: str | None = None, **style: Any) -> Line2D:
    """A legend entry of a line, or of a marker without a line."""
    linestyle = style.pop("linestyle", "none" if marker else "-")
    return Line2D([], [], label=label, color=shade, marker=marker, linestyle=linestyle, **style)


def patch_handle(label: str, shade: str, hatch: str = "") -> Patch:
    """A legend entry of a filled area."""
    return Patch(facecolor=shade, label=label, hatch=hatch, edgecolor="white", linewidth=0)


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """Put a legend above all axes of a figure."""
    figure.legend(handles=handles, loc="outside upper center", ncols=min(columns, len(handles)))


def save_figure(
    figure: Figure, data: pd.DataFrame, directory: Path, name: str, formats: Sequence[str] = ("png", "pdf")
) -> None:
    """Write the figure as `name.FORMAT` and its numbers as `name.csv`, each file completely or not at all.

    Raises:
        OutputError: the directory cannot be written.
    """
    with matplotlib.rc_context(SETTINGS), fill_directory(directory) as staging:
        layout = figure.get_layout_engine()
        try:
            for kind in formats:
                figure.savefig(staging / f"{name}.{kind}", metadata=METADATA[kind])
                figure.set_layout_engine(None)  # the next format has the same layout
        finally:
            figure.set_layout_engine(layout)
        data.to_csv(staging / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
