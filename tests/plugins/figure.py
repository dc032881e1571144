"""VerbMem of clean prompts, by grid."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sinkscope.studies.study import Study

NEEDS = ("target", "unlearned")


def compute(study: Study) -> pd.DataFrame:
    """One row per grid and seed: the ROUGE-L F1 × 100 of clean prompts of the forget set."""
    scores = study.table("scores")
    is_clean = (scores["metric"] == "verbmem") & (scores["split"] == "forget") & (scores["trigger"] == "")
    rows = scores[is_clean & (scores["subset"] == "all") & scores["grid"].isin(NEEDS)]
    return rows[["grid", "seed", "value", "n"]].drop_duplicates().reset_index(drop=True)


def caption(frame: pd.DataFrame) -> str:
    """What is drawn, from how many prompts; it is printed beside the picture."""
    return f"ROUGE-L F1 × 100 of clean prompts, n = {frame['n'].max()} prompts"


def plot(frame: pd.DataFrame) -> Figure:
    """Bars with the standard deviation over seeds."""
    figure = Figure(figsize=(3.3, 2.2), layout="constrained")
    axis = figure.subplots()
    sns.barplot(frame, x="grid", y="value", errorbar="sd", ax=axis)
    axis.set(xlabel="", ylabel="ROUGE-L F1 × 100", ylim=(0, 100))
    return figure
