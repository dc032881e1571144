"""Models: hashes, complete weights, batches, and a bridge that shares the weights."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sinkscope.errors import ModelError
from sinkscope.io.run_directory import create_run
from sinkscope.models.loading import data_directory
from sinkscope.models.model import Model, content_hash, load, load_meta_model
from tests.conftest import saved_tokenizer
from tests.sinks.families import CONFIGS, network


def test_a_content_hash_is_that_of_the_files_and_not_of_their_path(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Literal: SHA-256 over names and hashes. A run is named for its model, without other files."""
    literal = hashlib.sha256()
    for path in sorted(checkpoints["llama"].iterdir()):
        if path.suffix in (".json", ".safetensors"):
            literal.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    assert content_hash(str(checkpoints["llama"])) == literal.hexdigest()
    with create_run(tmp_path / "run", "name", kind="unlearn") as staging:
        shutil.copytree(checkpoints["llama"], staging / "model")
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


def test_configuration_and_tokenizer_are_part_of_the_fingerprint(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Otherwise cached results of another tokenizer or configuration would be used."""
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    assert load(str(tmp_path / "model")).fingerprint() == load(str(checkpoints["llama"])).fingerprint(), (
        "the directory does not count"
    )
    fingerprints = {load(str(tmp_path / "model")).fingerprint()}
    for name, change in (
        ("config.json", {"rms_norm_eps": 1e-3}),
        ("tokenizer_config.json", {"model_max_length": 7}),
        ("generation_config.json", {"top_k": 3}),
    ):
        path = tmp_path / "model" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        fingerprints.add(load(str(tmp_path / "model")).fingerprint())
    assert len(fingerprints) == 4


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


def test_no_memory_is_allocated_for_more_weights_than_the_files_hold(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every size is below the number of weights, and together they ask for far more."""
    shutil.copytree(checkpoints["llama"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 40_000}))
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *arguments, **options: pytest.fail("memory was allocated"),
    )
    with pytest.raises(ModelError, match=r"has 48,864 weights, and its config.json asks for 11,5"):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_are_enough_in_every_family(kind: str, tmp_path: Path) -> None:
    """Tied and fused ones too: nothing of a complete checkpoint is missing."""
    made = network(kind)
    made.save_pretrained(tmp_path)
    saved_tokenizer("llama", tmp_path)
    assert (
        load(str(tmp_path)).hf.num_parameters()
        == load_meta_model(str(tmp_path))[0].num_parameters()
        == made.num_parameters()
    )


def test_the_content_hash_of_a_hub_model_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = transformers.LlamaConfig()
    config._commit_hash = "0123abc"
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *arguments, **options: config)
    assert content_hash("owner/name") == "owner/name@0123abc"


def test_other_paths_have_no_content_hash(tmp_path: Path) -> None:
    for name, message in (
        (str(tmp_path), "no config.json"),
        ("/nowhere/at/all", "does not exist"),
        ("nobody/nothing-at-all", "cannot be loaded"),
    ):
        with pytest.raises(ModelError, match=message):
            content_hash(name)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_bridge_shares_the_weights_of_the_model(kind: str, tmp_path: Path) -> None:
    """Booting leaves the model's outputs, parameters, attention and file names as they were."""
    tokenizer = saved_tokenizer("neox", tmp_path)
    model, tokens = Model(kind, network(kind), tokenizer), torch.arange(3, 23)[None]
    names, attention = list(model.hf.state_dict()), model.hf.config._attn_implementation
    parameters = list(model.hf.parameters())
    with torch.no_grad():
        expected = model.hf(tokens).logits
        model.bridge.run_with_hooks(tokens, return_type=None)
        assert torch.equal(model.hf(tokens).logits, expected)
    assert list(model.hf.state_dict()) == names
    assert model.hf.config._attn_implementation == attention
    assert all(one is other for one, other in zip(model.hf.parameters(), parameters, strict=True))
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in parameters}
    bridged = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in model.bridge.parameters()
    }
    copied = sum(size for pointer, size in bridged.items() if pointer not in storages)
    if kind in ("neox", "bloom"):  # their fused projections are split
        assert 0 < copied <= sum(storages.values()) / 4
    else:
        assert copied == 0
        assert storages.keys() <= bridged.keys()
    model.save(tmp_path / "saved")
    again = load(str(tmp_path / "saved"), device="cpu").hf
    assert all(
        torch.equal(again.state_dict()[name], tensor) for name, tensor in model.hf.state_dict().items()
    )


@pytest.mark.parametrize("kind", ["llama", "neox"])
@pytest.mark.parametrize("way", ["in place", "data", "replaced"])
def test_the_bridge_reads_the_current_weights(kind: str, way: str, small_models: dict[str, Model]) -> None:
    """GPT-NeoX has copies in its bridge."""
    model, tokens = copy.deepcopy(small_models[kind]), torch.arange(3, 23)[None]
    with torch.no_grad():
        before = model.bridge(tokens)
        assert model.bridge is model.bridge
        for name, parameter in list(model.hf.named_parameters()):
            if way == "replaced":
                module, _, attribute = name.rpartition(".")
                setattr(model.hf.get_submodule(module), attribute, torch.nn.Parameter(parameter * 1.1))
            else:
                (parameter if way == "in place" else parameter.data).mul_(1.1)
        after = model.bridge(tokens)
        torch.testing.assert_close(after, model.hf(tokens).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)


def test_weights_that_are_no_numbers_are_refused(small_llama: Model, tmp_path: Path) -> None:
    model = copy.deepcopy(small_llama)
    with torch.no_grad():
        model.hf.model.layers[1].mlp.up_proj.weight[3, 4] = torch.inf
    model.save(tmp_path)
    with pytest.raises(ModelError, match=r"infinite or NaN weights, first in model\.layers\.1\.mlp\.up_proj"):
        load(str(tmp_path), device="cpu")


def test_loading_changes_no_log_levels(checkpoints: dict[str, Path]) -> None:
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "sinkscope", None)]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    has_progress_bars = transformers.utils.logging.is_progress_bar_enabled()
    load(str(checkpoints["llama"]), device="cpu")
    assert [(logger.level, list(logger.handlers)) for logger in loggers] == before
    assert transformers.utils.logging.is_progress_bar_enabled() == has_progress_bars


def test_batches_hold_every_passage_once_and_pad_on_either_side(small_models: dict[str, Model]) -> None:
    passages = [[5, 6, 7], [8], [9, 10]]
    for side, spans in (
        ("right", [range(3), range(1), range(2)]),
        ("left", [range(3), range(2, 3), range(2)]),
    ):
        batches = list(small_models["llama"].batches(passages, 2, side=side))
        assert [batch.spans for batch in batches] == [spans[:2], spans[2:]]
        rows = [
            row for batch in batches for row in zip(batch.ids, batch.mask, batch.position_ids, strict=True)
        ]
        for (ids, mask, positions), passage in zip(rows, passages, strict=True):
            assert ids[mask].tolist() == passage
            assert positions[mask].tolist() == list(range(len(passage)))


def test_a_token_without_an_embedding_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer of another model: torch would say that an index is out of range."""
    directory = Path(shutil.copytree(checkpoints["llama"], tmp_path / "model"))
    model = load(str(directory), device="cpu")
    n_embeddings = model.hf.get_input_embeddings().weight.shape[0]
    model.tokenizer.add_tokens([f"unusual{number}" for number in range(n_embeddings)])
    assert len(model.encode("usual")) > 1
    with pytest.raises(ModelError, match=r"gives the id \d+, but there are \d+ embeddings; save the tok"):
        model.encode(f"unusual{n_embeddings - 1}")
    with pytest.raises(ModelError, match="gives the id 99999, but there are"):
        list(model.batches([[1, 2, 3], [1, 99_999]], 2))


def test_paths_are_taken_as_paths_or_text(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = load(checkpoints["llama"], device="cpu")
    assert model.name == str(checkpoints["llama"])
    model.save(str(tmp_path / "copy"))
    saved = load(tmp_path / "copy", device="cpu").hf.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.hf.state_dict().items())


def test_scaled_rotary_positions_raise_the_limit(small_llama: Model) -> None:
    """As by YaRN in Qwen2.5, whose `max_position_embeddings` stays as it was."""
    model = copy.deepcopy(small_llama)
    assert model.max_positions == 128
    model.hf.config.rope_parameters |= {"factor": 4.0, "original_max_position_embeddings": 128}
    assert model.max_positions == 512
    model.hf.config.rope_parameters |= {"factor": 8.0, "original_max_position_embeddings": 8}
    assert model.max_positions == 128
