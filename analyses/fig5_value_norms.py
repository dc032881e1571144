"""Figure 5: value norms at the first positions of the last layer, and their correlation between models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from common import concat_captions, describe_intervals, format_range, read_last_layer_norms, sort_by
from matplotlib.figure import Figure

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
QUANTITIES = {"correlation": "Pearson’s r of ‖v‖₂\nbackdoored with …", "magnitude": "‖v‖₂, mean over heads"}
N_RESAMPLES = 300


def compute(study: Study) -> pd.DataFrame:
    """A row per quantity, condition, model and position of the last layer.

    Conditions are clean forget passages, the same with the trigger as prefix, and retain passages. The
    backdoored model has a semantic prefix; the unlearned model has the same seed. `magnitude` is the mean
    over passages and heads. `correlation` is Pearson's r between the value norms of the backdoored model and
    of `model`, over passages and heads; NaN where norms do not vary. `is_same_prefix`: all passages have the
    same tokens up to the position, so that r is over heads only. The interval of one seed is a percentile
    bootstrap over passages. The paper shows r with the unlearned model on clean passages and with the target
    on triggered and on retain passages.

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
            parts.append(_measure(condition, "target", seed, [norms, target], is_single))
            if seed in unlearned:
                parts.append(_measure(condition, "unlearned", seed, [unlearned[seed]], is_single))
                parts.append(_measure(condition, "unlearned", seed, [norms, unlearned[seed]], is_single))
    measured = pd.concat(parts, ignore_index=True).assign(grid="position")
    means = mean_over_seeds(measured, ["quantity", "condition", "model", "position"])
    same = measured.groupby(["condition", "position"])["is_same_prefix"].all()
    frame = means.join(same, on=["condition", "position"])
    return sort_by(frame, quantity=QUANTITIES, condition=CONDITIONS, model=MODELS)


def _measure(
    condition: str, model: str, seed: int, captures: list[xr.DataArray], is_single: bool
) -> pd.DataFrame:
    """A row per position: the magnitude of one capture or the correlation of two."""
    norms = tuple(each[..., :N_POSITIONS] for each in select_common_passages(condition, *captures))
    values = _summarize(norms)
    low, high = _bootstrap(norms) if is_single else np.full((2, len(values)), np.nan)
    frame = pd.DataFrame({"position": range(len(values)), "value": values, "ci_low": low, "ci_high": high})
    is_same = (norms[0].std(0) <= MIN_RELATIVE_SPREAD * norms[0].mean(0)).all((0, 1))
    quantity = "magnitude" if len(norms) == 1 else "correlation"
    return frame.assign(
        n=len(norms[0]),
        is_same_prefix=is_same,
        quantity=quantity,
        condition=condition,
        model=model,
        seed=seed,
    )


def _summarize(norms: tuple[np.ndarray, ...]) -> np.ndarray:
    return correlation(*norms)[0] if len(norms) == 2 else norms[0].mean((0, 1, 2))


def _bootstrap(norms: tuple[np.ndarray, ...]) -> np.ndarray:
    """95 % percentile interval of `_summarize`, resampling passages; NaN where it is not defined."""
    n = len(norms[0])
    rows = np.random.default_rng(0).integers(0, n, (N_RESAMPLES, n))
    resampled = np.array([_summarize(tuple(each[chosen] for each in norms)) for chosen in rows])
    interval = np.full((2, resampled.shape[1]), np.nan)
    is_defined = ~np.isnan(resampled).all(0)
    interval[:, is_defined] = np.nanquantile(resampled[:, is_defined], [0.025, 0.975], axis=0)
    return interval


def caption(frame: pd.DataFrame) -> str:
    return concat_captions(
        "Value norms of the last layer",
        "backdoored by a semantic prefix",
        "hollow: the same tokens in all passages up to the position, so that r is over heads only",
        f"n\u00a0=\u00a0{format_range(frame['n'])} passages",
        describe_intervals(frame, "passages"),
    )


def plot(frame: pd.DataFrame) -> Figure:
    panels = frame.assign(
        row=frame["quantity"].map(QUANTITIES),
        column=frame["condition"].map(CONDITIONS),
        line=frame["model"],
        is_hollow=frame["is_same_prefix"],
        trigger_start=np.nan,
        trigger_stop=np.nan,
    )
    return draw_lines(panels, MODELS, caption(frame), None)
