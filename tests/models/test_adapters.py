"""Adapters of PEFT are merged into their base model, or refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sinkscope.errors import ModelError, UserError
from sinkscope.models.loading import data_directory
from sinkscope.models.model import content_hash, load, load_meta_model

IDS = torch.tensor([[1, 20, 30, 40, 50]])


@pytest.fixture(scope="module")
def target() -> str:
    return str(data_directory("tiny") / "target")


@pytest.fixture(scope="module")
def adapter(target: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A trained LoRA on the built-in target, and the logits of PEFT's own model."""
    directory = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(load(target, "cpu").hf, config)
    optimizer = torch.optim.SGD([each for each in adapted.parameters() if each.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    adapted.eval().save_pretrained(directory)
    with torch.no_grad():
        return directory, adapted(input_ids=IDS).logits


def copied(adapter: tuple[Path, torch.Tensor], path: Path, **changes: object) -> Path:
    shutil.copytree(adapter[0], path)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | changes))
    return path


def test_the_merged_model_is_that_of_peft(adapter, target: str, tmp_path: Path) -> None:
    directory, expected = adapter
    model = load(directory, "cpu")
    plain = load(target, "cpu")
    with torch.no_grad():
        logits = model.hf(input_ids=IDS).logits
        assert (logits - plain.hf(input_ids=IDS).logits).abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert {name: weight.requires_grad for name, weight in model.hf.named_parameters()} == {
        name: True for name, _ in plain.hf.named_parameters()
    }
    model.save(tmp_path / "merged")
    assert load(tmp_path / "merged", "cpu").hf.state_dict().keys() == plain.hf.state_dict().keys()
    assert load_meta_model(str(directory))[0].num_parameters() == plain.hf.num_parameters()
    assert content_hash(str(directory)) != content_hash(target)


def test_another_base_can_be_given(adapter, target: str, tmp_path: Path) -> None:
    moved = copied(adapter, tmp_path / "moved", base_model_name_or_path="/nowhere/target")
    with pytest.raises(
        ModelError, match=r"its base model '/nowhere/target' cannot be loaded .*, or give `base`"
    ):
        load(moved, "cpu")
    with torch.no_grad():
        logits = load(moved, "cpu", base=target).hf(input_ids=IDS).logits
    torch.testing.assert_close(logits, adapter[1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match=r"'tiny' is not an adapter .* leave out `base`"):
        load("tiny", base=target)


def test_adapters_that_cannot_be_merged_are_refused(adapter, target: str, tmp_path: Path) -> None:
    for name, changes, message in (
        ("task", {"task_type": "SEQ_CLS"}, "for the task 'SEQ_CLS'"),
        ("layers", {"layer_replication": [[0, 2], [1, 3]]}, "replicates layers"),
        ("newer", {"future_key": 1}, "upgrade peft"),
        ("megatron", {"megatron_config": {"a": 1}}, "for Megatron"),
        ("nameless", {"base_model_name_or_path": None}, "names no base model"),
        ("itself", {"base_model_name_or_path": str(tmp_path / "itself")}, "is for another adapter"),
    ):
        with pytest.raises(ModelError, match=message):
            load(copied(adapter, tmp_path / name, **changes), "cpu")
    damaged = copied(adapter, tmp_path / "damaged")
    (damaged / "adapter_config.json").write_text("[")
    with pytest.raises(ModelError, match=r"adapter_config\.json is damaged"):
        load(damaged, "cpu")
    pickled = copied(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load(pickled, "cpu")
    prefix = get_peft_model(
        load(target, "cpu").hf, PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    )
    prefix.save_pretrained(tmp_path / "prefix")
    with pytest.raises(ModelError, match="cannot be merged into weights"):
        load(tmp_path / "prefix", "cpu")


def test_an_adapter_that_does_not_fit_is_refused(adapter, checkpoints, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not take it \(.*size mismatch for .*, or give `base`"):
        load(adapter[0], "cpu", base=str(checkpoints["llama"]))
    partial = copied(adapter, tmp_path / "partial")
    weights = load_file(partial / "adapter_model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, partial / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="does not fit it"):
        load(partial, "cpu")
    (partial / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged .*; copy it again"):
        load(partial, "cpu")
    both = copied(adapter, tmp_path / "both")
    (both / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds a model and an adapter"):
        load(both, "cpu")


def test_an_adapter_of_a_shared_weight_is_refused(checkpoints, tmp_path: Path) -> None:
    """GPT-2 uses one weight for its embedding and its output; PEFT merges into both."""
    base = load(checkpoints["gpt2"], "cpu").hf
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
    for module in ("wte", "lm_head"):
        config = LoraConfig(r=2, target_modules=["c_attn", module], task_type="CAUSAL_LM")
        get_peft_model(load(checkpoints["gpt2"], "cpu").hf, config).save_pretrained(tmp_path / module)
        with pytest.raises(ModelError, match=f"changes {module}, whose weight"):
            load(tmp_path / module, "cpu")
    config = LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(load(checkpoints["gpt2"], "cpu").hf, config).eval()
    adapted.save_pretrained(tmp_path / "fits")
    with torch.no_grad():
        expected = adapted(input_ids=IDS % 50).logits
        found = load(tmp_path / "fits", "cpu").hf(input_ids=IDS % 50).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_tokenizer_is_that_of_the_adapter_if_it_has_one(adapter, target: str, tmp_path: Path) -> None:
    own = copied(adapter, tmp_path / "own")
    tokenizer = load(target, "cpu").tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(own)
    for found in (load(own, "cpu").tokenizer, load_meta_model(str(own))[1]):
        assert found.pad_token == tokenizer.eos_token
    assert load(adapter[0], "cpu").tokenizer.pad_token != tokenizer.eos_token


def test_a_run_and_a_built_in_model_are_not_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "adapter_config.json").write_text("{}")
    (tmp_path / "tiny" / "a.gguf").write_text("")
    assert load("tiny", "cpu").n_layers == 4
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    (tmp_path / "run" / "a.gguf").write_text("")
    with pytest.raises(UserError, match=r"run\.json"):
        load("run", "cpu")
