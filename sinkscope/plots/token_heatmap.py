"""The text itself, every token shaded by the attention it received."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import (
    FALLBACKS,
    MONO,
    NOTE_COLOR,
    NOTE_SIZE,
    PAGE,
    SHADE,
    count_columns,
    create_figure,
    sanitize_glyphs,
    show_whitespace,
    styled,
    truncate,
    wrap_note,
)

SIZE = 6.5  # pt
CHARACTER = 0.602 * SIZE / 72  # inches; DejaVu Sans Mono is 0.602 em wide
LINE = 0.165
LEFT = 0.45
RIGHT = 0.1
BOTTOM = 0.6
COLUMNS = int((PAGE - LEFT - RIGHT) / CHARACTER)
MAX_LINES = 50  # a page
MAX_CHARACTERS = 40  # of a token


@styled
def draw_tokens(tokens: Sequence[str], alpha: Float[np.ndarray, " position"], note: str) -> Figure:
    """Tokens in lines, with the position of each line's first token; at most a page, which the note
    states.

    Args:
        tokens: any text; spaces, newlines and characters that do not print are drawn as signs.
        alpha: attention received; NaN leaves a token unshaded. The shade is proportional to the square root,
            so that weak attention is visible next to a sink.
    """
    labels = [truncate(show_whitespace(token), MAX_CHARACTERS) for token in tokens]
    widths = [count_columns(_as_drawn(label)) for label in labels]
    cells = _layout(widths)
    if len(cells) < len(labels):
        note += f"; the first {len(cells)} of {len(labels)} tokens"
    n_lines = 1 + max((line for line, _ in cells), default=0)
    note = wrap_note(note, PAGE - LEFT)
    bottom = BOTTOM + 0.11 * note.count("\n")
    height = 0.08 + n_lines * LINE + bottom
    figure = create_figure(PAGE, height)
    figure.set_layout_engine("none")  # positions are counted in characters
    box = (LEFT / PAGE, bottom / height, COLUMNS * CHARACTER / PAGE, n_lines * LINE / height)
    axes = figure.add_axes(box)
    axes.set(xlim=(0, COLUMNS), ylim=(n_lines, 0))
    axes.axis("off")
    largest = float(np.nan_to_num(alpha).max(initial=0)) or 1.0
    scale = ScalarMappable(PowerNorm(0.5, 0, largest), SHADE)
    _draw_labels(axes, labels, widths, cells, alpha, scale)
    figure.text(LEFT / PAGE, 0.04 / height, note, fontsize=NOTE_SIZE, color=NOTE_COLOR)
    bar = figure.add_axes((LEFT / PAGE, (bottom - 0.16) / height, 2.0 / PAGE, 0.07 / height))
    ticks = largest * np.linspace(0, 1, 5) ** 2
    figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=ticks, format="%.2g")
    bar.tick_params(labelsize=5, length=2)
    bar.text(1.04, 0.5, "attention received α", fontsize=6, va="center", transform=bar.transAxes)
    return figure


def tokens_table(tokens: Sequence[str], alpha: Float[np.ndarray, " position"]) -> pd.DataFrame:
    """A row per token: position, token (with signs for spaces and newlines), alpha."""
    texts = [show_whitespace(token) for token in tokens]
    return pd.DataFrame({"position": np.arange(len(tokens)), "token": texts, "alpha": alpha})


def _draw_labels(
    axes: Axes,
    labels: Sequence[str],
    widths: Sequence[int],
    cells: Sequence[tuple[int, int]],
    alpha: Float[np.ndarray, " position"],
    scale: ScalarMappable,
) -> None:
    boxes = []
    shades = np.asarray(scale.norm(alpha), dtype=float)
    for label, width, shade, (line, column) in zip(labels, widths, shades, cells, strict=False):
        if not np.isnan(shade):
            corner, face = (column, line + 0.04), scale.cmap(shade)
            boxes.append(Rectangle(corner, width, 0.92, facecolor=face, edgecolor="white", linewidth=0.4))
        ink = "0.55" if np.isnan(shade) else "white" if shade > 0.6 else "black"
        text = sanitize_glyphs(label, MONO)
        style: dict[str, Any] = {"family": [MONO, *FALLBACKS], "fontsize": SIZE, "va": "center_baseline"}
        axes.text(column, line + 0.52, text, color=ink, **style)
    for position, (line, column) in enumerate(cells):
        if column == 0:
            number: dict[str, Any] = {"fontsize": 5, "color": "0.4", "ha": "right", "va": "center_baseline"}
            axes.text(-1, line + 0.52, str(position), **number)
    axes.add_collection(PatchCollection(boxes, match_original=True))


def _as_drawn(label: str) -> str:
    """The label as it looks, where escapes are not."""
    return sanitize_glyphs(label, MONO).replace(r"\$", "$")


def _layout(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Line and column of each token, up to the first that does not fit the page."""
    cells = []
    line = column = 0
    for width in widths:
        if column + width > COLUMNS:
            line += 1
            column = 0
        if line == MAX_LINES:
            break
        cells.append((line, column))
        column += width
    return cells
