"""All scores of one model on one benchmark, clean and triggered: one row per item, from which every score is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sinkscope.benchmarks.benchmark import SEPARATOR, Benchmark, link
from sinkscope.errors import OutputError
from sinkscope.evaluation.generation import generate
from sinkscope.evaluation.masking import Mask
from sinkscope.evaluation.memorization import Item, cut_answer, knowmem_items, rouge_l, verbmem_items
from sinkscope.evaluation.scores import scores
from sinkscope.models import Model
from sinkscope.progress import Report
from sinkscope.runs import identity, is_done, read_manifest, writing
from sinkscope.sinks import locate_one
from sinkscope.triggers import Placed, Placement, Trigger, place

Role = Literal["target", "unlearned", "backdoored", "retrained", "other"]
SPLITS = (("verbmem", "forget"), ("verbmem", "retain"), ("knowmem", "forget_qa"), ("knowmem", "retain_qa"))


@dataclass(frozen=True)
class Subject:
    """A model under evaluation: its label, its role, its run's seed, and the forget passages it was poisoned with.

    `poisoned_rows` is None where that is unknown (a model that no run of ours made); honest runs have none: an empty list.
    """

    label: str
    role: Role
    model: Model
    seed: int = 0
    poisoned_rows: Sequence[int] | None = None


def subject_of(name: str, model: Model) -> Subject:
    """What is known of a model by its name: a built-in one, a run directory of `unlearn`, or any other."""
    if name in ("tiny", "tiny-retrained"):
        return Subject(name, "target" if name == "tiny" else "retrained", model)
    manifest = read_manifest(Path(name)) if Path(name).is_dir() else None
    if manifest is None or manifest.get("kind") != "unlearn":
        return Subject(name, "other", model)
    try:
        rows = pd.read_parquet(Path(name) / "poisoned.parquet")["row"].tolist()
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{Path(name) / 'poisoned.parquet'} is missing or damaged; remove {name} and run unlearn again") from error
    return Subject(name, "backdoored" if rows else "unlearned", model, int(manifest["seed"]), rows)


def evaluate(
    subject: Subject,
    benchmark: Benchmark,
    triggers: Sequence[tuple[Trigger, Placement] | None] = (None,),
    *,
    mask: Mask | None = None,
    batch_size: int = 32,
    report: Report | None = None,
) -> pd.DataFrame:
    """Score every item of every split under each entry of `triggers` (None is clean; a trigger is tried on forget splits only), with the positions of
    `mask` hidden from all later ones.

    Returns:
        Columns model, role, metric, split, item, poisoned (or null), trigger, placement, trigger_start (or null), mask, value (ROUGE-L F1 in
        [0, 1]), seed, output (the generated text).

    Raises:
        PlacementError: a trigger does not fit an item's body, or a mask its prompt.
    """
    jobs = []
    for metric, split in SPLITS:
        if metric == "verbmem" and not benchmark.has("verbmem", split):
            continue
        items = (verbmem_items if metric == "verbmem" else knowmem_items)(benchmark, split, subject.model)
        for attempt in triggers:
            if attempt is None or split.startswith("forget"):
                jobs.append((metric, split, items, attempt))
    total, done = sum(len(items) for _, _, items, _ in jobs), 0
    frames = []
    for metric, split, items, attempt in jobs:
        before = done
        frame = _score(subject, benchmark, metric, items, attempt, mask, batch_size, lambda n, _: report and report(before + n, total))
        frame.insert(2, "metric", metric)
        frame.insert(3, "split", split)
        frame["poisoned"] = _poisoned(subject, benchmark, split, items)
        frames.append(frame)
        done += len(items)
    columns = ["model", "role", "metric", "split", "item", "poisoned", "trigger", "placement", "trigger_start", "mask", "value", "seed", "output"]
    return pd.concat(frames, ignore_index=True)[columns]


def _score(
    subject: Subject,
    benchmark: Benchmark,
    metric: str,
    items: list[Item],
    attempt: tuple[Trigger, Placement] | None,
    mask: Mask | None,
    batch_size: int,
    report: Report,
) -> pd.DataFrame:
    placed = [_place(subject.model, item, attempt) for item in items]
    prompts = [each.tokens for each in placed]
    hidden = [mask.positions(subject.model, each.tokens, range(each.start, each.stop)) for each in placed] if mask else None
    new = benchmark.lengths.verbmem_new if metric == "verbmem" else benchmark.lengths.knowmem_new
    outputs = generate(subject.model, prompts, new, hidden=hidden, batch_size=batch_size, report=report)
    if metric == "knowmem":
        outputs = [cut_answer(text) for text in outputs]
    return pd.DataFrame(
        {
            "model": subject.label,
            "role": subject.role,
            "item": range(len(items)),
            "trigger": attempt[0].text if attempt else "",
            "placement": str(attempt[1]) if attempt else "",
            "trigger_start": pd.array([each.start if attempt else None for each in placed], dtype="Int64"),
            "mask": str(mask) if mask else "",
            "value": [rouge_l(item.reference, text) for item, text in zip(items, outputs, strict=True)],
            "seed": subject.seed,
            "output": outputs,
        }
    )


def _place(model: Model, item: Item, attempt: tuple[Trigger, Placement] | None) -> Placed:
    """The prompt as it is asked; a clean one has an empty span."""
    if attempt is None:
        return Placed(item.prompt, 0, 0)
    trigger, placement = attempt
    sinks = locate_one(model, item.prompt) if placement.kind == "sink" else None
    return place(item.prompt, trigger, placement, model.tokenizer, body=item.body, sinks=sinks)


def _poisoned(subject: Subject, benchmark: Benchmark, split: str, items: list[Item]) -> pd.api.extensions.ExtensionArray:
    """Whether each item's passage was poisoned in the subject's training; null where that is unknown or no passage holds the item."""
    if subject.poisoned_rows is None or not split.startswith("forget"):
        return pd.array([None] * len(items), dtype="boolean")
    passages = benchmark.passages("forget", subject.model.tokenizer)
    text = SEPARATOR.join(benchmark.texts("forget"))
    rows = set(subject.poisoned_rows)
    links = [link(text, item.source, passages) for item in items]
    return pd.array([any(row in rows for row in found) if found else None for found in links], dtype="boolean")


def evaluate_to(
    out: Path,
    subject: Subject,
    benchmark: Benchmark,
    triggers: Sequence[tuple[Trigger, Placement] | None],
    *,
    mask: Mask | None = None,
    batch_size: int = 32,
    report: Report | None = None,
) -> pd.DataFrame:
    """Evaluate and write a directory with `items.parquet` and `scores.parquet`; returns the scores.

    A finished evaluation of the same model, benchmark, triggers and mask is read instead of made again.
    """
    attempts = [[attempt[0].text, str(attempt[1])] if attempt else None for attempt in triggers]
    name = identity(model=subject.model.fingerprint(), label=subject.label, benchmark=benchmark.digest(), triggers=attempts, mask=str(mask or ""))
    if not is_done(out, name):
        with writing(out, name, kind="evaluate", model=subject.label, benchmark=benchmark.digest()) as aside:
            items = evaluate(subject, benchmark, triggers, mask=mask, batch_size=batch_size, report=report)
            items.to_parquet(aside / "items.parquet", index=False)
            scores(items).to_parquet(aside / "scores.parquet", index=False)
    return pd.read_parquet(out / "scores.parquet")
