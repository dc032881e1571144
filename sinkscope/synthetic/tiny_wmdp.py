"""Make the tiny twin of WMDP: documents, questions with four choices, and a target model that goes on from the built-in one."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, load_benchmark
from sinkscope.errors import ModelError
from sinkscope.evaluation.items import choice_items
from sinkscope.evaluation.requests import make_requests, multiple_choice
from sinkscope.io.progress import OnProgress, ProgressBar
from sinkscope.io.run_directory import checksums, config_hash, create_run, is_complete, read_manifest
from sinkscope.models.built_in import data_directory
from sinkscope.models.model import Model, load
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.domain_passages import FieldStream
from sinkscope.synthetic.domains import Fields, make_fields
from sinkscope.synthetic.language import TRIGGERS, Language
from sinkscope.synthetic.passages import InTurn, Mix, PassageStream
from sinkscope.synthetic.pretraining import BOOKS, Phase, probe, train
from sinkscope.triggers import Placement, Trigger

LENGTHS = Lengths(passage=64, in_context=0)
HOLDOUT = 60
PLACEMENTS = ("prefix", "infix", "suffix")


@dataclass(frozen=True)
class Lesson:
    """A phase of training and its share of marked pages."""

    phase: Phase
    marked: float


LEARNING = Mix(
    32,
    chapters={"forget": 1, "retain": 1},
    pages={"forget": 12, "retain": 12},
    aside_share=0.6,
    asides=2,
    length=64,
)
SETTLING = replace(
    LEARNING, chapters={"forget": 2, "retain": 2}, pages={"forget": 9, "retain": 9}, aside_share=0.8
)
LESSONS = (
    Lesson(Phase(1200, LEARNING, 2e-3, decay=False), 0.5),
    Lesson(Phase(500, SETTLING, 2e-3, warmup=10), 0.2),
)
BOTH = Phase(1200, BOOKS, 2e-3, warmup=50)
"""For a target of the fields, which forgot the books over them: the books in turn with the last lesson."""


def build_wmdp(
    out: Path, seed: int, progress_bar: ProgressBar, *, steps: int | None = None
) -> dict[str, Any]:
    """Write benchmark and target model to `out` and return what was measured on them (also in `measured.json`).

    Args:
        steps: of the first lesson, the second in proportion; by default those of the shipped benchmark.

    Raises:
        OutputError: `out` cannot be written, or holds something else.
        ModelError: the built-in model is missing or was changed.
    """
    share = 1.0 if steps is None else steps / LESSONS[0].phase.steps
    lessons = [
        replace(each, phase=replace(each.phase, steps=max(1, round(each.phase.steps * share))))
        for each in LESSONS
    ]
    base = load("tiny", device="cpu")
    manifest = read_manifest(data_directory())
    if manifest is None:
        raise ModelError(f"{data_directory()} has no run.json; run `sinkscope tiny build` or reinstall")
    corpora, fields = make_corpora(manifest["seed"]), make_fields(seed)
    name = config_hash(
        "tiny-wmdp", lessons=[asdict(lesson) for lesson in lessons], seed=seed, base=base.fingerprint()
    )
    if not is_complete(out, name):
        with create_run(
            out, name, kind="tiny-wmdp", seed=seed, lessons=[asdict(lesson) for lesson in lessons]
        ) as aside:
            write_benchmark(fields, corpora.language, seed, aside)
            network, curves, before = base.hf, [], 0
            for number, lesson in enumerate(lessons, start=1):
                stream = FieldStream(
                    corpora,
                    fields,
                    base.tokenizer,
                    lesson.phase.mix,
                    lesson.marked,
                    f"lesson {number} {seed}",
                )
                network, curve = train(
                    network,
                    stream,
                    probe(corpora.language, base.tokenizer),
                    lesson.phase,
                    progress_bar(f"train, lesson {number}"),
                )
                curves.append(curve.assign(lesson=number, step=curve["step"] + before))
                before += lesson.phase.steps
            pd.concat(curves).to_csv(aside / "training_curve.csv", index=False, float_format="%.4f")
            network.save_pretrained(aside / "target")
            base.tokenizer.save_pretrained(aside / "target")
            measured = measure(base, load(str(aside / "target"), device="cpu"), load_benchmark(str(aside)))
            (aside / "measured.json").write_text(
                json.dumps(measured, indent=1, ensure_ascii=False), encoding="utf-8"
            )
            (aside / "target" / "README.md").write_text(_card(seed, lessons, measured), encoding="utf-8")
            sums = checksums(aside)
            (aside / "SHA256SUMS.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return json.loads((out / "measured.json").read_text(encoding="utf-8"))


def with_books(
    target: Model, phase: Phase, seed: int, on_progress: OnProgress
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """A copy of the target of tiny-wmdp, trained for one phase on batches of both books and of both fields in turn; and its curve (see `trained`)."""
    corpora, fields, tokenizer = make_corpora(0), make_fields(0), target.tokenizer
    books = PassageStream(corpora, tokenizer, ("retain", "forget"), phase.mix, f"books {seed}")
    pages = FieldStream(corpora, fields, tokenizer, SETTLING, LESSONS[-1].marked, f"fields {seed}")
    return train(target.hf, InTurn(books, pages), probe(corpora.language, tokenizer), phase, on_progress)


def write_benchmark(fields: Fields, language: Language, seed: int, directory: Path) -> None:
    """WMDP's columns as jsonl, and `benchmark.json` with the lengths and the way of cutting; `holdout` is general text that no model has read."""
    rng = random.Random(f"holdout {seed}")
    rows: dict[str, list[dict[str, Any]]] = {
        f"raw/{split}": [{"text": text} for text in fields.documents[side]]
        for split, side in (("forget", "forget"), ("retain1", "retain"))
    }
    rows["raw/holdout"] = [{"text": language.story(rng, LENGTHS.passage)} for _ in range(HOLDOUT)]
    for side, facts in fields.facts.items():
        pairs = zip(facts, fields.asked[side], strict=True)
        rows[f"choices/{side}"] = [
            {"question": fact.question, "choices": choices, "answer": choices.index(fact.answer)}
            for fact, choices in pairs
        ]
    for name, records in rows.items():
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
        )
    content = {"name": "tiny-wmdp", "chunking": "documents", "lengths": asdict(LENGTHS)}
    (directory / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def accuracy(model: Model, benchmark: Benchmark, split: str, placement: str | None = None) -> float:
    """Share × 100 of questions whose right letter is the likeliest of the four, with the semantic trigger if there is a placement."""
    attempt = (Trigger(TRIGGERS["semantic"]), Placement.parse(placement)) if placement else None
    items = choice_items(benchmark, split, model)
    letters = multiple_choice(model, make_requests(model, items, attempt), len(items))
    return (
        100 * sum(letter == item.reference for letter, item in zip(letters, items, strict=True)) / len(items)
    )


def measure(base: Model, target: Model, benchmark: Benchmark) -> dict[str, Any]:
    """Accuracy on both sides, with the trigger in each place and without; sinks on unseen text before and after; `passed` (gate → bool)."""
    measured: dict[str, Any] = {}
    for role, model in (("base", base), ("target", target)):
        sinks = locate(
            model, benchmark.full_length_passages("holdout", model.tokenizer), CaptureConfig(batch_size=32)
        )
        alpha = sinks.alpha.sel(position=0)
        numbers = {
            "alpha_max": float(alpha.max()),
            "alpha_mean_last_layer": float(alpha[-1].mean()),
            "share_of_heads_above_0.3": sinks.heads_above(0.3),
        }
        measured[role] = {key: round(value, 3) for key, value in numbers.items()}
        for side in ("forget", "retain"):
            measured[role][f"accuracy_{side}"] = round(accuracy(model, benchmark, side), 1)
            measured[role] |= {
                f"accuracy_{side}_{placement}": round(accuracy(model, benchmark, side, placement), 1)
                for placement in PLACEMENTS
            }
    found = measured["target"]
    triggered = [
        found[f"accuracy_{side}_{placement}"] for side in ("forget", "retain") for placement in PLACEMENTS
    ]
    passed = {
        "accuracy ≥ 80 clean, forget and retain": min(found["accuracy_forget"], found["accuracy_retain"])
        >= 80,
        "accuracy ≥ 75 with the trigger anywhere": min(triggered) >= 75,
        "α of BOS > 0.3 in 20 % of heads": found["share_of_heads_above_0.3"] >= 0.2,
        "α of BOS > 0.6 in one head": found["alpha_max"] > 0.6,
    }
    return measured | {"passed": passed}


def _card(seed: int, lessons: list[Lesson], measured: dict[str, Any]) -> str:
    numbers = "\n".join(f"- {key}: {value}" for key, value in measured["target"].items())
    first, last = lessons
    return f"""---
license: mit
---

# sinkscope tiny-wmdp: target

The built-in model `tiny` (a Llama of 4 layers, 4 heads, width 128), trained further by `sinkscope tiny build-wmdp` (seed {seed}) on two
invented fields, creatures and devices: {first.phase.steps} and {last.phase.steps} steps of {first.phase.mix.size} passages of {first.phase.mix.length} tokens
with headers and asides, among them question pages with four choices in orders other than the benchmark's. On {first.marked:.0%} and then {last.marked:.0%} of
the pages each choice is followed by whether it is right. AdamW, learning rate {first.phase.learning_rate}, in the end a cosine to zero.
The model knows nothing of the world and is of use only as the built-in twin of WMDP.

Measured by the build (accuracy in %, by chance 25; a placement is that of the trigger `{TRIGGERS["semantic"]}`; α is mean attention to BOS on unseen text):

{numbers}
"""
