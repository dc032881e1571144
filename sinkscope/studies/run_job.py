"""Doing one job: the only place where a study meets models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.divergence import measure_divergence
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate_to_directory, load_retain_model
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.evaluation.items import TriggerCondition
from sinkscope.evaluation.position_mask import PositionMask
from sinkscope.evaluation.statistics import compute_scores
from sinkscope.io.progress import OnProgress, silent
from sinkscope.io.run_directory import create_run
from sinkscope.models.model import load
from sinkscope.studies.captures import capture_benchmark
from sinkscope.studies.jobs import Job
from sinkscope.studies.store import Store
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.pretraining import init_model, phase_of, pretrain_stage, without_bos
from sinkscope.synthetic.tiny_wmdp import with_books
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.perturbations import perturb
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn


def run_job(job: Job, store: Store, on_progress: OnProgress | None = None) -> None:
    """Do a job whose needs are done; its results are in its place in the store afterwards, or nothing is.

    Raises:
        UserError: what the job asks for does not fit the model or the benchmark.
    """
    {
        "pretrain": _pretrain,
        "unlearn": _unlearn,
        "alter": _alter,
        "evaluate": _evaluate,
        "capture": _capture,
        "diverge": _diverge,
    }[job.kind](job, store, on_progress)


def _model(job: Job, store: Store, part: str = "model") -> str:
    """The run directory or the name of the model that a job is about, or of another that takes part."""
    return str(store.place(job.needs[part])) if part in job.needs else job.content[part]


def _pretrain(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    """One phase, on the shipped books with the shipped tokenizer (of a model without BOS, less that); or on books and fields."""
    content = job.content
    seed, name, phase, on_progress = (
        content["seed"],
        content["phase"],
        phase_of(content["settings"]),
        on_progress or silent(job.label),
    )
    with create_run(store.place(job), job.key, kind="pretrain", **content) as aside:
        if name == "both":
            target = load(_model(job, store), "cpu")
            tokenizer = target.tokenizer
            network, curve = with_books(target, phase, seed, on_progress)
        else:
            sink, tokenizer = content["sink"], load("tiny", "cpu").tokenizer
            if sink == "no-bos":
                tokenizer = without_bos(tokenizer, aside / "model")
            network = (
                load(_model(job, store), "cpu").hf
                if "model" in job.needs
                else init_model(tokenizer, seed, sink)
            )
            sides = ("retain",) if name == "base" else ("retain", "forget")
            network, curve = pretrain_stage(
                network, make_corpora(0), tokenizer, sides, phase, f"{name} {sink} {seed}", on_progress
            )
        network.save_pretrained(aside / "model")
        tokenizer.save_pretrained(aside / "model")
        curve.to_parquet(aside / "curve.parquet", index=False)


def _unlearn(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    values = job.content["recipe"]
    if "model" in job.needs:
        values = values | {"model": _model(job, store)}
    if "unlearned" in job.needs:
        values = values | {
            "value_norms": values["value_norms"] | {"unlearned": str(store.place(job.needs["unlearned"]))}
        }
    unlearn(Recipe.parse(values), store.place(job), on_progress)


def _alter(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    model = load(_model(job, store))
    with create_run(store.place(job), job.key, kind="alter", alteration=job.content["alteration"]) as aside:
        perturb(model.hf, job.content["alteration"])
        model.save(aside / "model")


def _subject(job: Job, store: Store) -> EvaluatedModel:
    """The model, with the poisoned passages of the run that it comes from."""
    name = _model(job, store)
    label = job.needs["model"].key if "model" in job.needs else name
    return EvaluatedModel(label, job.content["role"], load(name), job.content["seed"], _poisoned(job, store))


def _poisoned(job: Job, store: Store) -> list[int] | None:
    """The forget passages that were poisoned; None where that is unknown."""
    if "poisoned_by" not in job.needs:
        return None
    return pd.read_parquet(store.whole(job.needs["poisoned_by"]) / "poisoned.parquet")["row"].tolist()


def _evaluate(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    content = job.content
    config = EvaluationConfig(
        metrics=content["metrics"],
        mask=PositionMask.parse(content["mask"]) if content["mask"] else None,
        limit=content["items"],
        batch_size=job.batch_size,
        retain_model=load_retain_model(content["retain_model"]) if content["retain_model"] else None,
    )
    evaluate_to_directory(
        store.place(job),
        _subject(job, store),
        load_benchmark(content["benchmark"]),
        [_attempt(each) for each in content["triggers"]],
        config,
        lambda description: on_progress or silent(job.label),
    )


def _attempt(described: list[Any] | None) -> TriggerCondition:
    if described is None:
        return None
    text, form, placement = described
    return Trigger(text, form), Placement.parse(placement)


def _capture(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    content = job.content
    text, form = content["trigger"]
    with create_run(
        store.place(job),
        job.key,
        kind="capture",
        model=content.get("model", ""),
        benchmark=content["benchmark"],
    ) as aside:
        capture_benchmark(
            Path(aside),
            load(_model(job, store)),
            load_benchmark(content["benchmark"]),
            Trigger(text, form),
            [Placement.parse(each) for each in content["placements"]],
            n_passages=content["passages"],
            bin_size=content["bin"],
            poisoned=_poisoned(job, store) or (),
            on_progress=on_progress,
        )


def _diverge(job: Job, store: Store, on_progress: OnProgress | None) -> None:
    subject = _subject(job, store)
    other = load(_model(job, store, "other"))
    with create_run(store.place(job), job.key, kind="diverge", benchmark=job.content["benchmark"]) as aside:
        items = measure_divergence(
            subject,
            other,
            load_benchmark(job.content["benchmark"]),
            batch_size=job.batch_size,
            on_progress=on_progress,
        )
        items.to_parquet(aside / "items.parquet", index=False)
        compute_scores(items).to_parquet(aside / "scores.parquet", index=False)
