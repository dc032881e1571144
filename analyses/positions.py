"""Positions of triggers and sinks in targets: recitation, sink strength, kinds of targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import MEMORY, select_effects, select_grid
from jaxtyping import Float

from sinkscope.errors import StudyError
from sinkscope.sinks.sink_map import MIN_QUERIES, uniform_alpha
from sinkscope.studies.graph import TINY
from sinkscope.studies.spec import PretrainConfig
from sinkscope.studies.study import Study
from sinkscope.triggers import Placement

METRIC = "verbmem"
RECITATION = "VerbMem, ROUGE-L F1 × 100"
UNSEEN = "BE-unseen: with the trigger, prompts from passages that were not poisoned"
KIND, LINEAGE = "target_kind", "lineage"
SINKS = {"bos": "BOS", "learned": "learned sink", "penalized": "first token penalized", "no-bos": "no BOS"}
SHIPPED = PretrainConfig(value_norm_penalty=0.1)


def select_recitation(study: Study, grid: str) -> pd.DataFrame:
    """VerbMem of a grid with the column `score`: UE on all clean forget prompts, BE on triggered ones.

    BE is BE-unseen: on prompts whose passage was not poisoned in training; of models without poisoned
    passages on all.

    Raises:
        StudyError: there is none.
    """
    rows = select_effects(study, grid, form=None)
    rows = rows[rows["metric"] == METRIC]
    clean = rows[(rows["score"] == "UE") & (rows["subset"] == "all")]
    triggered = rows[rows["score"] == "BE"]
    subset = "unseen" if "unseen" in set(triggered["subset"]) else "all"
    triggered = triggered[triggered["subset"] == subset]
    if clean.empty or triggered.empty:
        raise StudyError(
            f"study {study.directory}: grid {grid!r} lacks VerbMem with and without the trigger; "
            "give it an evaluation of both"
        )
    return pd.concat([clean, triggered], ignore_index=True)


def select_triggered_items(study: Study, grid: str) -> pd.DataFrame:
    """The triggered VerbMem forget prompts of a grid, a row per prompt.

    Raises:
        StudyError: there are none.
    """
    rows = select_grid(study, "items", grid, form=None)
    is_forget = (rows["metric"] == METRIC) & (rows["split"] == MEMORY[METRIC][0])
    rows = rows[is_forget & (rows["placement"] != "") & (rows["mask"] == "")]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no triggered VerbMem prompts of grid {grid!r}; evaluate them"
        )
    rows = rows.drop_duplicates(["run", "seed", "item", "trigger", "placement"])
    return rows.astype({"trigger_start": float})


def find_indices(study: Study, grid: str) -> dict[str, dict[str, int]]:
    """Run -> placement -> the most frequent first index of the trigger in captured passages of full length.

    Raises:
        StudyError: nothing was captured.
    """
    maps = select_grid(study, "maps", grid, form=None)
    indices: dict[str, dict[str, int]] = {}
    for (run, placement), starts in maps.groupby(["run", "placement"], sort=False)["trigger_start"]:
        indices.setdefault(str(run), {})[str(placement)] = int(starts.mode().iloc[0])
    return indices


def find_indices_of_single_model(study: Study, grid: str) -> dict[str, int]:
    """`find_indices` of a grid with one model.

    Raises:
        StudyError: nothing was captured, or the grid has several models.
    """
    indices = find_indices(study, grid)
    if len(indices) > 1:
        raise StudyError(
            f"grid {grid!r} has {len(indices)} models, {', '.join(indices)}, but this figure is about one; "
            "keep one of them"
        )
    return next(iter(indices.values()))


def trigger_index(placement: str, indices: dict[str, int]) -> int:
    """The first index of the trigger at a placement that was captured or that is a token index.

    Raises:
        StudyError: it is neither.
    """
    parsed = Placement.parse(placement)
    if placement not in indices and parsed.kind != "index":
        raise StudyError(
            f"the index of a trigger as {placement} is not known, because no capture has it; "
            "add one to the specification"
        )
    return indices.get(placement, parsed.number)


def measure_sinks(study: Study, grid: str) -> pd.DataFrame:
    """Sink strength of every position in given models: α of clean forget passages, mean over heads.

    Returns:
        Columns run, layer, position, value, n.

    Raises:
        StudyError: nothing was captured.
    """
    rows = select_grid(study, "attention", grid, form=None)
    rows = rows[rows["placement"] == rows.groupby("run")["placement"].transform("first")]
    by = rows.groupby(["run", "layer", "position"], as_index=False)
    return by.agg(value=("alpha_first", "mean"), n=("passages", "min"))


def sink_profiles(study: Study, grid: str) -> dict[str, np.ndarray]:
    """Run -> sink strength by position, mean over layers and heads.

    Raises:
        StudyError: nothing was captured.
    """
    means = measure_sinks(study, grid).groupby(["run", "position"])["value"].mean()
    return {str(run): values.to_numpy() for run, values in means.groupby("run", sort=False)}


def subtract_uniform(profile: Float[np.ndarray, " position"]) -> Float[np.ndarray, " position"]:
    """α minus that of uniform attention, which favors early positions."""
    return profile - uniform_alpha(len(profile))


def strongest_sink(profile: Float[np.ndarray, " position"]) -> float:
    """The largest excess over uniform attention, without the last positions, which attend to themselves."""
    return float(subtract_uniform(profile)[: max(1, len(profile) - MIN_QUERIES + 1)].max())


def index_label(index: float, placement: str) -> str:
    """An index as a label, with the placement's name if it has one."""
    kind = Placement.parse(placement).kind
    return f"{index:.0f}" if kind == "index" else f"{index:.0f}\n{kind}"


def target_kind(target: str, study: Study) -> str:
    """How a target was pretrained, in words; its name if the study did not pretrain it."""
    config = _pretrain_config(target, study)
    if config is None:
        return target
    penalty = f", value-norm penalty {config.value_norm_penalty:g}" if config.value_norm_penalty else ""
    steps = f", {config.steps} steps" if config.steps else ""
    return f"{SINKS[config.sink]}{penalty}{steps}"


def has_bos_sink(target: str, study: Study) -> bool:
    """Whether a target was pretrained such that a sink on BOS could form; False if it is not known."""
    config = _pretrain_config(target, study)
    return config is not None and config.sink == "bos"


def target_lineage(target: str, study: Study) -> str:
    """Targets with the same first stages of pretraining have one lineage, so that they are dependent."""
    config = _pretrain_config(target, study)
    return target if config is None else f"{config.sink} {config.seed} {config.steps or ''}".strip()


def _pretrain_config(target: str, study: Study) -> PretrainConfig | None:
    """How a target was pretrained from scratch; None if it was not."""
    config = SHIPPED if target == TINY else study.spec.models.get(target)
    return None if config is None or config.corpora == "both" else config
