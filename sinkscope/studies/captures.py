"""Capture a model on the passages of a benchmark, clean and triggered, for a study."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.errors import BenchmarkError
from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model
from sinkscope.sinks.captures import capture_conditions
from sinkscope.triggers import Placement, Trigger


def capture_benchmark(
    directory: Path,
    model: Model,
    benchmark: Benchmark,
    trigger: Trigger,
    placements: Sequence[Placement],
    *,
    n_passages: int,
    bin_size: int,
    poisoned: Collection[int] = (),
    on_progress: OnProgress | None = None,
) -> None:  # what is read, what is inserted where, and where the files go
    """Capture the first full-length forget passages, without the `poisoned` rows, and retain passages.

    Raises:
        BenchmarkError: a split has no passage of the full length.
    """
    forget, retain = (
        benchmark.full_length_passages(split, model.tokenizer)[:n_passages] for split in ("forget", "retain1")
    )
    clean = {row: passage for row, passage in enumerate(forget) if row not in set(poisoned)}
    for split, passages in (("forget", clean), ("retain1", retain)):
        if not passages:
            raise BenchmarkError(
                f"benchmark {benchmark.name}, raw/{split}, has no passage of {benchmark.lengths.passage} "
                "tokens; "
                "give longer texts"
            )
    capture_conditions(
        directory, model, clean, retain, trigger, placements, bin_size=bin_size, on_progress=on_progress
    )
