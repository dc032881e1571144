"""One type for every benchmark: texts to forget and retain, questions, prompts, and how they are cut and scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sinkscope.benchmarks.chunking import SEPARATOR, Passage, chunk, format_qa
from sinkscope.benchmarks.directory import SETTINGS_FILE, read_directory
from sinkscope.benchmarks.hub import HUB, read_hub
from sinkscope.benchmarks.schema import COLUMNS, MUSE, Cut, Lengths, Record, Rows
from sinkscope.errors import BenchmarkError
from sinkscope.models.loading import data_directory, verify_built_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = ("tiny", "tiny-wmdp")
__all__ = ["BUILT_IN", "SEPARATOR", "Benchmark", "Lengths", "Passage", "link", "load_benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """Texts and questions by split. `rows[config][split]` is a list of records with the columns in `schema`; `cut` is how texts become passages."""

    name: str
    rows: Rows
    lengths: Lengths = MUSE
    cut: Cut = "joined"

    def texts(self, split: str) -> list[str]:
        """Training texts; of `pairs`, each question with its answer."""
        records = self._split("raw", split)
        return [
            format_qa(row["question"], row["answer"]) if self.cut == "pairs" else row["text"]
            for row in records
        ]

    def questions(self, split: str) -> list[Record]:
        """Records of `question` and `answer`."""
        return self._split("knowmem", split)

    def in_context(self, split: str) -> list[Record]:
        """Solved questions to show before each of `questions(split)`; none where `lengths.in_context` is 0."""
        return self.questions(f"{split}_icl")[: self.lengths.in_context] if self.lengths.in_context else []

    def prompts(self, split: str) -> list[Record]:
        """Records of `prompt` and `gt`, the text that follows it."""
        return self._split("verbmem", split)

    def choices(self, split: str) -> list[Record]:
        """Records of `question`, `choices` (a list) and `answer` (the right one's number, from 0)."""
        return self._split("choices", split)

    def has(self, config: str, split: str) -> bool:
        return split in self.rows.get(config, {})

    def _split(self, config: str, split: str) -> list[Record]:
        if not self.has(config, split):
            found = ", ".join(f"{c}/{s}" for c, splits in self.rows.items() for s in splits)
            raise BenchmarkError(f"benchmark {self.name} has no split {config}/{split}; it has {found}")
        return self.rows[config][split]

    def passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
        """Training passages of a raw split, of at most `lengths.passage` tokens (see `cutting`).

        Raises:
            BenchmarkError: no such split, or its texts cannot be cut.
        """
        try:
            return chunk(self.texts(split), self.cut, self.lengths.passage, tokenizer)
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {self.name}, raw/{split}: {error}") from error

    def whole_passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids of the passages that have the full length (the last one of a joined split, short documents and pairs may not)."""
        return [
            passage.tokens
            for passage in self.passages(split, tokenizer)
            if len(passage.tokens) == self.lengths.passage
        ]

    def digest(self) -> str:
        """SHA-256 of all records, lengths and the way of cutting: the benchmark's identity in a run's name."""
        content = json.dumps(
            [self.name, self.rows, vars(self.lengths), self.cut], sort_keys=True, ensure_ascii=False
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def head(self, items: int) -> Benchmark:
        """The same benchmark with at most `items` questions and prompts a split; training text stays whole."""
        rows = {
            config: {
                split: records if config == "raw" or split.endswith("_icl") else records[:items]
                for split, records in splits.items()
            }
            for config, splits in self.rows.items()
        }
        return replace(self, rows=rows)


def link(text: str, needle: str, passages: Sequence[Passage]) -> list[int]:
    """Indices of the passages that hold any part of `needle`, by its first occurrence in the joined `text`; empty if it does not occur."""
    at = text.find(needle)
    if at < 0:
        return []
    end = at + len(needle)
    return [index for index, passage in enumerate(passages) if passage.start < end and at < passage.stop]


def load_benchmark(name: str) -> Benchmark:
    """A built-in benchmark (`tiny`, `tiny-wmdp`), one of the hub by its name (see `hub.HUB`), or a local directory: `config/split.jsonl` (or .json,
    .parquet), with the configurations and columns in `schema`.

    An optional `benchmark.json` in the directory sets the lengths (`passage`, `in_context`, `knowmem_new`, `verbmem_new`) and how texts are cut
    (`cut`: joined, documents or pairs).

    Raises:
        BenchmarkError: no such benchmark, or a split or column is missing; the message lists what was found.
    """
    if name in HUB:
        return Benchmark(name, *read_hub(name))
    directory = data_directory(name) if name in BUILT_IN else Path(name)
    if name in BUILT_IN:
        verify_built_in(directory, [*COLUMNS, SETTINGS_FILE])
    if not directory.is_dir():
        known = ", ".join([*(f"`{each}`" for each in BUILT_IN), *HUB])
        raise BenchmarkError(
            f"benchmark {name!r} is neither {known} nor a directory; give one of these names, or a directory in MUSE's schema"
        )
    return Benchmark(name, *read_directory(directory, name))
