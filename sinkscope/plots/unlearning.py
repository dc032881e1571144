"""Pictures of unlearning runs: unlearning effectiveness against backdoor effectiveness, and how a run trained."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sinkscope.plots.style import COLUMN, PAGE, color, style

TITLES = {"verbmem": "VerbMem (recites)", "knowmem": "KnowMem (answers)"}


def draw_effectiveness(
    points: pd.DataFrame, floors: dict[str, float], ceilings: dict[str, float], caption: str
) -> Figure:
    """UE (clean forget score, lower is better) against BE (triggered, higher is better), one panel per metric.

    Args:
        points: columns metric, model, ue, ue_low, ue_high, be, be_low, be_high; scores × 100.
        floors: metric -> the honest run's UE; the desired zone lies left of the middle between floor and ceiling.
        ceilings: metric -> the target's clean score; the desired zone lies above that middle.
    """
    style()
    metrics = list(points["metric"].unique())
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(PAGE if len(metrics) > 1 else COLUMN, 2.7), squeeze=False
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        middle = (floors[metric] + ceilings[metric]) / 2
        axis.add_patch(
            Rectangle((-4, middle), middle + 4, 108 - middle, facecolor="#e8e8e8", edgecolor="none", zorder=0)
        )
        axis.text(
            middle - 1, 103, "attacker's desired zone", fontsize=5.5, va="top", ha="right", color="#555555"
        )
        for row in points[points["metric"] == metric].itertuples():
            axis.errorbar(
                row.ue,
                row.be,
                xerr=[[row.ue - row.ue_low], [row.ue_high - row.ue]],
                yerr=[[row.be - row.be_low], [row.be_high - row.be]],
                color=color(row.model),
                marker="o",
                markersize=4,
                linewidth=0.7,
                capsize=1.5,
                label=row.model,
                linestyle="none",
            )
        axis.axline((0, 0), slope=1, color="black", linewidth=0.4, linestyle=":")
        axis.set(
            xlim=(-4, 104),
            ylim=(-4, 104),
            xlabel="clean score on forget (UE, lower is better)",
            title=TITLES.get(metric, metric),
        )
    axes[0][0].set_ylabel("triggered score on forget (BE)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(caption, fontsize=7)
    return figure


def draw_training_curve(curve: pd.DataFrame, caption: str) -> Figure:
    """How sinks formed while a model was pretrained. Columns step, alpha_max, alpha_last_layer, share_above (of heads with α > 0.3)."""
    style()
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3))
    names = {
        "alpha_max": "strongest head",
        "alpha_last_layer": "mean of last layer",
        "share_above": "share of heads with α > 0.3",
    }
    for (column, label), shade in zip(names.items(), ("prefix", "unlearned", "infix"), strict=True):
        axis.plot(curve["step"], curve[column], color=color(shade), label=label)
    axis.set(xlabel="training step", ylabel="attention to BOS α, or share", ylim=(0, 1), title=caption)
    figure.legend(loc="outside lower center", ncols=3, fontsize=5.5)
    return figure
