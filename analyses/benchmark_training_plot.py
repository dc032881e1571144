"""The picture of benchmark_training.csv, and its caption."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots.style import HATCHES, PAGE, add_legend, assign_colors, create_figure, set_note, styled

LOW, HIGH = "forward_equivalents_{}_low", "forward_equivalents_{}_high"
"""Columns of quartiles."""


def _describe(table: pd.DataFrame) -> str:
    spread = ", bars: quartiles" if LOW.format("ours") in table else ""
    shape = "8 layers, d 256, CPU"
    return f"n\u00a0=\u00a0{table['repeats'].iloc[0]:.0f} repeats of a step, medians{spread}; {shape}"


def caption(table: pd.DataFrame) -> str:
    return (
        "A training step, against a literal one that recomputes the outputs of frozen models; both take "
        "turns. Time is in forward passes of one batch: a pass with gradients takes about three. Memory is "
        f"the peak of one process. {_describe(table)}"
    )


@styled
def plot(table: pd.DataFrame) -> Figure:
    steps = table[table["forward_equivalents_ours"].notna()]
    figure = create_figure(PAGE, 2.1)
    grid = figure.subplots(1, 2, sharey=True)
    y = range(len(steps))
    titles = {
        "forward_equivalents": ("time of a step", "forward passes"),
        "peak": ("memory of a step", "MB at its peak"),
    }
    variants = {"literal": (-0.2, "recomputing frozen outputs"), "ours": (0.2, "sinkscope")}
    shades = assign_colors(variants)
    for axes, (column, (title, unit)) in zip(grid, titles.items(), strict=True):
        for variant, (shift, label) in variants.items():
            face = {"color": shades[variant], "edgecolor": "white", "hatch": HATCHES[variant == "literal"]}
            values, at = steps[f"{column}_{variant}"], [each + shift for each in y]
            bars = axes.barh(at, values, 0.38, label=label, linewidth=0, **face)
            axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=6)
            if column != "peak" and LOW.format(variant) in steps:
                low, high = values - steps[LOW.format(variant)], steps[HIGH.format(variant)] - values
                axes.errorbar(values, at, xerr=[low, high], fmt="none", ecolor="black", elinewidth=0.8)
        axes.set_yticks(list(y), [kind.replace(" + ", "\n+ ") for kind in steps["kind"]])
        axes.set(xlabel=unit, title=title)
        axes.margins(x=0.15)
    grid[0].invert_yaxis()
    add_legend(figure, grid[0].get_legend_handles_labels()[0])
    return set_note(figure, _describe(table))
