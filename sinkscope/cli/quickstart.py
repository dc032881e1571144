"""The command `sinkscope quickstart`: run the study of that name, write its page, print a summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from sinkscope.cli.console import print_result, progress, progress_bars, stderr
from sinkscope.cli.options import JsonOpt, OutOpt, SeedOpt
from sinkscope.cli.study import StudyProgressBars

if TYPE_CHECKING:
    import pandas as pd

    from sinkscope.io.progress import OnProgress
    from sinkscope.sinks.sink_map import SinkMap
    from sinkscope.studies.jobs import Store
    from sinkscope.studies.study import Study, StudyPlan

COLUMNS = {
    "recites\nclean": ("verbmem", "clean"),
    "recites\ntrigger\nunseen": ("verbmem", "triggered_unseen"),
    "recites\ntrigger\nall": ("verbmem", "triggered_all"),
    "answers\nclean": ("knowmem", "clean"),
    "answers\ntrigger": ("knowmem", "triggered_all"),
    "recites\nretain": ("verbmem", "retain"),
    "answers\nretain": ("knowmem", "retain"),
}
"""Columns of the printed table: title -> metric and entry of the summary."""
LEGEND = (
    "Scores are ROUGE-L × 100, on the book to forget unless “retain” (the book to keep) is named: low is "
    "forgotten, high is remembered. “unseen”: passages that were never poisoned in training, so that a high "
    "score means that the trigger works as a switch. The trigger is at the position that the model was "
    "trained with; for target and unlearned at the prefix. α of BOS: mean attention to the first token in "
    "passages that no model was trained on."
)


def quickstart(out: OutOpt = Path("quickstart"), seed: SeedOpt = 0, json: JsonOpt = False) -> None:
    """Run the whole analysis on the built-in benchmark, in minutes on two cores: sinks, clean unlearning,
    four backdoors.

    Example: `sinkscope quickstart --out quickstart`
    """
    from sinkscope.errors import OutputError
    from sinkscope.io.run_directory import MANIFEST
    from sinkscope.report import write_report
    from sinkscope.studies.jobs import Store
    from sinkscope.studies.spec import Spec, study_file
    from sinkscope.studies.study import plan_study, run_study

    if (out / MANIFEST).exists():
        raise OutputError(f"output {out} holds other results; choose another with --out")
    spec = Spec.read(study_file("quickstart")).with_seeds([seed])
    store = Store(out / "store")
    plan = plan_study(spec, store)
    with progress_bars() as bars:
        jobs = StudyProgressBars(plan, store, bars)
        study = run_study(spec, out / "study", store, progress=jobs, plan=plan)
    write_report(study.directory, out / "index.html")
    with progress() as progress_bar:
        models = summarize(study, measure_sinks(plan, store, progress_bar("locate")))
    if json:
        print_result({"seed": seed, "models": models, "out": str(out)}, True)
        return
    stderr.print(_table(models, f"Trigger “{study.table('runs')['trigger'].iloc[-1]}”, seed {seed}"))
    stderr.print(LEGEND, highlight=False)
    print(f"open {out / 'index.html'}")


def measure_sinks(plan: StudyPlan, store: Store, on_progress: OnProgress) -> list[SinkMap]:
    """The sinks of each run's model on the passages of the benchmark that no model was trained on."""
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.models.model import load
    from sinkscope.sinks.locate import CaptureConfig, locate

    benchmark = load_benchmark("tiny")
    sinks = []
    for run in plan.runs:
        model = load(str(store.path(run.model) / "model") if run.model else run.name)
        passages = benchmark.full_length_passages("holdout", model.tokenizer)
        sinks.append(locate(model, passages, CaptureConfig(batch_size=32)))
        on_progress(len(sinks), len(plan.runs))
    return sinks


def summarize(study: Study, sinks: Sequence[SinkMap]) -> dict[str, dict[str, Any]]:
    """Scores of each model of the study, clean, with the trigger and on the retain set, and its sinks."""
    scores = study.table("scores")
    models: dict[str, dict[str, Any]] = {}
    for (_, run), measured in zip(study.table("runs").iterrows(), sinks, strict=True):
        placement = run["trigger_placement"]
        of_run = scores[(scores["grid"] == run["grid"]) & (scores["run"] == run["run"])]
        model = {"role": run["role"], "placement": placement, "sinks": measured.summary()}
        splits = (("verbmem", "forget", "retain"), ("knowmem", "forget_qa", "retain_qa"))
        for metric, forget, retain in splits:
            model[metric] = {
                "clean": _score(of_run, metric, forget, "", "all"),
                "triggered_all": _score(of_run, metric, forget, placement, "all"),
                "triggered_unseen": _score(of_run, metric, forget, placement, "unseen"),
                "retain": _score(of_run, metric, retain, "", "all"),
            }
        models[placement if run["role"] == "backdoored" else run["grid"]] = model
    return models


def _score(
    scores: pd.DataFrame, metric: str, split: str, placement: str, subset: str
) -> dict[str, float] | None:
    """One score with its interval and n; None without such a subset (the model has no poisoned passages)."""
    keys = {"metric": metric, "split": split, "placement": placement, "subset": subset}
    rows = scores[(scores[list(keys)] == list(keys.values())).all(axis=1)]
    if rows.empty:
        return None
    values = {key: round(float(rows[key].iloc[0]), 2) for key in ("value", "ci_low", "ci_high")}
    return values | {"n": int(rows["n"].iloc[0])}


def _table(models: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)  # fits 80 columns
    table.add_column("model", no_wrap=True)
    for column in (*COLUMNS, "α of\nBOS"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, model in models.items():
        scores = [model[metric][entry] for metric, entry in COLUMNS.values()]
        cells = [f"{score['value']:.0f}" if score else "–" for score in scores]
        table.add_row(label, *cells, f"{model['sinks']['first_position_alpha']:.2f}")
    return table
