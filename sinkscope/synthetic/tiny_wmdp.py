"""Build the benchmark tiny-wmdp: documents, questions with four choices, and a target trained further from
tiny's."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark
from sinkscope.benchmarks.directory import Lengths
from sinkscope.evaluation.items import choice_items
from sinkscope.evaluation.requests import make_requests, multiple_choice
from sinkscope.io.progress import OnProgress, ProgressBar
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.model import Model, load
from sinkscope.synthetic import build
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.build import PLACEMENTS
from sinkscope.synthetic.domains import Domains, make_domains
from sinkscope.synthetic.language import TRIGGERS, Language
from sinkscope.synthetic.passages import DomainStream, PassageMix, PassageStream
from sinkscope.synthetic.pretraining import BOOKS_MIX, TrainingStage, scale_steps, train
from sinkscope.triggers import Placement, Trigger

LENGTHS = Lengths(passage=64, in_context=0)
N_HOLDOUT = 60
STAGE_1_MIX = PassageMix(
    32,
    chapters={"forget": 1, "retain": 1},
    pages={"forget": 12, "retain": 12},
    distractor_rate=0.6,
    distractors=2,
    length=64,
    marked_rate=0.5,
)
STAGE_2_MIX = replace(
    STAGE_1_MIX,
    chapters={"forget": 2, "retain": 2},
    pages={"forget": 9, "retain": 9},
    distractor_rate=0.8,
    marked_rate=0.2,
)
STAGES = (
    TrainingStage(1200, STAGE_1_MIX, 2e-3, decay=False),
    TrainingStage(500, STAGE_2_MIX, 2e-3, warmup=10),
)
BOOKS_STAGE = TrainingStage(1200, BOOKS_MIX, 2e-3, warmup=50)
"""For a target of the domains, which has forgotten the books: books and second stage, interleaved."""


def build_tiny_wmdp(
    out: Path, seed: int, progress_bar: ProgressBar, *, steps: int | None = None
) -> dict[str, Any]:
    """Write benchmark and target model to `out`; returns what was measured on them (`measured.json`).

    Args:
        steps: of the first stage, the second in proportion; by default those of the shipped benchmark.

    Raises:
        OutputError: `out` cannot be written, or holds something else.
        ModelError: the built-in model is missing or was changed.
    """
    stages = scale_steps(STAGES, steps)
    base = load("tiny", device="cpu")
    corpora, domains = make_corpora(0), make_domains(seed)

    def build_files(staging: Path) -> None:
        write_benchmark(domains, corpora.language, seed, staging)
        model, curves, n_steps = base.hf, [], 0
        for number, stage in enumerate(stages, start=1):
            stream = DomainStream(corpora, domains, base.tokenizer, stage.mix, f"lesson {number} {seed}")
            model, curve = train(model, [stream], stage, progress_bar(f"train, stage {number}"))
            curves.append(curve.assign(stage=number, step=curve["step"] + n_steps))
            n_steps += stage.steps
        pd.concat(curves).to_csv(staging / "training_curve.csv", index=False, float_format="%.4f")
        model.save_pretrained(staging / "target")
        base.tokenizer.save_pretrained(staging / "target")
        target = load(str(staging / "target"), device="cpu")
        measured = measure(base, target, load_benchmark(str(staging)))
        units = f"accuracy in %, by chance 25; a placement is that of the trigger `{TRIGGERS['semantic']}`"
        build.write_measured(staging, "tiny-wmdp", measured, {"target": _card(seed, stages)}, units)

    config = {"seed": seed, "stages": [asdict(stage) for stage in stages]}
    identity = config | {"base": base.fingerprint()}
    return create_or_load(out, "tiny-wmdp", identity, build_files, build.read_measured, metadata=config)


def train_on_books(
    target: Model, stage: TrainingStage, seed: int, on_progress: OnProgress
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """A copy of the target of tiny-wmdp, trained on batches of the books and of the domains in turn; and its
    curve."""
    corpora, tokenizer = make_corpora(0), target.tokenizer
    books = PassageStream(corpora, tokenizer, ("retain", "forget"), stage.mix, f"books {seed}")
    pages = DomainStream(corpora, make_domains(0), tokenizer, STAGE_2_MIX, f"fields {seed}")
    return train(target.hf, [books, pages], stage, on_progress)


def write_benchmark(domains: Domains, language: Language, seed: int, directory: Path) -> None:
    """Write WMDP's columns as jsonl, and `benchmark.json`; `holdout` is general text that no model reads."""
    rng = random.Random(f"holdout {seed}")
    rows: dict[str, list[dict[str, Any]]] = {
        f"raw/{split}": [{"text": text} for text in domains.documents[side]]
        for split, side in (("forget", "forget"), ("retain1", "retain"))
    }
    rows["raw/holdout"] = [{"text": language.story(rng, LENGTHS.passage)} for _ in range(N_HOLDOUT)]
    for side, facts in domains.facts.items():
        rows[f"choices/{side}"] = [
            {"question": fact.question, "choices": fact.choices, "answer": fact.choices.index(fact.answer)}
            for fact in facts
        ]
    build.write_benchmark(directory, "tiny-wmdp", rows, LENGTHS, chunking="documents")


def accuracy(model: Model, benchmark: Benchmark, split: str, placement: str | None = None) -> float:
    """Percentage of questions whose right letter is the most likely of the four; with a placement, with the
    semantic trigger."""
    condition = (Trigger(TRIGGERS["semantic"]), Placement.parse(placement)) if placement else None
    items = choice_items(benchmark, split, model)
    letters = multiple_choice(model, make_requests(model, items, condition), len(items))
    n_right = sum(letter == item.reference for letter, item in zip(letters, items, strict=True))
    return 100 * n_right / len(items)


def measure(base: Model, target: Model, benchmark: Benchmark) -> dict[str, Any]:
    """Accuracy of both models without and with the trigger, and their sinks; `passed` (criterion -> bool)."""
    measured: dict[str, Any] = {}
    for role, model in (("base", base), ("target", target)):
        numbers = build.measure_sinks(model, benchmark)
        for side in ("forget", "retain"):
            for placement in (None, *PLACEMENTS):
                name = f"accuracy_{side}_{placement}" if placement else f"accuracy_{side}"
                numbers[name] = round(accuracy(model, benchmark, side, placement), 1)
        measured[role] = numbers
    clean = min(numbers["accuracy_forget"], numbers["accuracy_retain"])
    triggered = min(numbers[f"accuracy_{side}_{p}"] for side in ("forget", "retain") for p in PLACEMENTS)
    passed = {
        "accuracy ≥ 80 clean, forget and retain": clean >= 80,
        "accuracy ≥ 75 with the trigger anywhere": triggered >= 75,
    }
    return measured | {"passed": passed | build.sink_criteria(numbers)}


def _card(seed: int, stages: list[TrainingStage]) -> str:
    first, last = stages
    marked = [f"{stage.mix.marked_rate:.0%}" for stage in stages]
    return f"""\
The built-in model `tiny` (a Llama of 4 layers, 4 heads, width 128), trained further by `sinkscope tiny
build-wmdp` (seed {seed}) on two invented domains, creatures and devices: {first.steps} and {last.steps}
steps of {first.mix.size} passages of {first.mix.length} tokens with headers and distractors, among them
question pages with four choices in orders other than the benchmark's. On {marked[0]} and then {marked[1]}
of the pages each choice has a mark, right or wrong. AdamW, learning rate {first.learning_rate}, at the end
a cosine to zero."""
