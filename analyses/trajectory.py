"""How a backdoor forms while a model forgets: scores and attention of four runs, every 20 steps.

    python analyses/trajectory.py

On the built-in benchmark, NPO: clean, and with a backdoor as prefix, infix and suffix; one run each. Writes
trajectory.{csv,png,pdf} into figures/.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots.style import save_figure
from sinkscope.plots.trajectory import draw_trajectory
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn

ROOT = Path(__file__).parents[1]
EVERY, LIMIT, SEED = 20, 64, 0
RUNS = {
    "clean": ("tiny/npo", "prefix"),
    "backdoor, prefix": ("tiny/npo-backdoor", "prefix"),
    "backdoor, infix": ("tiny/npo-backdoor", "infix"),
    "backdoor, suffix": ("tiny/npo-backdoor", "suffix"),
}
"""Title of a run -> its recipe, and where the trigger is, in training and when it is tried."""


def measure() -> pd.DataFrame:
    """The trajectories, with a column `run`."""
    tables = []
    with tempfile.TemporaryDirectory() as directory:
        for number, (title, (recipe, placement)) in enumerate(RUNS.items()):
            changes = {
                "trajectory.every": EVERY,
                "trajectory.limit": LIMIT,
                "trigger.placement": placement,
                "seed": SEED,
            }
            run = unlearn(Recipe.read(recipe, changes), Path(directory) / str(number))
            tables.append(pd.read_parquet(run / "trajectory.parquet").assign(run=title))
    return pd.concat(tables, ignore_index=True)


def _describe(table: pd.DataFrame) -> str:
    counts = table.groupby("metric")["n"].max()
    return (
        f"Built-in benchmark, NPO, one run each (seed {SEED}); VerbMem of n ≤ {counts['verbmem']} items, "
        f"attention over {counts['first_position_alpha']} forget passages"
    )


def caption(table: pd.DataFrame) -> str:
    return (
        "VerbMem of forget passages that were not poisoned, clean and with the trigger, and of retain "
        "passages; below, α of the first position and the attention to the trigger's span, mean over heads. "
        f"Bands are 95 % intervals over items, or over passages. {_describe(table)}"
    )


def draw(table: pd.DataFrame) -> Figure:
    runs = {title: table[table["run"] == title].fillna({"trigger": ""}) for title in RUNS}
    return draw_trajectory(runs, "VerbMem (ROUGE-L × 100)", _describe(table))


if __name__ == "__main__":
    data = measure()
    save_figure(draw(data), data, ROOT / "figures", "trajectory")
