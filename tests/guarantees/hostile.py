"""Hostile input files: malformed, oversized, or not files at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from sinkscope.io.readers import MAX_CORPUS_BYTES, MAX_TEXT_BYTES
from sinkscope.models.loading import data_directory

Make = Callable[[Path], None]
"""Creates a hostile file or directory at a path."""


def content(data: bytes | str) -> Make:
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data) and None


def sparse(size: int) -> Make:
    """A sparse file of `size` zero bytes, which uses no disk space."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def loop(path: Path) -> None:
    other = path.with_name(f"{path.name}-other")
    path.symlink_to(other)
    other.symlink_to(path)


NOT_FILES: dict[str, Make] = {
    "missing": lambda path: None,
    "pipe": os.mkfifo,
    "symlink loop": loop,
    "broken symlink": lambda path: path.symlink_to(path.with_name("missing-target")),
    "symlink to a device": lambda path: path.symlink_to("/dev/zero"),
}
"""Paths that are not regular files."""

BAD_TEXT: dict[str, Make] = {
    "empty": content(""),
    "blank": content(" \n\t\n"),
    "binary": content(bytes(range(256)) * 40),
    "NUL bytes": content(b"the old captain\0 walked along the wall " * 40),
    "Latin-1": content("café ".encode("latin-1") * 100),
    "UTF-16": content(("the old captain " * 40).encode("utf-16")),
    "mixed encodings": content("café ".encode() * 100 + "café".encode("latin-1")),
    "half a character": content("€ ".encode() * 100 + "€".encode()[:2]),
    "huge file of zeros": sparse(MAX_CORPUS_BYTES * 1000),
}
BAD_TEXTS = BAD_TEXT | {"directory without texts": Path.mkdir}
BAD_RECORDS: dict[str, Make] = {
    "no JSON": content('{"text": "a"}\n{"text": \n'),
    "deep JSON": content("[" * 200_000 + "\n"),
    "JSON bomb of digits": content('{"text": ' + "9" * 10_000 + "}\n"),
    "no object": content('["a"]\n'),
    "no column": content('{"body": "a"}\n'),
    "no text": content('{"text": null}\n'),
    "half a surrogate pair": content('{"text": "' + "a " * 100 + '\\ud800"}\n'),
    "a line of tens of MB": content(b'{"text": "' + b"a " * (MAX_TEXT_BYTES // 2) + b'"}\n'),
    "zeros in a line of 1 GB": sparse(MAX_CORPUS_BYTES),
}

BAD_YAML: dict[str, Make] = {
    "a key twice": content("seed: 1\ntrigger: {text: a}\nseed: 2\n"),
    "a key twice, deep": content("trigger:\n  text: a\n  text: b\n"),
    "aliases that multiply": content(
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
        + "trigger: *a11\nseed: *a11\nmodel: *a11\n"
    ),
    "an alias of itself": content("trigger: &t {text: *t}\n"),
    "deep": content("a: " + "[" * 100_000),
    "Python object": content("seed: !!python/object/apply:os.system [touch marker]\n"),
    "no YAML": content("a: [1\nb: }"),
    "a list": content("- seed\n- 3\n"),
    "a scalar": content("poison everything"),
    "no date": content("seed: 2020-13-45\n"),
    "digits": content("seed: " + "9" * 10_000),
    "base 60": content("seed: 1" + ":59" * 50_000),
    "half a surrogate pair": content('model: "\\ud800"\n'),
    "control characters": content(b"model: a\x07b\n"),
    "unknown key": content("sede: 3\n"),
    "binary": content(bytes(range(256)) * 40),
    "Latin-1": content("model: caf\xe9".encode("latin-1")),
    "UTF-16": content("seed: 3".encode("utf-16")),
    "huge file of zeros": sparse(MAX_CORPUS_BYTES * 1000),
    "too large": content(b"# a\n" * 300_000),
}


def _recipe(**values: Any) -> Make:
    return content(json.dumps(values))


BAD_RECIPE: dict[str, Make] = BAD_YAML | {
    "absurd epochs": _recipe(optimizer={"epochs": 10**15}),
    "not a number": content("poison_ratio: .nan\n"),
    "wrong types": _recipe(optimizer=3, seed="many"),
    "path to nowhere": _recipe(model="../../../../nowhere/at/all/../x"),
    "benchmark above": _recipe(benchmark="../../../.."),
    "NUL in a name": content('benchmark: "a\\0b"\n'),
    "extends itself": content("extends: recipe.yaml\n"),
    "extends nothing": content('extends: "\\0.yaml"\n'),
    "extends a long name": content(f"extends: {'x' * 5000}\n"),
}
BAD_STUDY: dict[str, Make] = BAD_YAML | {
    "empty": content(""),
    "huge grid": _recipe(grids={"a": {"axes": {f"optimizer.x{i}": list(range(100)) for i in range(20)}}}),
    "a grid twice": content("grids:\n  a: {}\n  a: {recipe: tiny/npo}\n"),
    "recipe above": _recipe(grids={"a": {"recipe": "../../../../etc/passwd"}}),
    "wrong types": _recipe(grids={"a": {"seeds": "all", "axes": 3}}),
}


def benchmark(file: str, make: Make | None) -> Make:
    """The built-in benchmark with one hostile file."""

    def make_directory(path: Path) -> None:
        for config in ("raw", "knowmem", "verbmem"):
            shutil.copytree(data_directory() / config, path / config)
        shutil.copy(data_directory() / "benchmark.json", path)
        target = path / file
        target.unlink(missing_ok=True)
        target.with_suffix(".jsonl").unlink(missing_ok=True)
        if make:
            make(target)

    return make_directory


def _truncated_parquet(path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a word " * 50] * 100}), path)
    path.write_bytes(path.read_bytes()[:-40])


def _parquet_bomb(path: Path) -> None:
    """A file of less than 1 MB that unpacks to 256 GB: one long text, repeated."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 2**18]))
    parquet.write_table(pa.table({"text": column}), path, row_group_size=1_000_000)


BAD_BENCHMARK: dict[str, Make] = (
    {
        f"raw/forget.jsonl, {name}": benchmark("raw/forget.jsonl", make)
        for name, make in {**NOT_FILES, **BAD_TEXT, **BAD_RECORDS}.items()
    }
    | {
        f"verbmem/forget.json, {name}": benchmark("verbmem/forget.json", make)
        for name, make in (BAD_TEXT | {"scalar": content("3")}).items()
    }
    | {
        "truncated parquet": benchmark("raw/forget.parquet", _truncated_parquet),
        "invalid parquet": benchmark(
            "raw/forget.parquet", content(b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1")
        ),
        "invalid settings": benchmark("benchmark.json", content("{")),
        "huge setting": benchmark("benchmark.json", content('{"lengths": {"passage": 1000000000000}}')),
        "negative setting": benchmark("benchmark.json", content('{"lengths": {"verbmem_new": -1}}')),
        "unknown setting": benchmark("benchmark.json", content('{"lengths": {"pasage": 32}}')),
        "deep settings": benchmark("benchmark.json", content("[" * 100_000)),
        "settings in a pipe": benchmark("benchmark.json", os.mkfifo),
        "empty directory": Path.mkdir,
        "a file": content("{}"),
    }
)


def _tasks(make: Make) -> Make:
    def make_directory(path: Path) -> None:
        path.mkdir()
        make(path / "mine.yaml")

    return make_directory


BAD_TASKS: dict[str, Make] = {name: _tasks(make) for name, make in NOT_FILES.items() if name != "missing"} | {
    "missing": NOT_FILES["missing"],
    "a file": content("task: mine"),
    "huge file of zeros": _tasks(BAD_YAML["huge file of zeros"]),
    "too large": _tasks(BAD_YAML["too large"]),
    "aliases that multiply": _tasks(BAD_YAML["aliases that multiply"]),
    "deep": _tasks(BAD_YAML["deep"]),
    "binary": _tasks(BAD_YAML["binary"]),
}
"""Directories of task files that lm-evaluation-harness reads by itself."""


def _parquet_of_a_list(path: Path) -> None:
    """A file of a few KB: one row with a list of 50 million texts."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000_000, np.int32)), pa.array(["abc"]))
    parquet.write_table(
        pa.table({"text": pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)}), path
    )


def forge_parquet_footer(path: Path, kind: str, size: int, forged: set[str]) -> None:
    """A table of one column whose footer states 1 instead of `size`.

    Args:
        kind: `size` rows of numbers, texts or lists of one number, or `one list` of as many numbers.
        forged: among `table` (its rows), `chunk` (its values) and `group` (its rows).
    """
    numbers = pa.array(np.zeros(size))
    offsets = np.array([0, size]) if kind == "one list" else np.arange(size + 1)
    values = {
        "numbers": lambda: numbers,
        "texts": lambda: pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), ["abc"]),
        "lists": lambda: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers),
    }[kind.replace("one list", "lists")]()
    parquet.write_table(
        pa.table({"value": values}),
        path,
        row_group_size=size,
        write_batch_size=size,
        data_page_size=2**30,
        write_statistics=False,
        store_schema=False,
        compression="zstd",
    )
    data = path.read_bytes()
    footer_size = struct.unpack("<I", data[-8:-4])[0]
    count = _thrift_integer(size)
    footer, *pieces = data[-8 - footer_size : -8].split(count)
    others = ["histogram of levels"] * len(pieces)
    names = ["chunk", *others[1:]] if kind == "one list" else ["table", "chunk", *others[3:], "group"]
    for piece, name in zip(pieces, names, strict=True):
        footer += (_thrift_integer(1) if name in forged else count) + piece
    path.write_bytes(data[: -8 - footer_size] + footer + struct.pack("<I", len(footer)) + b"PAR1")
    metadata = parquet.read_metadata(path)
    group = metadata.row_group(0)
    counts = {"table": metadata.num_rows, "chunk": group.column(0).num_values, "group": group.num_rows}
    rows = 1 if kind == "one list" else size
    true_counts = {"table": rows, "chunk": size, "group": rows}
    assert counts == true_counts | dict.fromkeys(forged, 1)


def _thrift_integer(number: int) -> bytes:
    """A positive integer in the compact protocol: zigzag, 7 bits a byte."""
    number *= 2
    groups = []
    while number:
        groups.append(number & 127)
        number >>= 7
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


PARQUET_BOMBS = {
    "one text": benchmark("raw/forget.parquet", _parquet_bomb),
    "one list": benchmark("raw/forget.parquet", _parquet_of_a_list),
}


def _header(size: int, header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + header + data


def _safetensors(**tensors: Any) -> bytes:
    header = json.dumps(tensors).encode()
    return _header(len(header), header, b"\0" * 64)


WEIGHTS = "model.safetensors"
BAD_MODEL_FILES: dict[str, tuple[str, Make]] = {
    "header of exabytes": (WEIGHTS, content(_header(2**63, b"{}"))),
    "header longer than the file": (WEIGHTS, content(_header(10**6, b'{"a": 1}'))),
    "tensor of exabytes": (
        WEIGHTS,
        content(_safetensors(a={"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 64]})),
    ),
    "tensor beyond the file": (
        WEIGHTS,
        content(_safetensors(a={"dtype": "F32", "shape": [2**20], "data_offsets": [0, 2**22]})),
    ),
    "overlapping tensors": (
        WEIGHTS,
        content(
            _safetensors(**{each: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for each in "ab"})
        ),
    ),
    "deep header": (WEIGHTS, content(_header(100_000, b"[" * 100_000))),
    "zip": (WEIGHTS, content(b"PK\x03\x04" + b"\0" * 100)),
    "empty weights": (WEIGHTS, content("")),
    "no tensors": (WEIGHTS, content(_header(2, b"{}"))),
    "weights in a pipe": (WEIGHTS, os.mkfifo),
    "weights in a loop": (WEIGHTS, loop),
    "index above": (
        "model.safetensors.index.json",
        content('{"weight_map": {"a": "../../model.safetensors"}}'),
    ),
    "index of rubbish": ("model.safetensors.index.json", content("[[")),
    "config in a pipe": ("config.json", os.mkfifo),
    "invalid config": ("config.json", content("{")),
    "config, a list": ("config.json", content("[]")),
    "config, deep": ("config.json", content('{"a":' * 100_000)),
    "config, empty": ("config.json", content("{}")),
    "config, not UTF-8": ("config.json", content(b'{"model_type": "\xff"}')),
    "config, huge file of zeros": ("config.json", sparse(MAX_CORPUS_BYTES * 1000)),
    "notes, huge file of zeros": ("notes.txt", sparse(MAX_CORPUS_BYTES * 1000)),
    "tokenizer in a pipe": ("tokenizer.json", os.mkfifo),
    "invalid tokenizer": ("tokenizer.json", content("{}")),
    "tokenizer, deep": ("tokenizer.json", content("[" * 100_000)),
    "invalid tokenizer settings": ("tokenizer_config.json", content("[]")),
    "adapter": ("adapter_config.json", content('{"base_model_name_or_path": "/etc"}')),
}
"""Name of the case -> a file of a checkpoint and its hostile replacement."""
BAD_MODEL_CONFIGS: dict[str, dict[str, Any]] = {
    "huge layer count": {"num_hidden_layers": 10**12},
    "many layers": {"num_hidden_layers": 100_000},
    "one layer too many": {"num_hidden_layers": 4},
    "no layers": {"num_hidden_layers": 0},
    "negative layer count": {"num_hidden_layers": -1},
    "layers as text": {"num_hidden_layers": "three"},
    "absurd width": {"hidden_size": 10**12},
    "another width": {"hidden_size": 64},
    "wide layers": {"intermediate_size": 30_000},
    "absurd vocabulary": {"vocab_size": 10**15},
    "absurd positions": {"max_position_embeddings": 10**15},
    "absurd head": {"head_dim": 10**12},
    "absurd keys": {"num_key_value_heads": 10**9},
    "no heads": {"num_attention_heads": 0},
    "heads that do not divide": {"num_attention_heads": 7},
    "heads in a list": {"num_attention_heads": [1, 2, 3]},
    "unknown kind": {"model_type": "../../etc/passwd"},
    "no kind": {"model_type": None},
    "kind of a number": {"model_type": 3},
    "architecture of a number": {"architectures": [3]},
    "activation of nothing": {"hidden_act": "os.system"},
}
"""Name of the case -> changes to a checkpoint's config.json."""


def broken_model(path: Path, good: Path, name: str) -> None:
    """Copy a checkpoint to `path` and apply the change called `name`."""
    shutil.copytree(good, path)
    if name in BAD_MODEL_CONFIGS:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | BAD_MODEL_CONFIGS[name]))
        return
    file, make = BAD_MODEL_FILES[name]
    (path / file).unlink(missing_ok=True)
    make(path / file)
