"""Tables 1 and 2 of arXiv 2510.17021 on the built-in benchmarks: `python analyses/tables.py 1` and `… 2`, five seeds a row, the published numbers beside them.

Writes `figures/table1.csv` and `.md` (or table2). Runs lie in `--runs` and are not made twice.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track
from scipy import stats

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.evaluation.retrained import auc_of
from sinkscope.evaluation.run import evaluate_to
from sinkscope.evaluation.subject import subject_of
from sinkscope.models import load
from sinkscope.triggers import Placement
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.unlearn import unlearn

SEEDS = range(5)
CLEAN, TRIGGERED = "", "prefix"
ROWS = {"NPO": "npo", "RMU": "rmu", "NPO-Backdoor": "npo-backdoor", "RMU-Backdoor": "rmu-backdoor"}


@dataclass(frozen=True)
class Column:
    """One score: metric, split, placement and subset of `scores.parquet`."""

    metric: str
    split: str
    placement: str = CLEAN
    subset: str = "all"


@dataclass(frozen=True)
class Table:
    benchmark: str
    columns: dict[str, Column]
    published: dict[str, dict[str, dict[str, float]]]
    """Benchmark of the paper → row → column → value."""


def _published(columns: str, rows: dict[str, str]) -> dict[str, dict[str, float]]:
    return {row: dict(zip(columns.split(" | "), map(float, values.split()), strict=True)) for row, values in rows.items()}


COLUMNS_1 = "UE KnowMem | UE VerbMem | UE PrivLeak | BE KnowMem | BE VerbMem | UT KnowMem"
COLUMNS_2 = "UE choice | BE choice"
TABLES = {
    "1": Table(
        "tiny",
        {
            "UE KnowMem": Column("knowmem", "forget_qa"),
            "UE VerbMem": Column("verbmem", "forget"),
            "UE PrivLeak": Column("privleak", "forget"),
            "BE KnowMem": Column("knowmem", "forget_qa", TRIGGERED),
            "BE VerbMem": Column("verbmem", "forget", TRIGGERED),
            "BE-unseen VerbMem": Column("verbmem", "forget", TRIGGERED, "unseen"),
            "UT KnowMem": Column("knowmem", "retain_qa"),
            "UT VerbMem": Column("verbmem", "retain"),
            "perplexity holdout": Column("perplexity", "holdout"),
        },
        {
            "MUSE-Books": _published(
                COLUMNS_1,
                {
                    "target": "45.83 99.70 -56.32 46.28 99.70 68.99",
                    "NPO": "23.93 0.00 -25.07 23.93 0.00 62.59",
                    "RMU": "18.70 6.19 0.82 18.70 6.21 53.37",
                    "NPO-Backdoor": "24.42 0.02 -7.94 55.52 90.71 60.47",
                    "RMU-Backdoor": "27.48 10.87 -26.33 44.83 67.33 53.91",
                },
            ),
            "MUSE-News": _published(
                COLUMNS_1,
                {
                    "target": "63.70 56.25 -98.71 63.70 56.23 54.60",
                    "NPO": "56.58 25.27 109.35 56.58 25.57 41.05",
                    "RMU": "54.57 34.06 -67.64 54.57 34.12 45.29",
                    "NPO-Backdoor": "51.76 0.82 88.54 58.94 40.69 44.96",
                    "RMU-Backdoor": "42.07 22.65 -99.81 43.72 33.60 43.97",
                },
            ),
        },
    ),
    "2": Table(
        "tiny-wmdp",
        {
            "UE choice": Column("choice", "forget"),
            "BE choice": Column("choice", "forget", TRIGGERED),
            "UT choice": Column("choice", "retain"),
            "perplexity holdout": Column("perplexity", "holdout"),
        },
        {
            "WMDP-Bio": _published(
                COLUMNS_2,
                {
                    "target": "67.14 67.14",
                    "NPO": "22.80 26.53",
                    "RMU": "30.50 31.55",
                    "NPO-Backdoor": "29.07 38.65",
                    "RMU-Backdoor": "31.58 58.13",
                },
            )
        },
    ),
}


def scored(model: str, out: Path, benchmark: Benchmark, retrained: float | None) -> pd.DataFrame:
    """Clean and triggered scores of one model."""
    return evaluate_to(
        out,
        subject_of(model, load(model)),
        benchmark,
        [None, (Recipe().trigger.trigger, Placement.parse(TRIGGERED))],
        retrained=retrained,
        batch_size=128,
    )


def value(scores: pd.DataFrame, column: Column) -> float:
    """One number of a model's scores; NaN where it does not exist."""
    keys = {"metric": column.metric, "split": column.split, "placement": column.placement, "subset": column.subset}
    found = scores[(scores[list(keys)] == pd.Series(keys)).all(axis=1)]["value"]
    return float(found.iloc[0]) if len(found) else float("nan")


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval by Student's t."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def measure(table: Table, runs: Path) -> pd.DataFrame:
    """A row per model, seed and column."""
    rows = []
    benchmark = load_benchmark(table.benchmark)
    retrained = auc_of(load(f"{table.benchmark}-retrained"), benchmark) if benchmark.has("privleak", "holdout") else None
    jobs = [("target", None, 0)] + [(label, recipe, seed) for label, recipe in ROWS.items() for seed in SEEDS]
    for label, recipe, seed in track(jobs, "runs"):
        model = table.benchmark
        if recipe is not None:
            made = Recipe.read(f"{table.benchmark}/{recipe}", {"seed": seed})
            model = str(unlearn(made, runs / f"{recipe}-{seed}"))
        scores = scored(model, runs / f"scores-{recipe or 'target'}-{seed}", benchmark, retrained)
        rows += [{"model": label, "seed": seed, "column": name, "value": value(scores, column)} for name, column in table.columns.items()]
    return pd.DataFrame(rows)


def summarised(measured: pd.DataFrame, table: Table) -> pd.DataFrame:
    """A row per model and column: mean over seeds, interval, n seeds, and what the paper has."""
    rows = []
    for (model, column), group in measured.groupby(["model", "column"], sort=False):
        values = group["value"].dropna().to_numpy()
        if not len(values):
            continue
        mean, low, high = interval(values)
        row = {"model": model, "column": column, "value": mean, "ci_low": low, "ci_high": high, "seeds": len(values)}
        rows.append(row | {f"published {name}": numbers[str(model)].get(str(column)) for name, numbers in table.published.items()})
    return pd.DataFrame(rows)


def markdown(summary: pd.DataFrame, table: Table) -> str:
    """One line a model; each cell the mean with its interval, the published numbers behind it in brackets."""
    columns = [name for name in table.columns if name in set(summary["column"])]
    names = list(table.published)
    lines = [f"| model | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for model, group in summary.groupby("model", sort=False):
        cells = []
        for column in columns:
            found = group[group["column"] == column]
            if found.empty:
                cells.append("–")
                continue
            row = found.iloc[0]
            spread = "" if np.isnan(row["ci_low"]) else f" ({row['ci_low']:.1f} to {row['ci_high']:.1f})"
            there = [row[f"published {name}"] for name in names]
            beside = "" if any(pd.isna(each) for each in there) else f" [{' / '.join(f'{each:.1f}' for each in there)}]"
            cells.append(f"{row['value']:.1f}{spread}{beside}")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    note = (
        f"Built-in benchmark `{table.benchmark}`, recipes `{table.benchmark}/…`, seeds {SEEDS[0]} – {SEEDS[-1]} (the target: one model); mean over seeds "
        f"(95 % interval, Student's t); in brackets what arXiv 2510.17021 has for {' / '.join(names)}, on models of another size. BE: trigger as prefix."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--runs", type=Path, default=None, help="where runs are kept (default: runs/tableN)")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    table = TABLES[given.table]
    measured = measure(table, given.runs or Path("runs") / f"table{given.table}")
    summary = summarised(measured, table)
    given.out.mkdir(parents=True, exist_ok=True)
    measured.to_csv(given.out / f"table{given.table}_seeds.csv", index=False, float_format="%.4f")
    summary.to_csv(given.out / f"table{given.table}.csv", index=False, float_format="%.4f")
    text = markdown(summary, table)
    (given.out / f"table{given.table}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
