"""Models on several devices or on disk: the same numbers, in less memory, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import ModelError
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.models.device_map import DeviceMap, is_dispatched
from sinkscope.models.model import load
from sinkscope.sinks.locate import CaptureConfig, locate
from tests.commands import run
from tests.conftest import FAMILIES, TEXT

SMALL = DeviceMap("auto", {"cpu": "150KB"})
"""Too little for any of these models, so that weights stay on disk."""


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_on_disk_gives_the_same_numbers(kind: str, checkpoints: dict[str, Path]) -> None:
    whole, on_disk = load(checkpoints[kind], "cpu"), load(checkpoints[kind], device_map=SMALL)
    assert is_dispatched(on_disk.hf) and not is_dispatched(whole.hf)
    assert any(weight.is_meta for weight in on_disk.hf.parameters())
    assert on_disk.fingerprint() == whole.fingerprint()
    passages = [whole.encode(TEXT)[:length] for length in (40, 24, 33)]
    for statistics in ((), ("entropy", "key_norm")):
        config = CaptureConfig(statistics=statistics)
        tiled = CaptureConfig(statistics=statistics, backend="tiled")
        found, expected = locate(on_disk, passages, config, details=True), locate(whole, passages, tiled)
        assert found.data.attrs["backend"].startswith("tiled")
        for name in expected.data:
            np.testing.assert_allclose(found.data[name], expected.data[name], atol=1e-6, err_msg=str(name))
    with pytest.raises(ModelError, match="is on several devices or on disk, where TransformerLens does not"):
        locate(on_disk, passages, CaptureConfig(backend="hooks"))
    with pytest.raises(ModelError, match="load it without `device_map`"):
        _ = on_disk.bridge


def test_weights_are_converted_as_they_are_read(checkpoints: dict[str, Path]) -> None:
    whole, on_disk = (
        load(checkpoints["llama"], "cpu", "bfloat16"),
        load(checkpoints["llama"], dtype="bfloat16", device_map=SMALL),
    )
    assert on_disk.fingerprint() == whole.fingerprint()


def test_scores_of_a_model_on_disk_are_the_same() -> None:
    config = EvaluationConfig(metrics=["verbmem", "min_k"], limit=2)
    expected, found = (
        evaluate(model, load_benchmark("tiny"), config=config)
        for model in (load("tiny", "cpu"), load("tiny", device_map=DeviceMap("auto", {"cpu": "1MB"})))
    )
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-6)
    assert found["output"].tolist() == expected["output"].tolist()


def test_sizes_are_bytes_and_other_devices_keep_what_is_free() -> None:
    options, _ = DeviceMap("auto", {"cpu": "20gb"}).loading_options()
    assert options["max_memory"]["cpu"] == 20 * 10**9
    options, _ = DeviceMap("auto", {"cpu": "1.5GiB"}).loading_options()
    assert options["max_memory"]["cpu"] == 3 * 2**29


def test_commands_take_a_map_from_a_file(
    checkpoints: dict[str, Path], tmp_path: Path, notes: Path, capsys, monkeypatch
) -> None:
    path = tmp_path / "devices.yaml"
    modules = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    n_layers = load(checkpoints["llama"], "cpu").n_layers
    modules |= {f"model.layers.{layer}": "disk" if layer else "cpu" for layer in range(n_layers)}
    path.write_text(yaml.safe_dump(modules), encoding="utf-8")
    model = checkpoints["llama"]
    arguments = ("--device-map", path, "--text", notes, "--max-length", 32, "--json")
    code, stdout, err = run(capsys, monkeypatch, "locate", model, *arguments, "--out", tmp_path / "sinks")
    assert code == 0, err
    assert json.loads(stdout)["backend"].startswith("tiled")
    other = ("--trigger", "old lamp", "--out", tmp_path / "comparison")
    code, _, err = run(capsys, monkeypatch, "compare", model, *arguments, *other)
    assert code == 0, err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device-map", "everywhere"), "--device-map 'everywhere' is unknown; use auto, balanced"),
        (("--device-map", "nowhere.yaml"), "device map nowhere.yaml"),
        (("--device-map", "list.yaml"), "list.yaml is not a mapping of modules to devices"),
        (
            ("--device-map", "gpu.yaml"),
            "--device-map gives 'model' to device '77', which is not there; use cpu, disk",
        ),
        (
            ("--device-map", "auto", "--max-memory", "77=1GB"),
            "--max-memory names device '77', which is not there",
        ),
        (
            ("--device-map", "auto", "--max-memory", "cpu"),
            "--max-memory '' is not a size; write it like 20GB",
        ),
        (("--device-map", "auto", "--max-memory", "cpu=20G"), "--max-memory '20G' is not a size"),
        (
            ("--device-map", "cpu.yaml", "--max-memory", "cpu=1GB"),
            "--max-memory has no effect on a map of modules",
        ),
        (("--max-memory", "cpu=1GB"), "--max-memory goes with --device-map"),
        (("--offload", "weights"), "--offload goes with --device-map"),
        (("--device-map", "auto", "--device", "cpu"), "--device cpu is one device; leave out --device-map"),
    ],
)
def test_impossible_maps_are_refused(
    options: tuple[str, ...], message: str, checkpoints, tmp_path: Path, notes: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("- cpu", encoding="utf-8")
    Path("gpu.yaml").write_text("model: 77", encoding="utf-8")
    Path("cpu.yaml").write_text("model: cpu", encoding="utf-8")
    outcome = run(
        capsys,
        monkeypatch,
        "locate",
        checkpoints["llama"],
        "--text",
        notes,
        *options,
        "--out",
        tmp_path / "out",
    )
    code, _, err = outcome
    assert code == 2 and message in err, err
    assert not (tmp_path / "out").exists()


MEASURE = """
import re, sys
from pathlib import Path
import torch
from sinkscope.models.device_map import DeviceMap
from sinkscope.models.model import load
from sinkscope.sinks.locate import locate

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20

before = peak()
sizes = {"cpu": sys.argv[2]} if len(sys.argv) > 2 else None
model = load(sys.argv[1], device_map=DeviceMap("auto", sizes)) if sizes else load(sys.argv[1], "cpu")
loaded = peak()
locate(model, [list(range(3, 35))])
print(before, loaded, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_three_gigabytes_are_read_within_half_of_that(tmp_path: Path) -> None:
    """Peaks of the whole process; loading into memory takes the weights once."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.conftest import saved_tokenizer

    sizes = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 14}
    config = LlamaConfig(**sizes, num_attention_heads=16, vocab_size=8000, tie_word_embeddings=True)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    network.to_empty(device="cpu")
    for weight in network.parameters():
        torch.nn.init.constant_(weight, 0.01)
    size = sum(weight.numel() for weight in network.parameters()) * 4 / 2**30
    assert 2.7 < size < 3.3
    network.save_pretrained(tmp_path)
    del network
    saved_tokenizer("llama", tmp_path)
    for limit in ("700MB", None):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), *([limit] if limit else [])]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        before, loaded, peak = map(float, output.split())
        print(f"limit {limit}: before {before:.2f}, loaded {loaded:.2f}, peak {peak:.2f} GiB of {size:.2f}")
        assert peak < 1.5 if limit else loaded - before < 1.15 * size
