"""What a model's digest is made of."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import transformers

from sinkscope.errors import ModelError
from sinkscope.models import data_directory, digest
from sinkscope.runs import writing


def test_a_digest_is_that_of_the_files_and_not_of_their_place(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Literal: SHA-256 over names and hashes. A run directory stands for the model in it, and what is no part of a model does not count."""
    literal = hashlib.sha256()
    for path in sorted(checkpoints["llama"].iterdir()):
        if path.suffix in (".json", ".safetensors"):
            literal.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    assert digest(str(checkpoints["llama"])) == literal.hexdigest()
    with writing(tmp_path / "run", "name") as aside:
        shutil.copytree(checkpoints["llama"], aside / "model")
    (tmp_path / "run" / "model" / "README.md").write_text("about it")
    assert digest(str(tmp_path / "run")) == literal.hexdigest()
    assert digest("tiny") == digest(str(data_directory() / "target")) != digest("tiny-retrained")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_byte_of_weights_configuration_or_tokenizer_changes_it(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    before = digest(str(tmp_path / "model"))
    with (tmp_path / "model" / name).open("ab") as file:
        file.write(b" ")
    assert digest(str(tmp_path / "model")) != before


def test_of_the_hub_it_is_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.LlamaConfig()
    config._commit_hash = "0123abc"
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *arguments, **options: config)
    assert digest("owner/name") == "owner/name@0123abc"


def test_what_is_no_model_has_none(tmp_path: Path) -> None:
    for name, message in ((str(tmp_path), "no config.json"), ("/nowhere/at/all", "not there"), ("nobody/nothing-at-all", "cannot be loaded")):
        with pytest.raises(ModelError, match=message):
            digest(name)
