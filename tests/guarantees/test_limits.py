"""Input that is too large is refused in bounded time and memory."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sinkscope.io import tables
from sinkscope.io.readers import MAX_CORPUS_BYTES
from sinkscope.io.run_directory import checksums
from sinkscope.io.tables import VALUE_BYTES, read_parquet, read_parquet_records
from sinkscope.schema import version_of
from tests.guarantees import hostile
from tests.guarantees.apart import run_measured
from tests.guarantees.reading import COMMANDS, MEMORY, check_refused, sinkscope
from tests.guarantees.soak_log import attempt


def check_refused_within_limits(arguments: list[object], path: Path, good_inputs: Path) -> None:
    """Check a refusal in a separate process; libraries (0.7 GB) and the longest allowed line need 1.2 GB."""
    out = good_inputs.parent / "out"
    code, err, seconds, memory = run_measured([*arguments, "--out", out], good_inputs.parent)
    assert (code, err.count("\n"), out.exists()) == (2, 1, False), err
    assert str(path) in err
    assert memory < 1.2 and seconds < 120, (memory, seconds)


def test_a_huge_model_configuration_uses_no_memory(
    good_inputs: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    hostile.broken_model(tmp_path / "input", checkpoints["llama"], "many layers")
    check_refused_within_limits(
        COMMANDS["model"]["evaluate"](tmp_path / "input", good_inputs), tmp_path / "input", good_inputs
    )


@pytest.mark.parametrize("bomb", hostile.PARQUET_BOMBS)
def test_a_small_file_that_unpacks_to_a_huge_table_is_refused(
    good_inputs: Path, tmp_path: Path, bomb: str
) -> None:
    hostile.PARQUET_BOMBS[bomb](tmp_path / "input")
    assert (tmp_path / "input" / "raw" / "forget.parquet").stat().st_size < 10**6
    outcome = sinkscope(
        *COMMANDS["benchmark"]["evaluate"](tmp_path / "input", good_inputs), "--out", tmp_path / "out"
    )
    check_refused(
        outcome,
        tmp_path / "out",
        f"{tmp_path}/input/raw/forget.parquet cannot be read: it unpacks to more than",
        limit=MEMORY + MAX_CORPUS_BYTES,
    )


def _with_manifest(path: Path, kind: str) -> Path:
    """Add a manifest with correct checksums to results that sinkscope did not write."""
    (path / "run.json").write_text(
        json.dumps(
            {
                "identity": "x",
                "kind": kind,
                "schema": version_of(kind),
                "files": checksums(path),
                "versions": {"python": "3"},
            }
        )
    )
    return path


def test_a_small_table_of_results_that_unpacks_to_a_huge_one_is_refused(
    good_inputs: Path, tmp_path: Path
) -> None:
    """By dictionary-encoded texts, constant numbers, or empty lists."""
    path, out = tmp_path / "input", tmp_path / "page.html"
    path.mkdir()
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2_000_000, np.int32)), pa.array(["a" * 4000]))
    same = pa.array(np.zeros(6_000_000))
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(2_000_001, np.int32)), pa.array([], pa.string()))
    for column, times in ((long, 1), (same, 100), (empty, 50)):
        with pq.ParquetWriter(path / "scores.parquet", pa.schema({"value": column.type})) as file:
            for _ in range(times):
                file.write_table(pa.table({"value": column}))
        assert (path / "scores.parquet").stat().st_size < 5 * 10**6
        outcome = sinkscope("report", _with_manifest(path, "evaluate"), "--out", out)
        check_refused(
            outcome, out, f"{path} holds results that cannot be read (scores.parquet: it unpacks to more than"
        )


def test_the_memory_of_tables_of_results_is_computed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table just below the limit is read."""
    pd.DataFrame({"a.b": np.arange(1000.0), "b": ["ab"] * 1000}).to_parquet(tmp_path / "table.parquet")
    row_bytes = 2 * (VALUE_BYTES + 8) + 2  # a number and a text of two letters
    monkeypatch.setattr(tables, "MAX_RESULT_BYTES", 1000 * row_bytes)
    assert read_parquet(tmp_path / "table.parquet").shape == (1000, 2)
    monkeypatch.setattr(tables, "MAX_RESULT_BYTES", 115_999)
    with pytest.raises(ValueError, match=r"table.parquet: it unpacks to more than 115,999 bytes"):
        read_parquet(tmp_path / "table.parquet")


@pytest.mark.parametrize(
    ("kind", "forged"),
    [
        *((kind, {count}) for kind in ("numbers", "texts", "lists") for count in ("table", "chunk", "group")),
        ("numbers", {"table", "group"}),
        ("texts", {"table", "chunk"}),
        ("one list", {"chunk"}),
    ],
)
def test_a_table_whose_footer_states_fewer_values_than_it_has_is_refused(
    kind: str, forged: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.parquet"
    hostile.forge_parquet_footer(path, kind, 900_000, forged)
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(tables, "MAX_RESULT_BYTES", 10**8)
    with pytest.raises(ValueError, match=f"table.parquet: {tables.WRONG_COUNTS}"):
        read_parquet(path)
    with pytest.raises(ValueError, match=tables.WRONG_COUNTS):
        read_parquet_records(path, ["value"])


@pytest.mark.parametrize("kind", ["numbers", "texts", "lists"])
def test_rows_that_the_footer_leaves_out_consistently_are_not_read(kind: str, tmp_path: Path) -> None:
    hostile.forge_parquet_footer(tmp_path / "table.parquet", kind, 900_000, {"table", "chunk", "group"})
    assert len(read_parquet(tmp_path / "table.parquet")) == 1
    assert len(read_parquet_records(tmp_path / "table.parquet", ["value"])[1]) == 1


@pytest.mark.parametrize("name", ["alpha", "position"])
def test_small_arrays_of_results_that_unpack_to_huge_ones_are_refused(
    name: str, good_inputs: Path, tmp_path: Path
) -> None:
    """Also a coordinate, which is read when the file is opened."""
    path, out = tmp_path / "input", tmp_path / "page.html"
    path.mkdir()
    pd.DataFrame({"text": ["a"]}).to_parquet(path / "passage.parquet")
    with h5py.File(path / "passage.nc", "w") as file:
        file.create_dataset(name, (10**12,), "f8", chunks=(1000,)).make_scale(name)
    (path / "sinks.nc").write_bytes((path / "passage.nc").read_bytes())
    outcome = sinkscope("report", _with_manifest(path, "locate"), "--out", out)
    check_refused(
        outcome,
        out,
        f"{path} holds results that cannot be read (sinks.nc unpacks to 8,000,000,000,000 bytes, more than",
    )


def test_too_many_rows_are_refused(
    good_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small rows use far more memory than bytes in the file."""
    for module in ("io.readers", "io.tables"):
        monkeypatch.setattr(f"sinkscope.{module}.MAX_ROWS", 200)
    text, out, rows = tmp_path / "notes.jsonl", tmp_path / "out", [{"text": "ab"}] * 201
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text.write_text(lines)
    refused = sinkscope(*COMMANDS["text"]["locate"](text, good_inputs), "--out", out)
    check_refused(refused, out, f"text {text} cannot be read: it has more than 200 lines; give a part of it")
    for suffix, write in {
        "jsonl": hostile.content(lines),
        "json": hostile.content(json.dumps(rows)),
        "parquet": lambda path: pd.DataFrame(rows).to_parquet(path),
    }.items():
        file = f"raw/forget.{suffix}"
        hostile.benchmark(file, write)(tmp_path / suffix)
        outcome = sinkscope(*COMMANDS["benchmark"]["evaluate"](tmp_path / suffix, good_inputs), "--out", out)
        check_refused(
            outcome,
            out,
            f"{tmp_path / suffix / file} cannot be read: it has more than 200 lines",
            f"{tmp_path / suffix / file} cannot be read: it has 201 rows",
        )


def test_records_are_checked_while_they_are_read(good_inputs: Path, tmp_path: Path) -> None:
    hostile.benchmark("raw/forget.jsonl", hostile.content('{"text": null}\nno JSON\n'))(tmp_path / "book")
    outcome = sinkscope(
        *COMMANDS["benchmark"]["evaluate"](tmp_path / "book", good_inputs), "--out", tmp_path / "out"
    )
    check_refused(
        outcome, tmp_path / "out", f"{tmp_path}/book/raw/forget.jsonl row 0: column 'text' must be text"
    )


def test_the_total_size_of_texts_in_a_directory_is_limited(
    good_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinkscope.text_sources.MAX_CORPUS_BYTES", 1000)
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text("a" * 400)
    outcome = sinkscope(
        *COMMANDS["text"]["locate"](tmp_path / "texts", good_inputs), "--out", tmp_path / "out"
    )
    check_refused(
        outcome,
        tmp_path / "out",
        f"directory {tmp_path}/texts has texts of more than 1,000 characters; give a part of them",
    )


@pytest.mark.soak
def test_a_line_of_a_gigabyte_is_refused_in_bounded_memory(good_inputs: Path, tmp_path: Path) -> None:
    for file, kind in (
        ("notes.txt", "text"),
        ("notes.jsonl", "text"),
        ("triggers.txt", "triggers"),
        ("recipe.yaml", "recipe"),
        ("spec.yaml", "study"),
    ):
        path = tmp_path / file
        with path.open("wb") as out:
            out.write(b'{"text": "')
            for _ in range(MAX_CORPUS_BYTES // 2**20 - 1):
                out.write(b"a word " * (2**20 // 7))
        for arguments in COMMANDS[kind].values():
            with attempt("bad input", "lines of 1 GB through commands"):
                check_refused_within_limits(arguments(path, good_inputs), path, good_inputs)
        path.unlink()
