"""Extension: triggered scores by placement on several targets that nothing was selected on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from bootstrap import Sample, bootstrap_interval
from common import PLACEMENTS, UNITS, format_range, sort_by
from effects import mean
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from target_claims import GRIDS, SPLITS, Measured, find_targets

from sinkscope.errors import StudyError
from sinkscope.plots.scores import EDGES, MARKERS, METRICS, TICKS
from sinkscope.plots.style import (
    COLUMN,
    GRID,
    add_legend,
    color,
    create_figure,
    error_bars,
    legend_handle,
    set_note,
    styled,
)
from sinkscope.studies.graph import TINY
from sinkscope.studies.study import Study

NEEDS = GRIDS
MEAN = "mean"
"""The row of all targets but the built-in one."""
SEED = "seed "
"""The prefix of the names of columns with the score of one seed."""
OFFSETS = dict(zip(PLACEMENTS, (-0.27, 0.0, 0.27), strict=True))
"""Of a placement's points from the middle of their row."""
ROW = 0.27  # inches
GAP = 0.5  # rows between the mean, the targets and the built-in one
SUMMARY: dict[str, Any] = {"markersize": 4, "elinewidth": 0.9, "capsize": 1.5, "zorder": 3}
POINT: dict[str, Any] = {"markersize": 2.2, "alpha": 0.6, "markeredgewidth": 0, "zorder": 2}


def compute(study: Study) -> pd.DataFrame:
    """A row per metric, model (`backdoored`, `unlearned`), placement and target, and for their mean.

    Triggered scores × 100: of backdoored models with the trigger where it was trained, on unseen items; of
    unlearned ones with the same trigger. The score of each seed is in a column of its own. Intervals are
    those of `bootstrap_interval`; the mean is without the built-in target.

    Raises:
        StudyError: the study is not about several targets, or lacks a score.
    """
    targets = find_targets(study)
    if targets is None:
        raise StudyError(
            f"study {study.directory} has no grids {', '.join(GRIDS)} over several targets; use targets.yaml"
        )
    rows = []
    for metric in SPLITS:
        for group in (targets, (TINY,)):
            measured = Measured(metric, group)
            for placement in PLACEMENTS:
                scores = {
                    "backdoored": measured.recovered(placement),
                    "unlearned": measured.unlearned_with_trigger(placement),
                }
                for model, score in scores.items():
                    about = {"metric": metric, "model": model, "placement": placement}
                    rows += [about | row for row in _summarize(score.measure(study), group)]
    return sort_by(pd.DataFrame(rows), metric=SPLITS, target=[MEAN, *targets, TINY])


def _summarize(sample: Sample, targets: Sequence[str]) -> list[dict[str, object]]:
    """The score of each target, and of several their mean."""
    parts = {target: sample.values[[i]] for i, target in enumerate(targets)}
    if len(targets) > 1:
        parts = {MEAN: sample.values} | parts
    rows = []
    for name, values in parts.items():
        result = bootstrap_interval([Sample(values, sample.items)], mean)
        by_seed = Sample(values, sample.items).means().mean(0)
        rows.append(
            {"target": name, "value": result.value, "ci_low": result.low, "ci_high": result.high}
            | {"n": round(result.items), "targets": result.targets, "seeds": result.seeds}
            | {f"{SEED}{seed}": score for seed, score in zip(sample.seeds or (), by_seed, strict=True)}
        )
    return rows


def caption(frame: pd.DataFrame) -> str:
    return (
        "ROUGE-L F1 × 100 with the trigger where it was trained, on items whose passage was not poisoned. "
        "Small points: seeds; mean: of the targets without the built-in one, which was chosen after results "
        f"were known; {_describe(frame)}"
    )


def _describe(frame: pd.DataFrame) -> str:
    means = frame[frame["target"] == MEAN]
    counts = [
        f"{format_range(part['n'])} {UNITS[metric]}"
        for metric, part in means[means["model"] == "backdoored"].groupby("metric", sort=False)
    ]
    n_seeds, n_targets = int(means["seeds"].max()), int(means["targets"].max())
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    return (
        f"n\u00a0=\u00a0{n_targets} targets, {seeds}, {' and '.join(counts)}; 95 % intervals by a crossed "
        "bootstrap over all three"
    )


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """A panel per metric, a row per target; the mean above them, the built-in target below."""
    names = list(frame["target"].unique())
    positions = {name: i + GAP * (i > 0) + GAP * (name == TINY) for i, name in enumerate(names)}
    metrics = list(frame["metric"].unique())
    figure = create_figure(COLUMN, 0.95 + ROW * len(names))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw_panel(axes, frame[frame["metric"] == metric], positions)
        axes.set(title=METRICS[metric], xlabel="ROUGE-L F1 × 100", xlim=EDGES, xticks=TICKS)
    labels = {MEAN: f"mean of {len(names) - 2}", TINY: "built-in"}
    panels[0].set_yticks(list(positions.values()), [labels.get(name, name) for name in names])
    panels[0].set_ylim(positions[TINY] + 0.6, -0.6)
    handles = [
        legend_handle(
            f"trained and evaluated as {placement}", color(placement), marker=MARKERS[placement], markersize=4
        )
        for placement in PLACEMENTS
    ]
    handles.append(legend_handle("unlearned, same trigger", color("unlearned"), marker="|", markersize=6))
    add_legend(figure, handles, 2)
    return set_note(figure, _describe(frame))


def _draw_panel(axes: Axes, rows: pd.DataFrame, positions: Mapping[str, float]) -> None:
    axes.axhspan(positions[TINY] - 0.6, positions[TINY] + 0.6, facecolor="#eeeeee", linewidth=0, zorder=0)
    axes.axhline(positions[MEAN] + 0.5 + GAP / 2, linewidth=0.6, color="black")
    seeds = [name for name in rows.columns if name.startswith(SEED)]
    for row in rows.to_dict("records"):
        y = positions[row["target"]] + OFFSETS[row["placement"]]
        if row["model"] == "unlearned":
            axes.plot(row["value"], y, "|", color=color("unlearned"), markersize=4.5, zorder=2.5)
            continue
        shade, marker = color(row["placement"]), MARKERS[row["placement"]]
        if row["target"] == MEAN:
            error = error_bars(row["value"], row["ci_low"], row["ci_high"])
            axes.errorbar(row["value"], y, xerr=error, fmt=marker, color=shade, **SUMMARY)
        else:
            axes.plot([row[seed] for seed in seeds], [y] * len(seeds), marker, color=shade, **POINT)
    axes.grid(axis="x", **GRID)
    axes.tick_params(axis="y", length=0)
