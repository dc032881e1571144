"""Benchmarks on the hub: where each of our splits lies there, and how it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sinkscope.benchmarks.schema import (
    IN_CONTEXT,
    MUSE,
    OPTIONAL,
    REQUIRED,
    Cut,
    Lengths,
    Rows,
    checked,
    columns_of,
)
from sinkscope.errors import BenchmarkError, first_line

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True)
class Source:
    """A split of a data set on the hub; its columns are those of our configuration. `config` is None where there is one only."""

    repository: str
    config: str | None
    split: str
    required: bool = True


@dataclass(frozen=True)
class HubBenchmark:
    """`sources[our configuration, our split]`, and how the benchmark is cut and asked."""

    sources: Mapping[tuple[str, str], Source]
    cut: Cut = "joined"
    lengths: Lengths = MUSE


def _muse(repository: str) -> HubBenchmark:
    needed = {
        "raw": REQUIRED["raw"],
        "knowmem": REQUIRED["knowmem"] + IN_CONTEXT,
        "verbmem": REQUIRED["verbmem"],
    }
    sources = {
        (config, split): Source(repository, config, split)
        for config, splits in needed.items()
        for split in splits
    }
    optional = {
        (config, split): Source(repository, config, split, required=False)
        for config, splits in OPTIONAL.items()
        for split in splits
    }
    return HubBenchmark(sources | {key: source for key, source in optional.items() if key[0] != "choices"})


def _wmdp(field: str, forget: Source, passage: int) -> HubBenchmark:
    return HubBenchmark(
        {
            ("raw", "forget"): forget,
            ("raw", "retain1"): Source("cais/wmdp-corpora", f"{field}-retain-corpus", "train"),
            ("choices", "forget"): Source("cais/wmdp", f"wmdp-{field}", "test"),
        },
        "documents",
        Lengths(passage=passage),
    )


def _tofu(percent: int) -> HubBenchmark:
    forget, retain = (
        Source("locuslab/TOFU", f"{side}{share:02d}", "train")
        for side, share in (("forget", percent), ("retain", 100 - percent))
    )
    sources = {
        ("raw", "forget"): forget,
        ("raw", "retain1"): retain,
        ("knowmem", "forget_qa"): forget,
        ("knowmem", "retain_qa"): retain,
    }
    return HubBenchmark(sources, "pairs", Lengths(passage=512, in_context=0, knowmem_new=200))


HUB = {
    "muse-books": _muse("muse-bench/MUSE-Books"),
    "muse-news": _muse("muse-bench/MUSE-News"),
    "wmdp-bio": _wmdp("bio", Source("cais/wmdp-bio-forget-corpus", None, "train"), 512),
    "wmdp-cyber": _wmdp("cyber", Source("cais/wmdp-corpora", "cyber-forget-corpus", "train"), 768),
    "tofu-forget01": _tofu(1),
    "tofu-forget05": _tofu(5),
    "tofu-forget10": _tofu(10),
}
"""Benchmarks by name."""


def read_hub(name: str) -> tuple[Rows, Lengths, Cut]:
    """All splits of a benchmark in `HUB`, each data set's configuration being fetched once.

    Raises:
        BenchmarkError: a data set cannot be had, or lacks a split or column; the message lists what was found.
    """
    benchmark = HUB[name]
    fetched = cache(_fetch)
    rows: Rows = {}
    for (config, split), source in benchmark.sources.items():
        place = "/".join([source.repository, *([source.config] if source.config else [])])
        try:
            found = fetched(source.repository, source.config)
        except (OSError, ValueError) as error:
            if not source.required:
                continue
            why = first_line(error)
            raise BenchmarkError(
                f"benchmark {name}: {place} could not be had ({why}); fetch it once with access, or give a directory"
            ) from error
        if source.split in found:
            data = found[source.split]
            rows.setdefault(config, {})[split] = checked(
                f"{place}/{source.split}", columns_of(config, benchmark.cut), data.column_names, data
            )
        elif source.required:
            raise BenchmarkError(
                f"benchmark {name}: {place} lacks the split {source.split}; found: {', '.join(found) or 'nothing'}"
            )
    return rows, benchmark.lengths, benchmark.cut


def _fetch(repository: str, config: str | None) -> DatasetDict:
    from datasets import load_dataset
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # else it tells of every try
    return load_dataset(repository, config)
