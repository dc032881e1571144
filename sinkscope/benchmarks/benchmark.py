"""One type for every benchmark: texts to forget and retain, questions, prompts, and how they are cut and scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sinkscope.errors import BenchmarkError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"
TEXT, PROMPT, QUESTION = ("text",), ("prompt", "gt"), ("question", "answer")
REQUIRED = {
    "raw": (TEXT, ("forget", "retain1")),
    "knowmem": (QUESTION, ("forget_qa", "retain_qa", "forget_qa_icl", "retain_qa_icl")),
    "verbmem": (PROMPT, ("forget",)),
}
OPTIONAL = {"raw": ("retain2", "holdout"), "verbmem": ("retain",), "privleak": ("forget", "retain", "holdout")}
COLUMNS = {"raw": TEXT, "knowmem": QUESTION, "verbmem": PROMPT, "privleak": TEXT}
HUB = {"muse-books": "muse-bench/MUSE-Books", "muse-news": "muse-bench/MUSE-News"}
"""Benchmarks by name, and the data sets on the hub that hold them."""


@dataclass(frozen=True)
class Lengths:
    """How a benchmark cuts and asks, in tokens and pairs. The defaults are MUSE's."""

    passage: int = 2048
    in_context: int = 10
    knowmem_new: int = 32
    verbmem_new: int = 128


@dataclass(frozen=True)
class Passage:
    """A chunk of training text: token ids with BOS first, and the characters `start <= i < stop` of the joined text it covers."""

    tokens: list[int]
    start: int
    stop: int
    body: int | None = None
    given: int = 0


@dataclass(frozen=True)
class Benchmark:
    """Texts and questions by split. `rows[config][split]` is a list of records with MUSE's columns."""

    name: str
    rows: dict[str, dict[str, list[dict[str, str]]]]
    lengths: Lengths = Lengths()

    def texts(self, split: str) -> list[str]:
        return [row["text"] for row in self._split("raw", split)]

    def questions(self, split: str) -> list[dict[str, str]]:
        return self._split("knowmem", split)

    def prompts(self, split: str) -> list[dict[str, str]]:
        return self._split("verbmem", split)

    def choices(self, split: str) -> list[dict[str, Any]]:
        """Questions with `choices` (texts) and `answer` (the index of the right one)."""
        return self._split("choices", split)

    def has(self, config: str, split: str) -> bool:
        return split in self.rows.get(config, {})

    def _split(self, config: str, split: str) -> list[dict[str, str]]:
        if not self.has(config, split):
            found = ", ".join(f"{c}/{s}" for c, splits in self.rows.items() for s in splits)
            raise BenchmarkError(f"benchmark {self.name} has no split {config}/{split}; it has {found}")
        return self.rows[config][split]

    def passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
        """Training passages of a raw split, as MUSE cuts them: all texts joined by blank lines, chunks of `lengths.passage` − 1 tokens, BOS in front."""
        text = SEPARATOR.join(self.texts(split))
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        size = self.lengths.passage - 1
        return [Passage(bos + ids[i : i + size], offsets[i][0], offsets[min(i + size, len(ids)) - 1][1]) for i in range(0, len(ids), size)]

    def whole_passages(self, split: str, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Token ids of the passages that have the full length (the last one of a split may not)."""
        return [passage.tokens for passage in self.passages(split, tokenizer) if len(passage.tokens) == self.lengths.passage]

    def digest(self) -> str:
        """SHA-256 of all records and lengths: the benchmark's identity in a run's name."""
        content = json.dumps([self.name, self.rows, vars(self.lengths)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def head(self, items: int) -> Benchmark:
        """The same benchmark with at most `items` questions and prompts a split; training text stays whole."""
        rows = {
            config: {split: records if config == "raw" or split.endswith("_icl") else records[:items] for split, records in splits.items()}
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
    """The built-in benchmark (`tiny`), `muse-books` or `muse-news` from the hub, or a local directory in MUSE's schema: `config/split.jsonl` (or
    .json, .parquet).

    An optional `benchmark.json` in the directory sets the lengths (`passage`, `in_context`, `knowmem_new`, `verbmem_new`).

    Raises:
        BenchmarkError: no such benchmark, or a split or column is missing; the message lists what was found.
    """
    from sinkscope.models import data_directory

    if name in HUB:
        return _from_hub(name, HUB[name])
    directory = data_directory() if name == "tiny" else Path(name)
    if not directory.is_dir():
        raise BenchmarkError(f"benchmark {name!r} is neither `tiny`, {', '.join(HUB)} nor a directory; give a directory in MUSE's schema")
    rows: dict[str, dict[str, list[dict[str, str]]]] = {}
    for config, split, required in _expected():
        path = _find(directory / config, split)
        if path is None:
            if not required:
                continue
            found = sorted(str(p.relative_to(directory)) for p in directory.glob("*/*") if p.suffix in (".jsonl", ".json", ".parquet"))
            raise BenchmarkError(f"benchmark {name} lacks {config}/{split}.jsonl (or .json, .parquet); found: {', '.join(found) or 'nothing'}")
        rows.setdefault(config, {})[split] = _read(path, COLUMNS[config])
    return Benchmark(name, rows, _lengths(directory / "benchmark.json"))


def _from_hub(name: str, repository: str) -> Benchmark:
    """A data set of the hub with MUSE's configurations, splits and columns."""
    from datasets import DatasetDict, load_dataset

    found: dict[str, DatasetDict] = {}
    for config in COLUMNS:
        try:
            found[config] = load_dataset(repository, config)
        except (OSError, ValueError) as error:
            if config in REQUIRED:
                why = str(error).splitlines()[0][:200]
                raise BenchmarkError(
                    f"benchmark {name}: {repository}/{config} could not be had ({why}); fetch it once with access, or give a directory"
                ) from error
    rows: dict[str, dict[str, list[dict[str, str]]]] = {}
    for config, split, required in _expected():
        if split not in found.get(config, {}):
            if required:
                listed = ", ".join(f"{c}/{s}" for c, splits in found.items() for s in splits)
                raise BenchmarkError(f"benchmark {name}: {repository} lacks {config}/{split}; found: {listed or 'nothing'}")
            continue
        data = found[config][split]
        if missing := [column for column in COLUMNS[config] if column not in data.column_names]:
            raise BenchmarkError(f"{repository} {config}/{split} lacks the column {missing[0]!r}; it has {', '.join(data.column_names) or 'none'}")
        rows.setdefault(config, {})[split] = [{column: str(record[column]) for column in COLUMNS[config]} for record in data]
    return Benchmark(name, rows)


def _expected() -> Iterator[tuple[str, str, bool]]:
    for config, (_, splits) in REQUIRED.items():
        yield from ((config, split, True) for split in splits)
    for config, splits in OPTIONAL.items():
        yield from ((config, split, False) for split in splits)


def _find(folder: Path, split: str) -> Path | None:
    return next((path for suffix in ("jsonl", "json", "parquet") if (path := folder / f"{split}.{suffix}").is_file()), None)


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=path.suffix == ".jsonl", dtype=False)
    except (ValueError, OSError) as error:
        raise BenchmarkError(f"{path} cannot be read: {str(error).splitlines()[0]}; write it again as {path.suffix[1:]}") from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise BenchmarkError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(map(str, frame.columns)) or 'none'}")
    if frame.empty:
        raise BenchmarkError(f"{path} has no rows; give at least one")
    return [{column: str(record[column]) for column in columns} for record in frame.to_dict("records")]


def _lengths(path: Path) -> Lengths:
    if not path.is_file():
        return Lengths()
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["lengths"]
        known = {field.name for field in fields(Lengths)}
        return Lengths(**{key: int(value) for key, value in values.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f'{path} must hold {{"lengths": {{"passage": 64, …}}}}; mend or remove it') from error
