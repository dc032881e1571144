"""Checkpoints quantized by compressed-tensors and bitsandbytes, on a CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sinkscope.errors import ModelError
from sinkscope.models import quantized
from sinkscope.models.device_map import DeviceMap
from sinkscope.models.model import load
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn
from tests.commands import run

TINY = Path(__file__).parents[2] / "data" / "tiny" / "target"


def save(network: torch.nn.Module, directory: Path) -> None:
    network.save_pretrained(directory)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(directory)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in target with 8-bit weights, a scale for each row, as compressed-tensors stores them."""
    library = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.compressors import ModelCompressor

    network = AutoModelForCausalLM.from_pretrained(TINY)
    weights = library.QuantizationArgs(num_bits=8, type="int", strategy="channel", symmetric=True)
    scheme = library.QuantizationScheme(targets=["Linear"], weights=weights)
    config = library.QuantizationConfig(
        config_groups={"group_0": scheme},
        ignore=["lm_head"],
        quantization_status="frozen",
        format="int-quantized",
    )
    library.apply_quantization_config(network, config)
    for module in network.modules():
        if getattr(module, "quantization_scheme", None):
            module.weight_scale.data = module.weight.detach().abs().amax(1, keepdim=True) / 127
    compressor = ModelCompressor.from_pretrained_model(network)
    compressor.compress_model(network)
    directory = tmp_path_factory.mktemp("compressed")
    save(network, directory)
    compressor.update_config(str(directory))
    return directory


@pytest.fixture(scope="module", params=["8bit", "4bit"])
def bitsandbytes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(**{f"load_in_{request.param}": True})
    network = AutoModelForCausalLM.from_pretrained(TINY, quantization_config=config)
    directory = tmp_path_factory.mktemp(request.param)
    save(network, directory)
    return directory


def test_compressed_weights_are_scale_times_integer(compressed: Path) -> None:
    model = load(compressed, "cpu")
    stored = load_file(compressed / "model.safetensors")
    scales = {name: scale for name, scale in stored.items() if name.endswith("weight_scale")}
    assert len(scales) > 10
    state = model.hf.state_dict()
    for name, scale in scales.items():
        weight = name.removesuffix("_scale")
        packed = (
            stored[f"{weight}_packed"].contiguous().view(torch.uint8)
        )  # four to an int32, 128 stands for 0
        integers = (packed.int() - 128)[:, : state[weight].shape[1]]
        assert integers.abs().max() == 127
        torch.testing.assert_close(state[weight], integers * scale.float(), rtol=1e-6, atol=0)


def test_weights_of_bitsandbytes_are_what_it_stores(bitsandbytes: Path) -> None:
    """8 bits: integers times the row's largest weight / 127; 4 bits: as its own function unpacks them."""
    model = load(bitsandbytes, "cpu")
    stored = load_file(bitsandbytes / "model.safetensors")
    state = model.hf.state_dict()
    names = [
        name for name, weight in stored.items() if name.endswith("weight") and not weight.is_floating_point()
    ]
    assert len(names) > 10
    quantized_network = AutoModelForCausalLM.from_pretrained(bitsandbytes)
    for name in names:
        if stored[name].dtype == torch.int8:
            largest = stored[f"{name.removesuffix('weight')}SCB"]
            expected = stored[name].float() * largest[:, None].float() / 127
        else:
            weight = quantized_network.get_submodule(name.removesuffix(".weight")).weight
            from bitsandbytes.functional import dequantize_4bit

            expected = dequantize_4bit(weight.data, weight.quant_state)
        torch.testing.assert_close(state[name], expected.float(), rtol=1e-2, atol=1e-4)


def test_every_command_works_and_a_run_is_an_ordinary_model(
    compressed: Path, tmp_path: Path, notes: Path, capsys, monkeypatch
) -> None:
    out = tmp_path / "sinks"
    arguments = ("--text", notes, "--max-length", 32, "--out", out, "--json")
    code, stdout, err = run(capsys, monkeypatch, "locate", compressed, *arguments)
    assert code == 0 and not err, err
    assert json.loads(stdout)["passages"] > 0
    model = load(compressed, "cpu")
    passages = [model.encode("the old captain walked to the harbour and sat down there")]
    alphas = [locate(model, passages, CaptureConfig(backend=name)).alpha for name in ("hooks", "tiled")]
    torch.testing.assert_close(*(torch.tensor(alpha.values) for alpha in alphas), rtol=1e-4, atol=1e-5)
    recipe = Recipe.parse({"model": str(compressed), "optimizer": {"epochs": 1, "steps_per_epoch": 1}})
    path = unlearn(recipe, tmp_path / "run") / "model"
    assert "quantization_config" not in json.loads((path / "config.json").read_text(encoding="utf-8"))
    assert {each.dtype for each in load_file(path / "model.safetensors").values()} == {torch.float32}


def test_a_missing_package_is_named_with_its_extra(compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"is quantized by compressed-tensors; install .*, sinkscope\[quantized\]"
    ):
        load(compressed, "cpu")
    monkeypatch.setattr(quantized, "find_spec", importlib.util.find_spec)
    with pytest.raises(
        ModelError, match="is quantized, and dequantized on one device; leave out `device_map`"
    ):
        load(compressed, device_map=DeviceMap())


def test_a_method_that_is_not_known_is_refused_in_one_line(compressed: Path, tmp_path: Path) -> None:
    for file in compressed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "runes"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot be loaded: .*runes"):
        load(tmp_path, "cpu")
