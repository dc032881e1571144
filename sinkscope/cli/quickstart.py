"""The command `sinkscope quickstart`: run the study of that name, write its page, print a summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from sinkscope.cli.console import print_result, stderr
from sinkscope.cli.options import JsonOpt

if TYPE_CHECKING:
    import pandas as pd

    from sinkscope.studies.study import Study

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
    "passages of the book to forget."
)


def quickstart(
    out: Annotated[
        Path, typer.Option(help="directory for the study, its store of runs, and index.html")
    ] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="seed of poisoning and training")] = 0,
    json: JsonOpt = False,
) -> None:
    """Run the whole analysis on the built-in benchmark, in minutes on two cores: sinks, clean unlearning,
    four backdoors.

    Example: `sinkscope quickstart --out quickstart`
    """
    from sinkscope.cli.study import live_progress
    from sinkscope.errors import OutputError
    from sinkscope.io.run_directory import MANIFEST
    from sinkscope.report import write_report
    from sinkscope.studies.spec import Spec, study_file
    from sinkscope.studies.store import Store
    from sinkscope.studies.study import plan_study, run_study

    if (out / MANIFEST).exists():
        raise OutputError(f"output {out} holds other results; choose another with --out")
    spec = Spec.read(study_file("quickstart")).with_seeds([seed])
    store = Store(out / "store")
    plan = plan_study(spec, store)
    with live_progress(plan, store) as progress:
        study = run_study(spec, out / "study", store, progress=progress, plan=plan)
    write_report(study.directory, out / "index.html")
    models = summarize(study)
    if json:
        print_result({"seed": seed, "models": models, "out": str(out)}, True)
        return
    stderr.print(_table(models, f"Trigger “{study.table('runs')['trigger'].iloc[-1]}”, seed {seed}"))
    stderr.print(LEGEND, highlight=False)
    print(f"open {out / 'index.html'}")


def summarize(study: Study) -> dict[str, dict[str, Any]]:
    """Scores of each model of the study, clean, with the trigger and on the retain set, and its
    attention to BOS."""
    scores, attention = study.table("scores"), study.table("attention")
    first = attention[attention["position"] == 0]
    models: dict[str, dict[str, Any]] = {}
    for _, run in study.table("runs").iterrows():
        placement = run["trigger_placement"]
        of_run = scores[(scores["grid"] == run["grid"]) & (scores["run"] == run["run"])]
        alpha = first[(first["run"] == run["run"]) & (first["placement"] == placement)]["alpha_first"]
        model = {"role": run["role"], "placement": placement, "alpha_of_bos": round(float(alpha.mean()), 4)}
        for metric, forget, retain in (
            ("verbmem", "forget", "retain"),
            ("knowmem", "forget_qa", "retain_qa"),
        ):
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
        table.add_row(label, *cells, f"{model['alpha_of_bos']:.2f}")
    return table
