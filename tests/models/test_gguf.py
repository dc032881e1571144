"""GGUF files that are refused; one that is read is tested with a real model (in `end_to_end`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from sinkscope.errors import ModelError
from sinkscope.models.model import load


def write_gguf(path: Path, architecture: str, **numbers: int) -> Path:
    writer = GGUFWriter(path, architecture)
    for key, number in numbers.items():
        writer.add_uint32(f"{architecture}.{key}", number)
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_unknown_architecture_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", "frobnicate")
    with pytest.raises(ModelError, match=r"a\.gguf' cannot be loaded: .*frobnicate"):
        load(path)


def test_sizes_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    sizes = {"block_count": 1000, "embedding_length": 4, "attention.head_count": 1}
    path = write_gguf(tmp_path / "a.gguf", "llama", **sizes)
    with pytest.raises(
        ModelError, match=r"gives .* which does not fit its weights of 32 numbers in 1 tensors"
    ):
        load(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "a.gguf", "llama").read_bytes()
    for length in (0, 3, 20, len(content) // 2, len(content) - 60):
        (tmp_path / "a.gguf").write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"a\.gguf is not a complete GGUF file .*; copy it again"):
            load(tmp_path / "a.gguf")


def test_a_directory_needs_one_whole_file(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, "llama")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files; give one, as in .*a\.gguf"):
        load(tmp_path)
    (tmp_path / "a.gguf").rename(tmp_path / "a-00001-of-00002.gguf")
    with pytest.raises(ModelError, match="merge the parts with `llama-gguf-split --merge`"):
        load(tmp_path / "a-00001-of-00002.gguf")
    (tmp_path / "b.gguf").rename(tmp_path / "a-00002-of-00002.gguf")
    with pytest.raises(ModelError, match="merge the parts with `llama-gguf-split --merge`"):
        load(tmp_path)


def test_the_package_that_reads_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "a.gguf", "llama")
    monkeypatch.setattr("sinkscope.models.gguf.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"install the package that reads it, sinkscope\[gguf\]"):
        load(tmp_path)
