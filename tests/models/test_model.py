"""What a model's digest is made of."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file, save_file

from sinkscope.errors import ModelError
from sinkscope.io.run_directory import create_run
from sinkscope.models.model import content_hash, data_directory, load, load_meta_model
from tests.conftest import saved_tokenizer
from tests.sinks.families import CONFIGS, network


def test_a_digest_is_that_of_the_files_and_not_of_their_place(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Literal: SHA-256 over names and hashes. A run directory stands for the model in it, and what is no part of a model does not count."""
    literal = hashlib.sha256()
    for path in sorted(checkpoints["llama"].iterdir()):
        if path.suffix in (".json", ".safetensors"):
            literal.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    assert content_hash(str(checkpoints["llama"])) == literal.hexdigest()
    with create_run(tmp_path / "run", "name", kind="unlearn") as aside:
        shutil.copytree(checkpoints["llama"], aside / "model")
    (tmp_path / "run" / "model" / "README.md").write_text("about it")
    assert content_hash(str(tmp_path / "run")) == literal.hexdigest()
    assert (
        content_hash("tiny")
        == content_hash(str(data_directory() / "target"))
        != content_hash("tiny-retrained")
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_byte_of_weights_configuration_or_tokenizer_changes_it(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    before = content_hash(str(tmp_path / "model"))
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"~" if name.endswith(".safetensors") else content + b" ")
    assert content_hash(str(tmp_path / "model")) != before


def test_what_reads_the_weights_is_part_of_a_models_fingerprint(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Else results of another tokenizer or configuration would be taken for those of this one."""
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    assert load(str(tmp_path / "model")).fingerprint() == load(str(checkpoints["llama"])).fingerprint(), (
        "wherever it lies"
    )
    seen = {load(str(tmp_path / "model")).fingerprint()}
    for name, change in (
        ("config.json", {"rms_norm_eps": 1e-3}),
        ("tokenizer_config.json", {"model_max_length": 7}),
        ("generation_config.json", {"top_k": 3}),
    ):
        path = tmp_path / "model" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        seen.add(load(str(tmp_path / "model")).fingerprint())
    assert len(seen) == 4


def test_a_built_in_models_fingerprint_is_that_of_its_weights() -> None:
    """Literal, so that results made with it keep their names."""
    model, literal = load("tiny"), hashlib.sha256()
    for name, tensor in sorted(model.hf.state_dict().items()):
        literal.update(name.encode() + tensor.numpy().tobytes())
    assert model.fingerprint() == literal.hexdigest()


def test_weights_that_are_missing_are_not_drawn_at_random(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    removed = weights.pop(next(name for name in sorted(weights) if "down_proj" in name))
    save_file(weights | {"more": removed.clone()}, path, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 of the weights that its config.json asks for, first .*down_proj"
    ):
        load(str(tmp_path / "model"))


def test_no_room_is_made_for_more_weights_than_there_are(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every size is below the count of all weights, and still they come to far more."""
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 40_000}))
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *arguments, **options: pytest.fail("room was made"),
    )
    with pytest.raises(ModelError, match=r"has 48,864 weights, and its config.json asks for 11,5"):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_are_enough_in_every_family(kind: str, tmp_path: Path) -> None:
    """Tied and fused ones too: nothing of a whole checkpoint is missing."""
    made = network(kind)
    made.save_pretrained(tmp_path)
    saved_tokenizer("llama", tmp_path)
    assert (
        load(str(tmp_path)).hf.num_parameters()
        == load_meta_model(str(tmp_path))[0].num_parameters()
        == made.num_parameters()
    )


def test_of_the_hub_it_is_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.LlamaConfig()
    config._commit_hash = "0123abc"
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *arguments, **options: config)
    assert content_hash("owner/name") == "owner/name@0123abc"


def test_what_is_no_model_has_none(tmp_path: Path) -> None:
    for name, message in (
        (str(tmp_path), "no config.json"),
        ("/nowhere/at/all", "not there"),
        ("nobody/nothing-at-all", "cannot be loaded"),
    ):
        with pytest.raises(ModelError, match=message):
            content_hash(name)
