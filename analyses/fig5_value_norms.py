"""Figure 5: value norms at the first positions of the last layer, and their correlation between models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from common import concat_captions, describe_intervals, format_range, read_last_layer_norms, sort_by
from matplotlib.figure import Figure
from samples import SINKS, next_seed

from sinkscope.plots.lines import draw_lines
from sinkscope.sinks.compare import MIN_RELATIVE_SPREAD, correlation
from sinkscope.studies.aggregation import mean_over_seeds
from sinkscope.studies.captures import select_common_passages
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "position")
N_POSITIONS = 16
CONDITIONS = {"clean": "clean forget", "prefix": "forget with trigger", "retain": "retain"}
MODELS = {"backdoored": "prefix", "unlearned": "unlearned", "target": "target"}
"""Model -> the label that gives it its color."""
QUANTITIES = {
    "correlation": "Pearson’s r of ‖v‖₂,\nbackdoored with …",
    "difference": "change in mean ‖v‖₂,\nbackdoored − …",
}
"""Quantity that is drawn -> its axis."""
LINES = {"unlearned": "unlearned, next seed", "target": "target"}
N_RESAMPLES = 300
Norms = tuple[np.ndarray, ...]
Summary = Callable[[Norms], np.ndarray]


def compute(study: Study) -> pd.DataFrame:
    """A row per quantity, condition, model and position of the last layer.

    Conditions are clean forget passages, the same with the trigger as prefix, and retain passages. The
    backdoored model has a semantic prefix. It is compared with the target and with the unlearned model of
    the next seed, since that of its own saw the data in the same order; in a study of one seed with the
    target alone. `magnitude` is the mean over passages and heads. `correlation` is Pearson's r between the
    value norms of the backdoored model and of `model`, over passages and heads; NaN where norms do not vary.
    `is_same_prefix`: all passages have the same tokens up to the position, so that r is over heads only. The
    interval of one seed is a percentile bootstrap over passages. The paper shows r with the unlearned model
    on clean passages and with the target on triggered and on retain passages.

    Raises:
        StudyError: the study lacks a grid or a capture.
    """
    backdoored = read_last_layer_norms(study, "position", "prefix")
    unlearned = read_last_layer_norms(study, "unlearned", "prefix")
    target = next(iter(read_last_layer_norms(study, "target", "prefix").values()))
    is_single = len(backdoored) == 1
    parts = []
    for condition in CONDITIONS:
        parts.append(_measure(condition, "target", 0, [target], is_single=True))
        for seed, norms in backdoored.items():
            parts.append(_measure(condition, "backdoored", seed, [norms], is_single))
            parts += _compare(condition, "target", seed, [norms, target], is_single)
            if len(unlearned) > 1:
                other = unlearned[next_seed(unlearned, seed)]
                parts += _compare(condition, "unlearned", seed, [norms, other], is_single)
        for seed, norms in unlearned.items():
            parts.append(_measure(condition, "unlearned", seed, [norms], len(unlearned) == 1))
    measured = pd.concat(parts, ignore_index=True).assign(grid="position")
    means = mean_over_seeds(measured, ["quantity", "condition", "model", "position"])
    same = measured.groupby(["condition", "position"])["is_same_prefix"].all()
    frame = means.join(same, on=["condition", "position"])
    return sort_by(frame, quantity=QUANTITIES, condition=CONDITIONS, model=MODELS)


def _compare(
    condition: str, model: str, seed: int, captures: list[xr.DataArray], is_single: bool
) -> list[pd.DataFrame]:
    """The correlation and the difference of two captures."""
    return [_measure(condition, model, seed, captures, is_single, quantity) for quantity in QUANTITIES]


def _measure(
    condition: str,
    model: str,
    seed: int,
    captures: list[xr.DataArray],
    is_single: bool,
    quantity: str = "magnitude",
) -> pd.DataFrame:
    """A row per position."""
    norms = tuple(each[..., :N_POSITIONS] for each in select_common_passages(condition, *captures))
    summarize = SUMMARIES[quantity]
    values = summarize(norms)
    low, high = _bootstrap(norms, summarize) if is_single else np.full((2, len(values)), np.nan)
    frame = pd.DataFrame({"position": range(len(values)), "value": values, "ci_low": low, "ci_high": high})
    is_same = (norms[0].std(0) <= MIN_RELATIVE_SPREAD * norms[0].mean(0)).all((0, 1))
    return frame.assign(
        n=len(norms[0]),
        is_same_prefix=is_same,
        quantity=quantity,
        condition=condition,
        model=model,
        seed=seed,
    )


SUMMARIES: dict[str, Summary] = {
    "magnitude": lambda norms: norms[0].mean((0, 1, 2)),
    "difference": lambda norms: (norms[0] - norms[1]).mean((0, 1, 2)),
    "correlation": lambda norms: correlation(*norms)[0],
}


def _bootstrap(norms: Norms, summarize: Summary) -> np.ndarray:
    """95 % percentile interval, resampling passages; NaN where the summary is not defined."""
    n = len(norms[0])
    rows = np.random.default_rng(0).integers(0, n, (N_RESAMPLES, n))
    resampled = np.array([summarize(tuple(each[chosen] for each in norms)) for chosen in rows])
    interval = np.full((2, resampled.shape[1]), np.nan)
    is_defined = ~np.isnan(resampled).all(0)
    interval[:, is_defined] = np.nanquantile(resampled[:, is_defined], [0.025, 0.975], axis=0)
    return interval


def _describe(frame: pd.DataFrame) -> str:
    return f"n\u00a0=\u00a0{format_range(frame['n'])} passages; {describe_intervals(frame, 'passages')}"


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "Value norms of the last layer, of models backdoored by a semantic prefix",
        "the unlearned model has the next seed: that of the same seed saw the data in the same order"
        if "unlearned" in set(frame[frame["quantity"] == "correlation"]["model"])
        else "",
        "hollow: the same tokens in all passages up to the position, so that r is over heads only",
        f"yellow: the first positions, {SINKS[0]} to {SINKS[-1]}, which the paper compares",
        _describe(frame),
    )


def plot(frame: pd.DataFrame) -> Figure:
    drawn = frame[frame["quantity"].isin(list(QUANTITIES))]
    panels = drawn.assign(
        row=drawn["quantity"],
        column=drawn["condition"],
        title=drawn["condition"].map(CONDITIONS) + ": " + drawn["quantity"],
        ylabel=drawn["quantity"].map(QUANTITIES),
        line=drawn["model"].map(LINES),
        is_hollow=drawn["is_same_prefix"],
        span_start=SINKS[0],
        span_stop=SINKS[-1] + 1,
    )
    colors = {name: MODELS[model] for model, name in LINES.items()}
    return draw_lines(panels, colors, _describe(frame), None, "first positions, as in the paper")
