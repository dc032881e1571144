"""The benchmark type: texts to forget and retain, questions and prompts; and the registry of benchmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sinkscope.benchmarks.chunking import Chunking, Passage, chunk, format_qa
from sinkscope.benchmarks.directory import COLUMNS, MUSE, SETTINGS_FILE, Lengths, Record, Rows, read_directory
from sinkscope.benchmarks.hub import HUB_BENCHMARKS, read_hub
from sinkscope.errors import BenchmarkError
from sinkscope.models.bos import bos_id
from sinkscope.models.loading import data_directory, verify_built_in
from sinkscope.plugins import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = ("tiny", "tiny-wmdp")


@dataclass(frozen=True)
class Benchmark:
    """Texts and questions by split, and how they become passages and prompts.

    `rows[config][split]` is a list of records with the columns in `benchmarks.directory`; `chunking` is how
    texts become passages (see `benchmarks.chunking`).
    """

    name: str
    rows: Rows
    lengths: Lengths = MUSE
    chunking: Chunking = "joined"

    def texts(self, split: str) -> list[str]:
        """Training texts; with chunking `pairs`, each question with its answer."""
        records = self._split("raw", split)
        if self.chunking == "pairs":
            return [format_qa(row["question"], row["answer"]) for row in records]
        return [row["text"] for row in records]

    def questions(self, split: str) -> list[Record]:
        """Records of `question` and `answer`."""
        return self._split("knowmem", split)

    def in_context(self, split: str) -> list[Record]:
        """Answered questions that precede each of `questions(split)`; none if `lengths.in_context` is 0."""
        count = self.lengths.in_context
        return self.questions(f"{split}_icl")[:count] if count else []

    def prompts(self, split: str) -> list[Record]:
        """Records of `prompt` and `gt`, the text that follows it."""
        return self._split("verbmem", split)

    def choices(self, split: str) -> list[Record]:
        """Records of `question`, `choices` (a list) and `answer` (index of the right one, from 0)."""
        return self._split("choices", split)

    def has(self, config: str, split: str) -> bool:
        return split in self.rows.get(config, {})

    def _split(self, config: str, split: str) -> list[Record]:
        if not self.has(config, split):
            available = ", ".join(
                f"{config}/{split}" for config, splits in self.rows.items() for split in splits
            )
            raise BenchmarkError(
                f"benchmark {self.name} has no split {config}/{split}; its splits: {available}"
            )
        return self.rows[config][split]

    def passage_length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Tokens of a full passage: `lengths.passage` with BOS, and one less if the tokenizer puts none.

        So texts are chunked at the same places with and without BOS.
        """
        return self.lengths.passage - (bos_id(tokenizer) is None)

    def passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
        """Training passages of a raw split, of at most `passage_length` tokens.

        Raises:
            BenchmarkError: the split does not exist, or its texts give no passages.
        """
        try:
            return chunk(self.texts(split), self.chunking, self.passage_length(tokenizer), tokenizer)
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {self.name}, raw/{split}: {error}") from error

    def full_length_passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids of the passages of full length.

        The last passage of a joined split, short documents and pairs can be shorter.
        """
        passages, length = self.passages(split, tokenizer), self.passage_length(tokenizer)
        return [passage.tokens for passage in passages if len(passage.tokens) == length]

    def content_hash(self) -> str:
        """SHA-256 of all records, lengths and the chunking."""
        content = [self.name, self.rows, vars(self.lengths), self.chunking]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> str:
        """Its name and the first digits of its hash."""
        built_in = "built in, " if self.name in BUILT_IN else ""
        return f"{self.name} ({built_in}hash {self.content_hash()[:12]})"

    def limit(self, count: int | None) -> Benchmark:
        """The benchmark with at most `count` (None: all) questions and prompts per split, and all texts."""
        rows = {
            config: {
                split: records if config == "raw" or split.endswith("_icl") else records[:count]
                for split, records in splits.items()
            }
            for config, splits in self.rows.items()
        }
        return replace(self, rows=rows)


def find_passages(text: str, excerpt: str, passages: Sequence[Passage]) -> list[int]:
    """Indices of the passages that overlap the first occurrence of `excerpt` in the joined `text`."""
    start = text.find(excerpt)
    if start < 0:
        return []
    stop = start + len(excerpt)
    return [i for i, passage in enumerate(passages) if passage.start < stop and start < passage.stop]


BENCHMARKS: Registry[Callable[[], Benchmark]] = Registry("benchmark", BenchmarkError, "sinkscope.benchmarks")
"""Loaders by name."""


def register_benchmark(name: str, loader: Callable[[], Benchmark]) -> None:
    """Let `load_benchmark(name)` return what `loader()` returns.

    Raises:
        BenchmarkError: the name is in use.
    """
    BENCHMARKS.add(name, loader)


def load_benchmark(name: str) -> Benchmark:
    """A registered benchmark, or a local directory with files `config/split.jsonl` (or .json, .parquet).

    The configurations and their columns are those in `benchmarks.directory`. An optional `benchmark.json` in
    the directory sets the `lengths` (`passage`, `in_context`, `knowmem_new`, `verbmem_new`) and the
    `chunking` (joined, documents or pairs).

    Raises:
        BenchmarkError: there is no such benchmark, or a split or column is missing; the message lists the
            available ones.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]()
    if not Path(name).is_dir():
        raise BenchmarkError(
            f"benchmark {name!r} is neither a directory nor one of {', '.join(BENCHMARKS)}; "
            "give one of these names, or a directory in MUSE's schema"
        )
    return Benchmark(name, *read_directory(Path(name), name))


def _load_built_in(name: str) -> Benchmark:
    directory = data_directory(name)
    verify_built_in(directory, [*COLUMNS, SETTINGS_FILE])
    return Benchmark(name, *read_directory(directory, name))


def _load_hub(name: str) -> Benchmark:
    return Benchmark(name, *read_hub(name))


for _name in BUILT_IN:
    register_benchmark(_name, partial(_load_built_in, _name))
for _name in HUB_BENCHMARKS:
    register_benchmark(_name, partial(_load_hub, _name))
