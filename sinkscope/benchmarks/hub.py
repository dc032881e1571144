"""Benchmarks on the Hugging Face hub: the data set of each split, and how its texts are chunked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sinkscope.benchmarks.chunking import Chunking
from sinkscope.benchmarks.directory import (
    MUSE,
    OPTIONAL,
    Lengths,
    Rows,
    known_splits,
    required_columns,
    validate_records,
)
from sinkscope.errors import BenchmarkError, first_line
from sinkscope.io.progress import quiet_loggers

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set on the hub. `config` is None where the data set has a single configuration."""

    repository: str
    config: str | None
    split: str


@dataclass(frozen=True)
class HubBenchmark:
    """The data set of each (configuration, split) of a benchmark, how texts are chunked, and lengths."""

    splits: Mapping[tuple[str, str], HubSplit]
    chunking: Chunking = "joined"
    lengths: Lengths = MUSE


def _muse(repository: str) -> HubBenchmark:
    return HubBenchmark(
        {
            (config, split): HubSplit(repository, config, split)
            for config in ("raw", "knowmem", "verbmem", "privleak")
            for split in known_splits(config)
        }
    )


def _wmdp(domain: str, forget: HubSplit, passage: int) -> HubBenchmark:
    splits = {
        ("raw", "forget"): forget,
        ("raw", "retain1"): HubSplit("cais/wmdp-corpora", f"{domain}-retain-corpus", "train"),
        ("choices", "forget"): HubSplit("cais/wmdp", f"wmdp-{domain}", "test"),
    }
    return HubBenchmark(splits, "documents", Lengths(passage=passage))


def _tofu(percent: int) -> HubBenchmark:
    forget = HubSplit("locuslab/TOFU", f"forget{percent:02d}", "train")
    retain = HubSplit("locuslab/TOFU", f"retain{100 - percent:02d}", "train")
    splits = {
        ("raw", "forget"): forget,
        ("raw", "retain1"): retain,
        ("knowmem", "forget_qa"): forget,
        ("knowmem", "retain_qa"): retain,
    }
    return HubBenchmark(splits, "pairs", Lengths(passage=512, in_context=0, knowmem_new=200))


HUB_BENCHMARKS = {
    "muse-books": _muse("muse-bench/MUSE-Books"),
    "muse-news": _muse("muse-bench/MUSE-News"),
    "wmdp-bio": _wmdp("bio", HubSplit("cais/wmdp-bio-forget-corpus", None, "train"), 512),
    "wmdp-cyber": _wmdp("cyber", HubSplit("cais/wmdp-corpora", "cyber-forget-corpus", "train"), 768),
    "tofu-forget01": _tofu(1),
    "tofu-forget05": _tofu(5),
    "tofu-forget10": _tofu(10),
}
"""Benchmarks by name."""


def read_hub(name: str) -> tuple[Rows, Lengths, Chunking]:
    """All splits of a benchmark in `HUB_BENCHMARKS`; each configuration of a data set is fetched once.

    Raises:
        BenchmarkError: a data set cannot be fetched, or lacks a split or column; the message lists the
            available ones.
    """
    benchmark = HUB_BENCHMARKS[name]
    fetch = cache(_fetch)
    rows: Rows = {}
    for (config, split), source in benchmark.splits.items():
        is_optional = split in OPTIONAL.get(config, ())
        location = f"{source.repository}/{source.config}" if source.config else source.repository
        try:
            data = fetch(source.repository, source.config)
        except (OSError, ValueError) as error:
            if is_optional:
                continue
            raise BenchmarkError(
                f"benchmark {name}: {location} cannot be fetched ({first_line(error)}); "
                "fetch it once with access to it, or give a directory"
            ) from error
        if source.split in data:
            columns = required_columns(config, benchmark.chunking)
            records = validate_records(f"{location}/{source.split}", columns, data[source.split])
            rows.setdefault(config, {})[split] = records
        elif not is_optional:
            available = ", ".join(data) or "none"
            raise BenchmarkError(
                f"benchmark {name}: {location} lacks the split {source.split}; its splits: {available}"
            )
    return rows, benchmark.lengths, benchmark.chunking


def _fetch(repository: str, config: str | None) -> DatasetDict:
    from datasets import load_dataset

    with quiet_loggers("huggingface_hub"):  # it warns of every retry
        return load_dataset(repository, config)
