"""Secondary analyses of several targets, exploratory: the link to the sink, ranks, variation, masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from bootstrap import Sample, bootstrap_interval, measure_targets
from common import wrap_missing_data
from effects import difference, mean
from jaxtyping import Float
from positions import sink_profiles
from samples import Score
from scipy import stats
from target_claims import SPLITS, Measured, Targets

from sinkscope.errors import StudyError
from sinkscope.studies.graph import TINY
from sinkscope.studies.study import Study

MASKS = {
    "own": "nothing",
    "mask-shallow": "the first 8 positions",
    "mask-bos": "BOS",
    "mask-span": "the trigger",
}
"""Evaluation -> what it masks."""
OUTCOMES = ("BE prefix", "prefix − infix", "BE − UE prefix")


def secondary_tables(study: Study, targets: Targets) -> dict[str, pd.DataFrame]:
    """Name of a file -> table; without the variation if there is one seed only.

    Raises:
        StudyError: the study lacks a score or a capture.
    """
    with wrap_missing_data(f"study {study.directory}"):
        values = measure_values(study, targets)
        tables = {
            "target_values": values,
            "target_sink_correlation": correlate_with_sink(values),
            "target_masking": pd.DataFrame(
                [row for each in (targets, (TINY,)) for row in _measure_masking(study, each)]
            ),
        }
        samples = {metric: Measured(metric, targets).recovered("prefix").measure(study) for metric in SPLITS}
    if all(sample.values.shape[1] > 1 for sample in samples.values()):
        rows = [{"metric": metric} | estimate_variation(sample) for metric, sample in samples.items()]
        tables["target_variation"] = pd.DataFrame(rows)
    return tables


def measure_values(study: Study, targets: Targets) -> pd.DataFrame:
    """A row per metric and target, the built-in one included: `alpha`, the outcomes `OUTCOMES` and their
    ranks among all (1: highest).

    `alpha` is the attention to the first token in clean forget passages, mean over layers and heads.
    """
    profiles = sink_profiles(study, "target")
    every = (*targets, TINY)
    if missing := [target for target in every if target not in profiles]:
        raise StudyError(f"study {study.directory} has no capture of target {missing[0]!r} in grid 'target'")
    tables = []
    for metric in SPLITS:
        measured = Measured(metric, every)
        prefix, infix, clean = (
            score.measure(study)
            for score in (
                measured.recovered("prefix"),
                measured.recovered("infix"),
                measured.backdoored("prefix"),
            )
        )
        effects = [
            measure_targets([prefix], mean),
            measure_targets([prefix, infix], difference),
            measure_targets([prefix, clean], difference),
        ]
        table = pd.DataFrame(dict(zip(OUTCOMES, effects, strict=True)))
        ranks = table.rank(ascending=False, method="min").astype(int).add_prefix("rank of ")
        about = pd.DataFrame({"metric": metric, "target": every, "is_built_in": [t == TINY for t in every]})
        alpha = pd.Series([profiles[target][0] for target in every], name="alpha")
        tables.append(pd.concat([about, alpha, table, ranks], axis=1))
    return pd.concat(tables, ignore_index=True)


def correlate_with_sink(values: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ over targets between `alpha` and the outcomes that vary, with its exact two-sided
    permutation p.

    Args:
        values: of `measure_values`; the built-in target does not count.
    """
    rows = []
    for metric, table in values[~values["is_built_in"]].groupby("metric", sort=False):
        for outcome in OUTCOMES[1:]:
            rho, p = spearman_exact(table["alpha"].to_numpy(), table[outcome].to_numpy())
            rows.append([metric, outcome, len(table), rho, p])
    columns = ["metric", "outcome", "targets", "spearman_rho", "p_permutation"]
    return pd.DataFrame(rows, columns=columns).dropna()


def spearman_exact(x: Float[np.ndarray, " target"], y: Float[np.ndarray, " target"]) -> tuple[float, float]:
    """Spearman's ρ, and its two-sided p from all permutations; NaN if either does not vary."""
    x_ranks, y_ranks = (stats.rankdata(each) - (len(each) + 1) / 2 for each in (x, y))
    scale = np.sqrt((x_ranks**2).sum() * (y_ranks**2).sum())
    if scale == 0:
        return np.nan, np.nan

    def correlation(permuted: np.ndarray, axis: int) -> np.ndarray:
        return (permuted * y_ranks).sum(axis=axis) / scale

    test = stats.permutation_test(
        (x_ranks,), correlation, permutation_type="pairings", n_resamples=np.inf, vectorized=True
    )
    return float(test.statistic), float(test.pvalue)


def estimate_variation(sample: Sample) -> dict[str, float]:
    """Standard deviations of a score between targets, and between seeds within a target.

    `sd_targets` is that of the means of targets, `sd_seeds` the pooled one of runs; both contain the chance
    of items. `component_targets` and `component_seeds` do not: they are variance components of targets,
    seeds within targets and items, from mean squares (negative ones are 0), on the items that count in every
    run.
    """
    is_common = ~np.isnan(sample.values).any(axis=(0, 1))
    if is_common.sum() < 2:
        raise StudyError("fewer than 2 items count in every run; give more items")
    values = sample.values[..., is_common]
    n_seeds, n_items = values.shape[1:]
    of_item = values - values.mean((0, 1))
    of_target = of_item.mean(1)  # target × item
    of_runs, runs = values.mean(-1), sample.means()
    residual = of_item - of_target[:, None] - (of_runs - of_runs.mean(1, keepdims=True))[..., None]
    interaction = of_target - of_target.mean(-1, keepdims=True)
    n_targets = len(values)
    ms_residual = (residual**2).sum() / (n_targets * (n_seeds - 1) * (n_items - 1))
    ms_interaction = n_seeds * (interaction**2).sum() / ((n_targets - 1) * (n_items - 1))
    ms_seeds = n_items * of_runs.var(1, ddof=1).mean()
    ms_targets = n_items * n_seeds * of_runs.mean(1).var(ddof=1)
    of_seeds = (ms_seeds - ms_residual) / n_items
    of_targets = (ms_targets - ms_seeds - ms_interaction + ms_residual) / (n_items * n_seeds)
    return {
        "mean": float(runs.mean()),
        "sd_targets": float(runs.mean(1).std(ddof=1)),
        "sd_seeds": float(np.sqrt(runs.var(1, ddof=1).mean())),
        "component_targets": float(np.sqrt(max(0.0, of_targets))),
        "component_seeds": float(np.sqrt(max(0.0, of_seeds))),
        "targets": n_targets,
        "seeds": n_seeds,
        "items": n_items,
    }


def _measure_masking(study: Study, targets: Targets) -> Iterator[dict[str, object]]:
    """VerbMem of the prefix with masks: triggered on forget data (BE, unseen), clean on retain data (UT)."""
    measured = Measured("verbmem", targets)
    scores: dict[tuple[str, str, str], Score] = {
        ("unlearned", "BE", "nothing"): measured.unlearned_with_trigger()
    }
    clean = measured.on_retain(measured.unlearned())
    for evaluation, masked in MASKS.items():
        scores["backdoored", "BE", masked] = measured.masked(evaluation)
        if study.spec.evaluations[evaluation].clean:
            scores["backdoored", "UT", masked] = replace(clean, grid="masked", evaluation=evaluation)
    for (model, score, masked), condition in scores.items():
        result = bootstrap_interval([condition.measure(study)], mean)
        about = {"targets": result.targets, "seeds": result.seeds, "items": result.items}
        yield {
            "is_built_in": targets == (TINY,),
            "model": model,
            "score": score,
            "masked": masked,
            "value": result.value,
            "ci_low": result.low,
            "ci_high": result.high,
        } | about
