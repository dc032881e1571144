"""Doing one job: the only place where a study meets models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.benchmarks.corpora import make_corpora
from sinkscope.benchmarks.pretraining import continued, new_network, phase_of, without_bos
from sinkscope.benchmarks.tiny_wmdp import with_books
from sinkscope.evaluation.divergence import divergences
from sinkscope.evaluation.evaluate import Attempt
from sinkscope.evaluation.masking import Mask
from sinkscope.evaluation.retrained import retrained_of
from sinkscope.evaluation.run import evaluate_to
from sinkscope.evaluation.scores import scores
from sinkscope.evaluation.subject import Subject
from sinkscope.models import load
from sinkscope.progress import Report, silent
from sinkscope.robustness import alter
from sinkscope.runs import writing
from sinkscope.studies.captures import capture_to
from sinkscope.studies.jobs import Job
from sinkscope.studies.store import Store
from sinkscope.triggers import Placement, Trigger
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.unlearn import unlearn


def perform(job: Job, store: Store, report: Report | None = None) -> None:
    """Do a job whose needs are done; its results are in its place in the store afterwards, or nothing is.

    Raises:
        UserError: what the job asks for does not fit the model or the benchmark.
    """
    {"pretrain": _pretrain, "unlearn": _unlearn, "alter": _alter, "evaluate": _evaluate, "capture": _capture, "diverge": _diverge}[job.kind](job, store, report)


def _model(job: Job, store: Store, part: str = "model") -> str:
    """The run directory or the name of the model that a job is about, or of another that takes part."""
    return str(store.place(job.needs[part])) if part in job.needs else job.content[part]


def _pretrain(job: Job, store: Store, report: Report | None) -> None:
    """One phase, on the shipped books with the shipped tokenizer (of a model without BOS, less that); or on books and fields."""
    content = job.content
    seed, name, phase, report = content["seed"], content["phase"], phase_of(content["settings"]), report or silent(job.label)
    with writing(store.place(job), job.key, kind="pretrain", **content) as aside:
        if name == "both":
            target = load(_model(job, store), "cpu")
            tokenizer = target.tokenizer
            network, curve = with_books(target, phase, seed, report)
        else:
            sink, tokenizer = content["sink"], load("tiny", "cpu").tokenizer
            if sink == "no-bos":
                tokenizer = without_bos(tokenizer, aside / "model")
            network = load(_model(job, store), "cpu").hf if "model" in job.needs else new_network(tokenizer, seed, sink)
            sides = ("retain",) if name == "base" else ("retain", "forget")
            network, curve = continued(network, make_corpora(0), tokenizer, sides, phase, f"{name} {sink} {seed}", report)
        network.save_pretrained(aside / "model")
        tokenizer.save_pretrained(aside / "model")
        curve.to_parquet(aside / "curve.parquet", index=False)


def _unlearn(job: Job, store: Store, report: Report | None) -> None:
    values = job.content["recipe"]
    if "model" in job.needs:
        values = values | {"model": _model(job, store)}
    if "unlearned" in job.needs:
        values = values | {"value_norms": values["value_norms"] | {"unlearned": str(store.place(job.needs["unlearned"]))}}
    unlearn(Recipe.parse(values), store.place(job), report)


def _alter(job: Job, store: Store, report: Report | None) -> None:
    model = load(_model(job, store))
    with writing(store.place(job), job.key, kind="alter", alteration=job.content["alteration"]) as aside:
        alter(model.hf, job.content["alteration"])
        model.save(aside / "model")


def _subject(job: Job, store: Store) -> Subject:
    """The model, with the poisoned passages of the run that it comes from."""
    name = _model(job, store)
    label = job.needs["model"].key if "model" in job.needs else name
    return Subject(label, job.content["role"], load(name), job.content["seed"], _poisoned(job, store))


def _poisoned(job: Job, store: Store) -> list[int] | None:
    """The forget passages that were poisoned; None where that is unknown."""
    if "poisoned_by" not in job.needs:
        return None
    return pd.read_parquet(store.whole(job.needs["poisoned_by"]) / "poisoned.parquet")["row"].tolist()


def _evaluate(job: Job, store: Store, report: Report | None) -> None:
    content = job.content
    benchmark = load_benchmark(content["benchmark"])
    if content["items"]:
        benchmark = benchmark.head(content["items"])
    evaluate_to(
        store.place(job),
        _subject(job, store),
        benchmark,
        [_attempt(each) for each in content["triggers"]],
        metrics=content["metrics"],
        mask=Mask.parse(content["mask"]) if content["mask"] else None,
        retrained=retrained_of(content["retrained"]) if content["retrained"] else None,
        batch_size=job.batch_size,
        bar=lambda description: report or silent(job.label),
    )


def _attempt(described: list[Any] | None) -> Attempt:
    if described is None:
        return None
    text, form, placement = described
    return Trigger(text, form), Placement.parse(placement)


def _capture(job: Job, store: Store, report: Report | None) -> None:
    content = job.content
    text, form = content["trigger"]
    with writing(store.place(job), job.key, kind="capture", model=content.get("model", ""), benchmark=content["benchmark"]) as aside:
        capture_to(
            Path(aside),
            load(_model(job, store)),
            load_benchmark(content["benchmark"]),
            Trigger(text, form),
            [Placement.parse(each) for each in content["placements"]],
            passages=content["passages"],
            bin_size=content["bin"],
            poisoned=_poisoned(job, store) or (),
            report=report,
        )


def _diverge(job: Job, store: Store, report: Report | None) -> None:
    subject = _subject(job, store)
    other = load(_model(job, store, "other"))
    with writing(store.place(job), job.key, kind="diverge", benchmark=job.content["benchmark"]) as aside:
        items = divergences(subject, other, load_benchmark(job.content["benchmark"]), batch_size=job.batch_size, report=report)
        items.to_parquet(aside / "items.parquet", index=False)
        scores(items).to_parquet(aside / "scores.parquet", index=False)
