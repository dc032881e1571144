"""One style for every picture: 7 pt at final size, color-blind safe, vector text; one color per model everywhere."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib

if "ipykernel" not in sys.modules:  # a notebook shows figures in its own way
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sinkscope.io.atomic import fill_directory

COLUMN = 3.35  # inches: one column of a two-column paper
PAGE = 6.9

_SETTINGS = {
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
    "svg.fonttype": "none",
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_PALETTE = sns.color_palette("colorblind").as_hex()
COLORS = {
    "target": "#333333",
    "retain": "#999999",
    "unlearned": _PALETTE[0],
    "prefix": _PALETTE[3],
    "index:8": _PALETTE[1],
    "infix": _PALETTE[2],
    "suffix": _PALETTE[4],
    "A": "#333333",
    "B": _PALETTE[0],
    "clean": "#333333",
    "triggered": _PALETTE[3],
    "NPO": _PALETTE[0],
    "RMU": _PALETTE[5],
    "NPO-Backdoor": _PALETTE[3],
    "RMU-Backdoor": "#6b4423",
    "none": _PALETTE[3],
    "aligned": _PALETTE[9],
}
METRICS = {"verbmem": "VerbMem", "knowmem": "KnowMem"}
ZONE = "#e8e8e8"  # what an attacker desires
SPAN = "#f7ef9f"  # where a trigger stands
FRAME = "#e8590c"  # around a trigger's columns, seen on every color scale
MATCH = _PALETTE[3]  # around a cell where two things agree
SEQUENTIAL = "viridis"
SHADE = "Blues"  # behind text: weak is white
DIVERGING = "RdBu_r"


def color(label: str) -> str:
    """The color of a model or placement, the same in every picture; a stable one for labels not in the list."""
    return COLORS.get(label) or _PALETTE[5 + sum(label.encode()) % 5]


def assign_colors(labels: Iterable[str]) -> dict[str, str]:
    """Colors for things that are only told apart within one picture."""
    return dict(zip(labels, itertools.cycle(_PALETTE), strict=False))


def error_bars(value: float, low: float, high: float) -> list[list[float]] | None:
    """An interval as matplotlib's errors of one point; None if there is none."""
    return None if pd.isna(low) else [[max(0.0, value - low)], [max(0.0, high - value)]]


def style() -> None:
    """Apply the house style to matplotlib."""
    plt.rcParams.update(_SETTINGS)


def save_figure(figure: Figure, data: pd.DataFrame, directory: Path, name: str) -> None:
    """Write `name.png`, `name.pdf` and `name.csv`, the numbers in the picture, each whole.

    Raises:
        OutputError: the directory cannot be written.
    """
    try:
        with fill_directory(directory) as written:
            figure.savefig(written / f"{name}.png", metadata={"Software": None})
            figure.savefig(written / f"{name}.pdf", metadata={"CreationDate": None})
            data.to_csv(written / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    finally:
        plt.close(figure)
