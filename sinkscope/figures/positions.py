"""What the pictures of trigger positions share: recitation with and without the trigger, where triggers stand, and how strong a sink every position is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from sinkscope.errors import StudyError
from sinkscope.figures.numbers import MEMORY, effects, of_grid
from sinkscope.sinks.sink_map import MIN_QUERIES, uniform_alpha
from sinkscope.studies.study import Study
from sinkscope.triggers import Placement

TRAINED = "trigger.placement"
"""The axis of a grid over placements of the trigger in training."""
METRIC = "verbmem"
RECITATION = "VerbMem, ROUGE-L F1 × 100"
UNSEEN = "BE-unseen: with the trigger, prompts from passages that were not poisoned"


def recited(study: Study, grid: str) -> pd.DataFrame:
    """VerbMem of a grid with the column `score`: UE on all clean forget prompts, BE (BE-unseen) on triggered ones whose passage was not poisoned in training;
    of models whose prompts were never poisoned on all.

    Raises:
        StudyError: there is none.
    """
    rows = effects(study, grid, form=None)
    rows = rows[rows["metric"] == METRIC]
    clean, triggered = rows[(rows["score"] == "UE") & (rows["subset"] == "all")], rows[rows["score"] == "BE"]
    wanted = "unseen" if "unseen" in set(triggered["subset"]) else "all"
    triggered = triggered[triggered["subset"] == wanted]
    if clean.empty or triggered.empty:
        raise StudyError(
            f"study {study.directory}: grid {grid!r} lacks VerbMem with and without the trigger; give it an evaluation of both"
        )
    return pd.concat([clean, triggered], ignore_index=True)


def recited_items(study: Study, grid: str) -> pd.DataFrame:
    """Triggered VerbMem forget prompts of a grid, one by one.

    Raises:
        StudyError: there are none.
    """
    rows = of_grid(study, "items", grid, form=None)
    rows = rows[
        (rows["metric"] == METRIC)
        & (rows["split"] == MEMORY[METRIC][0])
        & (rows["placement"] != "")
        & (rows["mask"] == "")
    ]
    if rows.empty:
        raise StudyError(
            f"study {study.directory} has no triggered VerbMem prompts of grid {grid!r}; add an evaluation of them"
        )
    return rows.drop_duplicates(["run", "seed", "item", "trigger", "placement"]).astype(
        {"trigger_start": float}
    )


def indices(study: Study, grid: str) -> dict[str, dict[str, int]]:
    """Run → placement → where the trigger begins in captured passages of whole length (the most frequent place).

    Raises:
        StudyError: nothing was captured.
    """
    found: dict[str, dict[str, int]] = {}
    for (run, placement), mine in of_grid(study, "maps", grid, form=None).groupby(
        ["run", "placement"], sort=False
    )["trigger_start"]:
        found.setdefault(str(run), {})[str(placement)] = int(mine.mode().iloc[0])
    return found


def indices_of_one(study: Study, grid: str) -> dict[str, int]:
    """`indices` of a grid of one model.

    Raises:
        StudyError: nothing was captured, or of several models.
    """
    found = indices(study, grid)
    if len(found) > 1:
        raise StudyError(
            f"grid {grid!r} has {len(found)} models, {', '.join(found)}, and this picture is about one; leave one in it"
        )
    return next(iter(found.values()))


def index_of(placement: str, known: dict[str, int]) -> int:
    """Where the trigger begins at a placement that was captured, or that is a token index.

    Raises:
        StudyError: it is neither.
    """
    parsed = Placement.parse(placement)
    if placement not in known and parsed.kind != "index":
        raise StudyError(
            f"no capture has the trigger as {placement}, so that its index is not known; add one to the specification"
        )
    return known.get(placement, parsed.number)


def strength(study: Study, grid: str) -> pd.DataFrame:
    """Sink strength of every position in given models: α of clean forget passages, mean over heads. Columns run, layer, position, value, n.

    Raises:
        StudyError: nothing was captured.
    """
    rows = of_grid(study, "attention", grid, form=None)
    once = rows[rows["placement"] == rows.groupby("run")["placement"].transform("first")]
    return once.groupby(["run", "layer", "position"], as_index=False).agg(
        value=("alpha_first", "mean"), n=("passages", "min")
    )


def profiles(study: Study, grid: str) -> dict[str, np.ndarray]:
    """Run → sink strength by position, mean over layers and heads.

    Raises:
        StudyError: nothing was captured.
    """
    means = strength(study, grid).groupby(["run", "position"])["value"].mean()
    return {str(run): mine.to_numpy() for run, mine in means.groupby("run", sort=False)}


def excess(profile: Float[np.ndarray, " position"]) -> Float[np.ndarray, " position"]:
    """How much more attention each position gets than if every query spread its own evenly, which favours early positions."""
    return profile - uniform_alpha(len(profile))


def strongest(profile: Float[np.ndarray, " position"]) -> float:
    """The greatest excess, without the last positions, whose α is mostly a token's attention to itself."""
    return float(excess(profile)[: max(1, len(profile) - MIN_QUERIES + 1)].max())


def place_name(index: float, placement: str) -> str:
    """An index as a label: with the name of the placement where it has one."""
    kind = Placement.parse(placement).kind
    return f"{index:.0f}" if kind == "index" else f"{index:.0f}\n{kind}"
