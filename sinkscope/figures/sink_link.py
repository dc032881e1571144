"""Sinks and the backdoor: is a position's attention, in the target, what decides how well a trigger trained there works?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from plotly import graph_objects as go
from scipy import stats

from sinkscope.evaluation.statistics import Sample, bootstrap_interval
from sinkscope.figures.numbers import counted, of_grid, ordered, over_seeds, seeds_in_words
from sinkscope.figures.positions import (
    METRIC,
    RECITATION,
    TRAINED,
    UNSEEN,
    index_of,
    indices_of_one,
    recited,
    strength,
)
from sinkscope.plots import interactive_link, link
from sinkscope.plots.frames import rows
from sinkscope.studies.samples import Samples
from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned", "index")
MEAN, EARLINESS = "mean", "-index"
SCOPES = ("tried there", "all")
COLUMNS = [
    "quantity",
    "scope",
    "layer",
    "placement",
    "position",
    "evaluated",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "seeds",
]
QUANTITIES = ("sink", "span", "BE", "UE", "unlearned BE", "correlation")


def frame(study: Study) -> pd.DataFrame:
    """A row per quantity and trained placement (with its `position`), per layer where there are several; `evaluated` is where the trigger stood when asked.

    `sink` is the target's α of that position in clean passages, `span` the attention that the trigger itself draws there in the target, both mean over
    heads; `BE` is BE-unseen of models trained with the trigger at that index, asked with it at the same index, or as suffix where prompts are too short for
    that; `UE` the same models without it; `unlearned BE` the honest model with the trigger at the same place. `sink` also has position 0, BOS.
    `correlation` is Spearman's ρ over indices between BE and `sink` of a layer or their mean; its control, layer `-index`, is that with how early the index
    is. `scope` says whether over all indices, or only those that the trigger was tried at. Its interval resamples seeds and prompts.

    Raises:
        StudyError: the study lacks what is needed.
    """
    known, sinks = indices_of_one(study, "target"), strength(study, "target")
    scored = recited(study, "index")
    scored = scored.assign(placement=scored[TRAINED], evaluated=scored["placement"])
    tried = set(scored["evaluated"])
    at = scored["placement"].where(scored["placement"].isin(tried), link.BEYOND)
    mine = scored[(scored["score"] == "UE") | (scored["evaluated"] == at)]
    made = over_seeds(mine, ["score", "placement", "evaluated"]).rename(columns={"score": "quantity"})
    used = made[made["quantity"] == "BE"][["placement", "evaluated"]]
    honest = recited(study, "unlearned")
    honest = over_seeds(honest[honest["score"] == "BE"], ["placement"]).rename(
        columns={"placement": "evaluated"}
    )
    scores = pd.concat([made, used.merge(honest, on="evaluated").assign(quantity="unlearned BE")])
    scores["position"] = scores["placement"].map(lambda placement: index_of(placement, known))
    parts = [
        _sinks(sinks, used["placement"], known),
        _spans(study, known, set(used["placement"])),
        scores.sort_values("position", kind="stable"),
    ]
    return ordered(pd.concat([*parts, _correlations(study, used, sinks, known)]), quantity=QUANTITIES)[
        COLUMNS
    ]


def _sinks(sinks: pd.DataFrame, placements: pd.Series, known: dict[str, int]) -> pd.DataFrame:
    places = {0: "", **{index_of(placement, known): placement for placement in placements}}
    here = sinks[sinks["position"].isin(places)]
    return here.drop(columns="run").assign(
        quantity="sink", placement=here["position"].map(places), layer=here["layer"].astype(str), seeds=1
    )


def _spans(study: Study, known: dict[str, int], placements: set[str]) -> pd.DataFrame:
    masses = of_grid(study, "span_mass", "target")
    masses = masses[masses["placement"].isin(placements)]
    means = masses.groupby(["placement", "layer"], as_index=False, sort=False).agg(
        value=("span_mass_second", "mean"), n=("passages", "min")
    )
    return means.assign(
        quantity="span", position=means["placement"].map(known), layer=means["layer"].astype(str), seeds=1
    )


def _correlations(
    study: Study, used: pd.DataFrame, sinks: pd.DataFrame, known: dict[str, int]
) -> pd.DataFrame:
    samples, positions, own = [], [], []
    for placement, evaluated in used.itertuples(index=False):
        given = {"labels": {TRAINED: placement}, "triggered": True, "placement": evaluated, "unseen": True}
        samples.append(Samples(study).scored("index", METRIC, "forget", **given))
        positions.append(index_of(placement, known))
        own.append(evaluated != link.BEYOND)
    by_layer = sinks.pivot(index="layer", columns="position", values="value")[positions]
    strengths = {str(layer): values.to_numpy() for layer, values in by_layer.iterrows()}
    strengths |= {MEAN: by_layer.mean().to_numpy(), EARLINESS: -np.array(positions, float)}
    made = []
    for scope, kept in zip(SCOPES, (np.array(own), np.full(len(own), True)), strict=True):
        for layer, values in strengths.items():
            made.append(
                rank_correlation(
                    [each for each, keep in zip(samples, kept, strict=True) if keep], values[kept]
                )
                | {"scope": scope, "layer": layer}
            )
    return pd.DataFrame(made).assign(quantity="correlation")


def rank_correlation(samples: Sequence[Sample], strengths: Float[np.ndarray, " index"]) -> dict[str, float]:
    """Spearman's ρ over indices between the samples' means (one sample per index) and given strengths, with its interval (see `bootstrap.interval`), cut off
    at ±1; NaN where either does not vary."""
    ranks = stats.rankdata(strengths)

    def effect(*means: np.ndarray) -> np.ndarray:
        mine = stats.rankdata(np.stack([each.mean(-1) for each in means], axis=-1), axis=-1)
        x, y = mine - mine.mean(-1, keepdims=True), ranks - ranks.mean()
        with np.errstate(invalid="ignore", divide="ignore"):
            return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))

    unknown = {"value": np.nan, "ci_low": np.nan, "ci_high": np.nan}
    counts = {
        "n": samples[0].values.shape[1] if samples else 0,
        "seeds": len(samples[0].values) if samples else 1,
    }
    if len(samples) < 3 or np.isnan(effect(*(sample.means() for sample in samples))):
        return unknown | counts
    found = bootstrap_interval(samples, effect)
    return {"value": found.value, "ci_low": max(-1.0, found.low), "ci_high": min(1.0, found.high)} | counts


def caption(frame: pd.DataFrame) -> str:
    told = {(row.scope, row.layer): _rho(row) for row in rows(frame[frame["quantity"] == "correlation"])}
    compared = {MEAN: "sink strength (mean of layers)", EARLINESS: "earliness"}
    found = "; ".join(f"with {name} {told[SCOPES[0], layer]}" for layer, name in compared.items())
    scores, passages = frame[frame["quantity"] == "BE"], frame[frame["quantity"] == "sink"]
    there = (scores["evaluated"] != link.BEYOND).sum()
    about = f"{RECITATION}; {UNSEEN}. Spearman’s ρ of BE-unseen over the {there} indices that the trigger was tried at: {found}; "
    about += f"with sink strength over all {len(scores)}: {told[SCOPES[1], MEAN]}"
    return f"{about}. n\u00a0=\u00a0{counted(scores['n'])} prompts, {counted(passages['n'])} passages; {seeds_in_words(scores, 'items')}"


def _rho(row: Any) -> str:
    return "not defined" if pd.isna(row.value) else f"{row.value:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})"


def draw(frame: pd.DataFrame) -> Figure:
    return link.sink_link(frame, caption(frame))


def twin(frame: pd.DataFrame) -> go.Figure:
    return interactive_link.sink_link(frame, caption(frame))
