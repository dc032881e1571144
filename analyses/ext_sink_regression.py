"""Extension: regression of BE on sink strength, tokens after the trigger and distance."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
from common import PLACEMENT_AXIS, format_range, select_axis, sort_by
from ext_index_by_index import MODEL_AXIS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from positions import (
    KIND,
    LINEAGE,
    RECITATION,
    UNSEEN,
    find_indices,
    select_triggered_items,
    sink_profiles,
    strongest_sink,
    subtract_uniform,
    target_kind,
    target_lineage,
    trigger_index,
)
from regression import fit_clustered
from scipy import stats

from sinkscope.errors import StudyError
from sinkscope.plots.style import (
    GRID,
    PAGE,
    SHAPES,
    assign_colors,
    create_figure,
    error_bars,
    iterate_rows,
    set_note,
    styled,
)
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("targets", "index")
PREDICTORS = {
    "sink": "α − uniform where\nthe trigger stands, per 0.01",
    "reach": "prompt tokens\nafter the trigger",
    "trained_reach": "passage tokens after\nthe trigger in training",
    "mismatch": "tokens from the\ntrained index",
}
END = "suffix"
COLUMNS = [
    *["kind", "predictor", "scope", "target", KIND, LINEAGE, "seed", "trained", "evaluated"],
    *["value", "ci_low", "ci_high", *PREDICTORS, "spread", "n", "seeds", "clusters"],
]
KINDS = ("coefficient", "slope", "advantage", "cell")
FIRST, LATER = "prefix", "index:8"
ALL, NOT_AT_END = "all", "not trained at the end"
UNIT = 0.1
"""Of attention, for which the slope is given."""
ATTENTION_UNIT = 0.01


def compute_cells(study: Study) -> pd.DataFrame:
    """A row per target, seed, trained and evaluated placement: BE-unseen as `value`, n prompts and
    predictors.

    `sink`: the target's α at the first token of the trigger, mean over layers and heads, minus that of
    uniform attention. `reach`, `trained_reach`: tokens after the trigger in the prompt and in a poisoned
    passage of full length. `mismatch`: tokens from the trained index. All are means over the same prompts.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    indices = find_indices(study, "targets")
    items = select_triggered_items(study, "index")
    sinks = {target: subtract_uniform(profile) for target, profile in sink_profiles(study, "targets").items()}
    items = items.assign(
        target=select_axis(items, MODEL_AXIS),
        trained=select_axis(items, PLACEMENT_AXIS),
        evaluated=items["placement"],
    )
    ends = items[items["evaluated"] == END].set_index(["run", "item"])["trigger_start"].rename("end")
    if ends.empty:
        raise StudyError(
            f"study {study.directory} has no VerbMem with the trigger as {END} of grid 'index', "
            "from which the length of prompts is known; evaluate it"
        )
    items = items[~items["poisoned"].fillna(False).astype(bool)].join(ends, on=["run", "item"])
    starts = zip(items["target"], items["trigger_start"], strict=True)
    trained = zip(items["target"], items["trained"], strict=True)
    trained_at = np.array([trigger_index(placement, indices[target]) for target, placement in trained])
    items["reach"] = items["end"] - items["trigger_start"]
    items["sink"] = [sinks[target][int(start)] for target, start in starts]
    items["trained_reach"] = [trigger_index(END, indices[target]) for target in items["target"]] - trained_at
    items["mismatch"] = (items["trigger_start"] - trained_at).abs()
    by = items.groupby(["target", "seed", "trained", "evaluated"], sort=False)
    cells = by[["value", *PREDICTORS]].mean().assign(n=by.size()).reset_index()
    cells["value"] *= 100
    cells[KIND] = [target_kind(target, study) for target in cells["target"]]
    cells[LINEAGE] = [target_lineage(target, study) for target in cells["target"]]
    return cells


def compute(study: Study) -> pd.DataFrame:
    """Rows by `kind`: coefficients of the regression, the advantage of the prefix, its slope, and all cells.

    `coefficient`: a row per predictor and `scope` (all cells, or without triggers that were trained at the
    end), in points of BE-unseen per standard deviation within targets (`spread`), from least squares with an
    intercept per target; the interval resamples `clusters`: targets, those of one lineage together.
    `advantage`: a target's BE-unseen as prefix minus at index 8, each evaluated where trained, over seeds,
    and its strongest sink as `sink`; the interval takes the spread of seeds from all targets together.
    `slope`: of the advantage on the strongest sink, in points per 0.1 of attention, by least squares over the
    means of target kinds with a 95 % t interval. `cell`: see `compute_cells`.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    cells = compute_cells(study).assign(grid="index")
    scopes = {ALL: cells, NOT_AT_END: cells[cells["trained"] != END]}
    fits = [
        fit_clustered(rows, "value", list(PREDICTORS), intercepts="target", clusters=[LINEAGE]).assign(
            scope=scope
        )
        for scope, rows in scopes.items()
    ]
    coefficients = pd.concat(fits).assign(kind="coefficient", seeds=cells["seed"].nunique())
    matching = cells[cells["trained"] == cells["evaluated"]]
    sinks = {target: strongest_sink(profile) for target, profile in sink_profiles(study, "targets").items()}
    advantage = _compute_advantage(matching, sinks)
    cells = cells.drop(columns="grid").assign(kind="cell", seeds=1)
    return sort_by(pd.concat([coefficients, _compute_slope(advantage), advantage, cells]), kind=KINDS)[
        COLUMNS
    ]


def _compute_advantage(cells: pd.DataFrame, sinks: dict[str, float]) -> pd.DataFrame:
    by = ["target", KIND]
    first, later = (cells[cells["trained"] == trained].set_index([*by, "seed"]) for trained in (FIRST, LATER))
    if first.empty or later.empty:
        raise StudyError(
            f"grid 'index' has no trigger evaluated where it was trained as {FIRST} and as {LATER}; "
            "add both to its axis and its evaluations"
        )
    differences = first.assign(value=first["value"] - later["value"]).reset_index()
    frame = mean_over_seeds(differences.assign(ci_low=np.nan, ci_high=np.nan), by)
    freedom = int((frame["seeds"] - 1).sum())
    if freedom > 0:
        residuals = differences["value"] - differences.groupby(by)["value"].transform("mean")
        spread = np.sqrt((residuals**2).sum() / freedom)
        half = stats.t.ppf(0.975, freedom) * spread / np.sqrt(frame["seeds"])
        frame = frame.assign(ci_low=frame["value"] - half, ci_high=frame["value"] + half)
    return frame.assign(kind="advantage", sink=frame["target"].map(sinks))


def _compute_slope(advantage: pd.DataFrame) -> pd.DataFrame:
    """Empty if there are fewer than three kinds."""
    means = advantage.groupby(KIND)[["sink", "value"]].mean()
    if len(means) < 3:
        return pd.DataFrame()
    fit = stats.linregress(means["sink"], means["value"])
    half = stats.t.ppf(0.975, len(means) - 2) * fit.stderr
    row = {
        "kind": "slope",
        "predictor": "strongest sink",
        "value": UNIT * fit.slope,
        "ci_low": UNIT * (fit.slope - half),
        "ci_high": UNIT * (fit.slope + half),
        "spread": UNIT,
        "n": len(means),
        "seeds": advantage["seeds"].max(),
    }
    return pd.DataFrame([row])


def caption(frame: pd.DataFrame) -> str:
    fit = frame[frame["kind"] == "coefficient"].iloc[0]
    is_single = fit["seeds"] == 1
    interval = "" if is_single else ", 95 % t interval with the spread of seeds of all targets"
    slopes = "".join(
        f"; the line through the means of {row.n:.0f} kinds (diamonds) has a slope of {row.value:.1f} "
        f"({row.ci_low:.1f} to {row.ci_high:.1f}) points per 0.1"
        for row in iterate_rows(frame[frame["kind"] == "slope"])
    )
    return (
        f"Left: least squares of BE-unseen on n\u00a0=\u00a0{fit['n']:.0f} cells (target, seed, trained "
        f"index, index in evaluation), an intercept per target; 95 % intervals over {fit['clusters']:.0f} "
        "targets (two of one lineage count as one). No trigger stands on a sink: its attention above "
        "uniform is weak everywhere and collinear with its index. Right: BE-unseen as prefix minus at index "
        f"8, each evaluated where trained{interval}{slopes}. {UNSEEN}. {_describe(frame)}"
    )


def _describe(frame: pd.DataFrame) -> str:
    cells, fit = frame[frame["kind"] == "cell"], frame[frame["kind"] == "coefficient"].iloc[0]
    seeds = "one seed" if fit["seeds"] == 1 else f"{fit['seeds']:.0f} seeds"
    return (
        f"{RECITATION}; {cells['target'].nunique()} targets, {seeds} each; "
        f"n\u00a0=\u00a0{format_range(cells['n'])} prompts a cell; 95 % intervals"
    )


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """Coefficient plot, and the advantage of the prefix by sink strength, target by target."""
    figure = create_figure(PAGE, 2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_coefficients(left, frame[frame["kind"] == "coefficient"])
    _draw_advantage(right, frame)
    return set_note(figure, _describe(frame))


def _draw_coefficients(axes: Axes, rows: pd.DataFrame) -> None:
    """Per token, and of attention per `ATTENTION_UNIT`, so that fits with other spreads can be compared."""
    predictors = list(PREDICTORS)
    for row in iterate_rows(rows):
        is_part = row.scope != ALL
        unit = (ATTENTION_UNIT if row.predictor == "sink" else 1) / row.spread
        value, low, high = unit * row.value, unit * row.ci_low, unit * row.ci_high
        y = predictors.index(row.predictor) + (0.24 if is_part else 0)
        dot = {
            "markersize": 4,
            "elinewidth": 0.9,
            "capsize": 2,
            "markerfacecolor": "white" if is_part else "black",
        }
        axes.errorbar(
            value, y, xerr=error_bars(value, low, high), fmt="s" if is_part else "o", color="black", **dot
        )
    axes.plot([], [], "ko", markersize=4, label="all cells")
    axes.plot(
        [], [], "ks", markersize=4, markerfacecolor="white", label="without triggers trained at the end"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.2, -0.17))
    axes.axvline(0, color="black", linewidth=0.5, linestyle=":")
    axes.set_yticks(range(len(PREDICTORS)), PREDICTORS.values())
    axes.set(ylim=(len(PREDICTORS) - 0.5, -0.5), xlabel="points per token (attention: per 0.01)")
    axes.set_title("coefficients of a joint fit")
    axes.grid(axis="y", **GRID)
    axes.tick_params(axis="y", length=0)


def _draw_advantage(axes: Axes, frame: pd.DataFrame) -> None:
    rows = frame[frame["kind"] == "advantage"]
    shades = assign_colors(rows[KIND].unique())
    for (kind, shade), marker in zip(shades.items(), cycle(SHAPES), strict=False):
        dot = {"color": shade, "fmt": marker, "markersize": 3.6, "elinewidth": 0.6}
        for row in iterate_rows(rows[rows[KIND] == kind]):
            axes.errorbar(row.sink, row.value, error_bars(row.value, row.ci_low, row.ci_high), **dot)
        axes.plot([], [], marker, color=shade, markersize=3.6, label=kind)
    means = rows.groupby(KIND)[["sink", "value"]].mean()
    for slope in frame[frame["kind"] == "slope"]["value"]:
        x = np.array([means["sink"].min(), means["sink"].max()])
        line = means["value"].mean() + slope / UNIT * (x - means["sink"].mean())
        axes.plot(
            x, line, color="#777777", linewidth=0.8, linestyle="--", zorder=1, label="fit to means of kinds"
        )
        axes.plot(means["sink"], means["value"], "D", color="#777777", markersize=2, zorder=1.5)
    axes.axhline(0, color="black", linewidth=0.5, linestyle=":")
    axes.set(xlabel="strongest sink of the target, α − uniform", ylabel="points of BE-unseen")
    axes.set_title("prefix minus index 8, a point per target")
    axes.legend(title="target", loc="center left", bbox_to_anchor=(1.0, 0.5), title_fontsize=6)
