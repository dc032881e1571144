"""Loss terms of an unlearning run by training step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots.style import PAGE, color, style
from sinkscope.plots.text import sanitize_glyphs

MAX_COLUMNS = 3


def loss_curves(log: pd.DataFrame, terms: Sequence[str]) -> Figure:
    """A panel per term; `log` has the column `step` and a column per term, NaN at steps without it."""
    style()
    columns = min(MAX_COLUMNS, len(terms))
    rows = -(-len(terms) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(PAGE, 0.3 + 1.5 * rows), sharex=True, squeeze=False)
    for axis, term in zip(axes.flat, terms, strict=False):
        known = log[log[term].notna()]
        axis.plot(known["step"], known[term], color=color("NPO"))
        axis.set(title=sanitize_glyphs(term))
    for axis in axes.flat[len(terms) :]:
        axis.set_visible(False)
    figure.supxlabel("step", fontsize=7)
    return figure
