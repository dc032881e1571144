"""Extension: sink strength of a position, and how well a trigger trained there works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from bootstrap import Sample, bootstrap_interval
from common import PLACEMENT_AXIS, describe_intervals, format_range, select_grid, sort_by
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from positions import (
    METRIC,
    RECITATION,
    UNSEEN,
    find_indices_of_single_model,
    measure_sinks,
    select_recitation,
    trigger_index,
)
from samples import Score
from scipy import stats

from sinkscope.plots.heatmap import CELL, attention_scale, draw_cells, format_percent
from sinkscope.plots.style import (
    PAGE,
    SHADE,
    add_legend,
    color,
    create_figure,
    error_bars,
    iterate_rows,
    legend_handle,
    set_note,
    styled,
)
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "index")
MEAN, EARLINESS = "mean", "-index"
EVALUATED, ALL = "evaluated index", "all"
"""Scopes of the correlation: the indices that a trigger was evaluated at, or all."""
BEYOND = "suffix"
"""The placement in evaluation of triggers whose own index is beyond the end of a prompt."""
COLUMNS = "quantity scope layer placement position evaluated value ci_low ci_high n seeds".split()
QUANTITIES = ("sink", "span", "BE", "UE", "unlearned BE", "correlation")
MAPS = {
    "sink": "% of attention to the position, target, clean passages (α)",
    "span": "% of attention to a trigger at the position, target",
}
LINES = {"BE": "prefix", "UE": "clean", "unlearned BE": "unlearned"}
"""Quantity -> the label that gives its line its color."""
STROKES = {"UE": ":", "unlearned BE": "--"}


def compute(study: Study) -> pd.DataFrame:
    """A row per quantity and trained placement (with its `position`), per layer where there are several.

    `sink`: the target's α at the position in clean passages, mean over heads; also at position 0, BOS.
    `span`: attention that the trigger itself receives there in the target, mean over heads. `BE`: BE-unseen
    of models trained with the trigger at that index; `evaluated` is the placement in evaluation: the same
    index, or suffix if prompts are too short for it. `UE`: the same models without the trigger. `unlearned
    BE`: the unlearned model with the trigger at `evaluated`. `correlation`: Spearman's ρ over indices between
    BE and the sink strength of a layer or their mean; the control, layer `-index`, is the correlation with
    earliness. `scope`: over all indices, or only over those that the trigger was evaluated at. Its interval
    resamples seeds and prompts.

    Raises:
        StudyError: the study lacks a grid, a score or a capture.
    """
    indices = find_indices_of_single_model(study, "target")
    sinks = measure_sinks(study, "target")
    scores = select_recitation(study, "index")
    scores = scores.assign(placement=scores[PLACEMENT_AXIS], evaluated=scores["placement"])
    expected = scores["placement"].where(scores["placement"].isin(set(scores["evaluated"])), BEYOND)
    scores = scores[(scores["score"] == "UE") | (scores["evaluated"] == expected)]
    means = mean_over_seeds(scores, ["score", "placement", "evaluated"]).rename(columns={"score": "quantity"})
    used = means[means["quantity"] == "BE"][["placement", "evaluated"]]
    unlearned = select_recitation(study, "unlearned")
    unlearned = mean_over_seeds(unlearned[unlearned["score"] == "BE"], ["placement"])
    unlearned = used.merge(unlearned.rename(columns={"placement": "evaluated"}), on="evaluated")
    means = pd.concat([means, unlearned.assign(quantity="unlearned BE")])
    means["position"] = means["placement"].map(lambda placement: trigger_index(placement, indices))
    parts = [
        _select_sinks(sinks, used["placement"], indices),
        _compute_spans(study, indices, set(used["placement"])),
        means.sort_values("position", kind="stable"),
        _compute_correlations(study, used, sinks, indices),
    ]
    return sort_by(pd.concat(parts), quantity=QUANTITIES)[COLUMNS]


def _select_sinks(sinks: pd.DataFrame, placements: pd.Series, indices: dict[str, int]) -> pd.DataFrame:
    names = {0: "", **{trigger_index(placement, indices): placement for placement in placements}}
    rows = sinks[sinks["position"].isin(names)].drop(columns="run")
    layer = rows["layer"].astype(str)
    return rows.assign(quantity="sink", placement=rows["position"].map(names), layer=layer, seeds=1)


def _compute_spans(study: Study, indices: dict[str, int], placements: set[str]) -> pd.DataFrame:
    masses = select_grid(study, "span_mass", "target")
    masses = masses[masses["placement"].isin(placements)]
    by = masses.groupby(["placement", "layer"], as_index=False, sort=False)
    means = by.agg(value=("span_mass_second", "mean"), n=("passages", "min"))
    position = means["placement"].map(indices)
    return means.assign(quantity="span", position=position, layer=means["layer"].astype(str), seeds=1)


def _compute_correlations(
    study: Study, used: pd.DataFrame, sinks: pd.DataFrame, indices: dict[str, int]
) -> pd.DataFrame:
    recovered = [
        Score(
            "index",
            METRIC,
            "forget",
            {PLACEMENT_AXIS: row.placement},
            is_triggered=True,
            placement=row.evaluated,
            is_unseen=True,
        ).measure(study)
        for row in iterate_rows(used)
    ]
    positions = [trigger_index(placement, indices) for placement in used["placement"]]
    by_layer = sinks.pivot(index="layer", columns="position", values="value")[positions]
    strengths = {str(layer): values.to_numpy() for layer, values in by_layer.iterrows()}
    strengths |= {MEAN: by_layer.mean().to_numpy(), EARLINESS: -np.array(positions, float)}
    is_evaluated = (used["evaluated"] != BEYOND).to_numpy()
    rows = []
    for scope, is_used in ((EVALUATED, is_evaluated), (ALL, np.full(len(used), True))):
        chosen = [sample for sample, keep in zip(recovered, is_used, strict=True) if keep]
        for layer, values in strengths.items():
            rows.append(rank_correlation(chosen, values[is_used]) | {"scope": scope, "layer": layer})
    return pd.DataFrame(rows).assign(quantity="correlation")


def rank_correlation(samples: Sequence[Sample], strengths: Float[np.ndarray, " index"]) -> dict[str, float]:
    """Spearman's ρ over indices between the means of samples and given strengths, with its interval.

    The interval (see `bootstrap_interval`) is cut off at ±1. NaN if either does not vary.

    Args:
        samples: one per index.
    """
    ranks = stats.rankdata(strengths)

    def correlate(*means: np.ndarray) -> np.ndarray:
        values = np.stack([each.mean(-1) for each in means], axis=-1)
        x = stats.rankdata(values, axis=-1)
        x = x - x.mean(-1, keepdims=True)
        y = ranks - ranks.mean()
        with np.errstate(invalid="ignore", divide="ignore"):
            return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))

    counts = {"n": 0, "seeds": 1}
    if samples:
        counts = {"n": samples[0].values.shape[2], "seeds": samples[0].values.shape[1]}
    if len(samples) < 3 or np.isnan(correlate(*(sample.means() for sample in samples))).any():
        return {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan} | counts
    result = bootstrap_interval(samples, correlate)
    return {"value": result.value, "ci_low": max(-1.0, result.low), "ci_high": min(1.0, result.high)} | counts


def caption(frame: pd.DataFrame) -> str:
    sinks = frame[(frame["quantity"] == "sink") & (frame["position"] > 0)]
    means = sinks.groupby("position")["value"].mean()
    return (
        "Above: attention of the target by layer, mean over heads, in percent of all attention, shaded by "
        "its square root on one scale. Below: models with the trigger trained at the index, evaluated "
        "there, or as suffix where the index is beyond the end of prompts; bands and bars: intervals. "
        f"{RECITATION}; {UNSEEN}. Where a trigger can be, sink strength hardly varies: it is "
        f"{100 * means.min():.1f} to {100 * means.max():.1f} % (mean of layers), so that these runs do not "
        f"show what it changes. {_describe(frame)}"
    )


def _describe(frame: pd.DataFrame) -> str:
    scores, passages = frame[frame["quantity"] == "BE"], frame[frame["quantity"] == "sink"]
    return (
        f"n\u00a0=\u00a0{format_range(scores['n'])} prompts, {format_range(passages['n'])} passages; "
        f"{describe_intervals(scores, 'items')}"
    )


@styled
def plot(frame: pd.DataFrame) -> Figure:
    """Attention by position above, and the effect of a trigger at that position below, on one axis."""
    names = _position_names(frame)
    layers = sorted(frame[frame["quantity"] == "sink"]["layer"].unique(), key=int)
    heights = [CELL * len(layers), CELL * len(layers), 1.6]
    figure = create_figure(PAGE, sum(heights) + 1.6)
    *maps, scores = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    scale = attention_scale(frame[frame["quantity"].isin(list(MAPS))]["value"])
    for axes, (quantity, title) in zip(maps, MAPS.items(), strict=True):
        rows = frame[frame["quantity"] == quantity]
        cells = rows.assign(x=rows["position"].map(names), y=rows["layer"], is_outlined=False)
        draw_cells(axes, cells, list(names.values()), layers, SHADE, scale, format_percent)
        known = set(rows[rows["value"].notna()]["position"])
        for x in (x for x, position in enumerate(names) if position not in known):
            axes.text(x + 0.5, len(layers) / 2, "–", ha="center", va="center", color="#777777")
        axes.set_ylabel("layer")
        axes.set_title(title, loc="left")
    _draw_scores(scores, frame, list(names))
    scores.set_title("score with a trigger that was trained at the position", loc="left")
    backdoored = {"marker": "o", "markersize": 4, "linestyle": "-"}
    shade, dashed = color(LINES["BE"]), {"linewidth": 0.8}
    handles = [
        legend_handle("BE-unseen, evaluated at the index", shade, **backdoored),
        legend_handle("BE-unseen, evaluated as suffix", shade, markerfacecolor="white", **backdoored),
        legend_handle("UE", color(LINES["UE"]), linestyle=STROKES["UE"], **dashed),
        legend_handle(
            "cleanly unlearned, same trigger",
            color(LINES["unlearned BE"]),
            linestyle=STROKES["unlearned BE"],
            **dashed,
        ),
    ]
    add_legend(figure, handles, 5)
    return set_note(figure, _describe(frame))


def _draw_scores(axes: Axes, frame: pd.DataFrame, positions: list[float]) -> None:
    for quantity, label in LINES.items():
        rows = frame[frame["quantity"] == quantity]
        shade = color(label)
        if quantity != "BE":
            x = [positions.index(position) + 0.5 for position in rows["position"]]
            axes.plot(x, rows["value"], color=shade, linewidth=0.8, linestyle=STROKES[quantity], zorder=1.5)
            axes.fill_between(x, rows["ci_low"], rows["ci_high"], color=shade, alpha=0.15, linewidth=0)
            continue
        for is_beyond, part in rows.groupby(rows["evaluated"] == BEYOND, sort=False):
            x = [positions.index(position) + 0.5 for position in part["position"]]
            axes.plot(x, part["value"], color=shade, linewidth=1.0, zorder=1.5)
            fill = "white" if is_beyond else shade
            dot = {"fmt": "o", "markersize": 4, "markerfacecolor": fill, "elinewidth": 0.8, "capsize": 1.5}
            for at, row in zip(x, iterate_rows(part), strict=True):
                error = error_bars(row.value, row.ci_low, row.ci_high)
                axes.errorbar(at, row.value, error, color=shade, zorder=2, **dot)
    is_beyond = frame[(frame["quantity"] == "BE") & (frame["evaluated"] == BEYOND)]["position"]
    if len(is_beyond) and is_beyond.min() > min(positions):
        axes.axvline(positions.index(is_beyond.min()), color="black", linewidth=0.5)
    axes.set(ylabel="ROUGE-L F1 × 100", ylim=(-4, 104), yticks=range(0, 101, 25))
    axes.set_xlabel("index of the trigger in training (0: BOS, where no trigger can be)")
    axes.tick_params(axis="x", length=2)


def _position_names(frame: pd.DataFrame) -> dict[float, str]:
    """Every position and its label."""
    rows = frame[frame["position"].notna()].drop_duplicates("position").sort_values("position")
    names = {}
    for row in iterate_rows(rows):
        name = "" if row.placement.startswith("index") else f"\n{row.placement or 'BOS'}"
        names[row.position] = f"{row.position:.0f}{name}"
    return names
