"""Run one job: the only module of studies that loads models."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.divergence import measure_divergence
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate_to_directory, load_retain_model
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.requests import PositionMask
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.progress import OnProgress, quiet_loggers, silent
from sinkscope.io.run_directory import create_run
from sinkscope.models.model import load
from sinkscope.studies.captures import capture_benchmark
from sinkscope.studies.jobs import Job, Kind, Store
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.passages import PassageStream
from sinkscope.synthetic.pretraining import TrainingStage, init_model, stream_seed, train, without_bos
from sinkscope.synthetic.tiny_wmdp import train_on_books
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.perturbations import perturb
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn


def run_job(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
    """Run a job whose needs are done; afterwards its results are in the store, complete.

    Raises:
        UserError: the job does not fit the model or the benchmark.
    """
    on_progress = on_progress or silent(job.label)
    if job.kind == "unlearn":
        _unlearn(job, store, on_progress)
    elif job.kind == "evaluate":
        _evaluate(job, store, on_progress)
    else:
        with create_run(store.path(job), job.key, job.kind, job.content) as staging:
            WRITERS[job.kind](job, store, staging, on_progress)


def _unlearn(job: Job, store: Store, on_progress: OnProgress) -> None:
    values = dict(job.content["recipe"])
    if "model" in job.needs:
        values["model"] = _model_name(job, store)
    if "unlearned" in job.needs:
        unlearned = str(store.path(job.needs["unlearned"]))
        values["value_norms"] = values["value_norms"] | {"unlearned": unlearned}
    with quiet_loggers("sinkscope", level=logging.WARNING):  # a study has a line per job
        unlearn(Recipe.parse(values), store.path(job), on_progress)


def _evaluate(job: Job, store: Store, on_progress: OnProgress) -> None:
    content = job.content
    config = EvaluationConfig(
        metrics=content["metrics"],
        mask=PositionMask.parse(content["mask"]) if content["mask"] else None,
        limit=content["limit"],
        batch_size=job.batch_size,
        retain_model=load_retain_model(content["retain_model"]) if content["retain_model"] else None,
    )
    conditions = [
        (Trigger(*values[:2]), Placement.parse(values[2])) if values else None
        for values in content["conditions"]
    ]
    benchmark = load_benchmark(content["benchmark"])
    model = _evaluated_model(job, store)
    evaluate_to_directory(store.path(job), model, benchmark, conditions, config, lambda text: on_progress)


def _pretrain(job: Job, store: Store, staging: Path, on_progress: OnProgress) -> None:
    """One stage of pretraining, on the built-in books with their tokenizer; or on the books and domains."""
    content = job.content
    stage = TrainingStage(**content["settings"])
    if content["stage"] == "both":
        target = load(_model_name(job, store), "cpu")
        tokenizer = target.tokenizer
        model, curve = train_on_books(target, stage, content["seed"], on_progress)
    else:
        tokenizer = load("tiny", "cpu").tokenizer
        if content["sink"] == "no-bos":
            tokenizer = without_bos(tokenizer, staging / "model")
        if "model" in job.needs:
            model = load(_model_name(job, store), "cpu").hf
        else:
            model = init_model(tokenizer, content["seed"], content["sink"])
        sides = ("retain",) if content["stage"] == "pretrain" else ("retain", "forget")
        seed = stream_seed(content["stage"], content["sink"], content["seed"])
        stream = PassageStream(make_corpora(0), tokenizer, sides, stage.mix, seed)
        model, curve = train(model, [stream], stage, on_progress)
    model.save_pretrained(staging / "model")
    tokenizer.save_pretrained(staging / "model")
    curve.to_parquet(staging / "curve.parquet", index=False)


def _perturb(job: Job, store: Store, staging: Path, on_progress: OnProgress) -> None:
    model = load(_model_name(job, store))
    perturb(model.hf, job.content["perturbation"])
    model.save(staging / "model")


def _capture(job: Job, store: Store, staging: Path, on_progress: OnProgress) -> None:
    content = job.content
    capture_benchmark(
        staging,
        load(_model_name(job, store)),
        load_benchmark(content["benchmark"]),
        Trigger(*content["trigger"]),
        [Placement.parse(placement) for placement in content["placements"]],
        n_passages=content["passages"],
        bin_size=content["bin_size"],
        poisoned=_poisoned_rows(job, store) or (),
        on_progress=on_progress,
    )


def _diverge(job: Job, store: Store, staging: Path, on_progress: OnProgress) -> None:
    model = _evaluated_model(job, store)
    other = load(_model_name(job, store, "other"))
    benchmark = load_benchmark(job.content["benchmark"])
    items = measure_divergence(model, other, benchmark, batch_size=job.batch_size, on_progress=on_progress)
    items.to_parquet(staging / "items.parquet", index=False)
    compute_scores(items).to_parquet(staging / "scores.parquet", index=False)


WRITERS: dict[Kind, Callable[[Job, Store, Path, OnProgress], None]] = {
    "pretrain": _pretrain,
    "perturb": _perturb,
    "capture": _capture,
    "diverge": _diverge,
}
"""Kinds whose files are written to a given staging directory."""


def _model_name(job: Job, store: Store, part: str = "model") -> str:
    """The run directory or the name of the model of a job, or of another model that takes part."""
    return str(store.path(job.needs[part])) if part in job.needs else job.content[part]


def _evaluated_model(job: Job, store: Store) -> EvaluatedModel:
    """The model of a job, with the poisoned passages of the run that it comes from."""
    name = _model_name(job, store)
    label = job.needs["model"].key if "model" in job.needs else name
    content = job.content
    return EvaluatedModel(label, content["role"], load(name), content["seed"], _poisoned_rows(job, store))


def _poisoned_rows(job: Job, store: Store) -> list[int] | None:
    """Rows of the poisoned forget passages; None if unknown."""
    if "poisoned_by" not in job.needs:
        return None
    path = store.verified_path(job.needs["poisoned_by"]) / "poisoned.parquet"
    return pd.read_parquet(path)["row"].tolist()
