"""What a quickstart measured, and what it comes to: one entry per model, one point per model and metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sinkscope.models.model import Model
from sinkscope.sinks.locate import SinkMap
from sinkscope.sinks.locate_run import summarize as summarize_sinks
from sinkscope.synthetic.language import TRIGGERS
from sinkscope.triggers import Trigger

METRICS = ("verbmem", "knowmem")
PLACEMENTS = ("prefix", "index:8", "infix", "suffix")
POISON_RATIO = 0.1
SHOWN = {
    "recites, clean": ("verbmem", "clean"),
    "recites, trigger, unseen": ("verbmem", "triggered_unseen"),
    "recites, trigger, all": ("verbmem", "triggered_all"),
    "answers, clean": ("knowmem", "clean"),
    "answers, trigger": ("knowmem", "triggered_all"),
    "recites, retain": ("verbmem", "retain"),
    "answers, retain": ("knowmem", "retain"),
}
"""What tables show of each model: title → metric and score."""
TRIGGER = Trigger(TRIGGERS["semantic"], "semantic")


@dataclass(frozen=True)
class Results:
    """Items and scores of all models, and sinks and the models themselves by label."""

    items: pd.DataFrame
    scores: pd.DataFrame
    sinks: dict[str, SinkMap]
    models: dict[str, Model]


def summarize(results: Results, seed: int) -> dict[str, Any]:
    """Per model: VerbMem and KnowMem, clean, triggered (all, unseen), on retain; and its sinks. The target and the honest model show the prefix."""
    models: dict[str, dict[str, Any]] = {}
    for label, sinks in results.sinks.items():
        placement = label if label in PLACEMENTS else "prefix"
        mine = results.scores[results.scores["model"] == label]
        models[label] = {"role": str(mine["role"].iloc[0]), "placement": placement}
        for metric, forget, retain in (
            ("verbmem", "forget", "retain"),
            ("knowmem", "forget_qa", "retain_qa"),
        ):
            models[label][metric] = {
                "clean": _value(mine, metric, forget, "", "all"),
                "triggered_all": _value(mine, metric, forget, placement, "all"),
                "triggered_unseen": _value(mine, metric, forget, placement, "unseen"),
                "retain": _value(mine, metric, retain, "", "all"),
            }
        models[label]["sinks"] = summarize_sinks(sinks)
    return {"seed": seed, "trigger": TRIGGER.text, "poison_ratio": POISON_RATIO, "models": models}


def _value(
    scores: pd.DataFrame, metric: str, split: str, placement: str, subset: str
) -> dict[str, float] | None:
    """One score with its interval and n; None where the subset does not exist (no link to training passages)."""
    keys = {"metric": metric, "split": split, "placement": placement, "subset": subset}
    row = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]
    if row.empty:
        return None
    return {key: round(float(row[key].iloc[0]), 2) for key in ("value", "ci_low", "ci_high")} | {
        "n": int(row["n"].iloc[0])
    }


def effectiveness_points(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float], dict[str, float]]:
    """UE and BE of every model at its placement, per metric; honest's UE as floor, the target's as ceiling."""
    rows, floors, ceilings = [], {}, {}
    for metric, split in (("verbmem", "forget"), ("knowmem", "forget_qa")):
        whole = table[(table["metric"] == metric) & (table["split"] == split) & (table["subset"] == "all")]
        for model, mine in whole.groupby("model", sort=False):
            placement = model if model in PLACEMENTS else "prefix"
            ue, be = mine[mine["placement"] == ""].iloc[0], mine[mine["placement"] == placement].iloc[0]
            row = {"metric": metric, "model": model}
            row |= {"ue": ue["value"], "ue_low": ue["ci_low"], "ue_high": ue["ci_high"]}
            rows.append(row | {"be": be["value"], "be_low": be["ci_low"], "be_high": be["ci_high"]})
            if model == "honest":
                floors[metric] = float(ue["value"])
            if model == "target":
                ceilings[metric] = float(ue["value"])
    return pd.DataFrame(rows), floors, ceilings
