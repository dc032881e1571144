"""A model sharded over two processes against one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sinkscope import load
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.run import unlearn

WORKER = Path(__file__).parent / "sharded_worker.py"
ROOT = Path(__file__).parents[2]
OPTIMIZER = {"epochs": 3, "steps_per_epoch": 2, "batch_size": 5}
RECIPES = {
    "npo": {"poison_ratio": 0.1, "optimizer": OPTIMIZER, "value_norms": {"kind": "cosine", "weight": 0.05}},
    "rmu": {
        "poison_ratio": 0.1,
        "optimizer": OPTIMIZER | {"gradient_accumulation_steps": 2, "gradient_checkpointing": True},
        "objective": {"forget": "rmu", "retain": {"activations": 10.0}},
    },
    "lora": {
        "poison_ratio": 0.1,
        "optimizer": OPTIMIZER | {"learning_rate": 1e-3},
        "update": {"modules": ["q_proj"], "lora": {"rank": 4}},
    },
}


def together(cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes, on the CPU, that talk by gloo."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        *map(str, arguments),
    ]
    environment = os.environ | {
        "SINKSCOPE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_two_processes_give_the_weights_of_one(kind: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path / "cache"))
    recipe = Recipe.parse(RECIPES[kind])
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    alone = unlearn(recipe, tmp_path / "alone")
    stopped = together(tmp_path / "cache2", WORKER, path, tmp_path / "run", tmp_path / "first", 5)
    assert stopped.returncode != 0 and not (tmp_path / "run").exists()
    (folder,) = tmp_path.glob(".run.*.checkpoints")
    assert sorted(p.name for p in folder.glob("step-00000004/*")) == [
        "rank-0.safetensors",
        "rank-1.safetensors",
        "state.json",
    ]
    done = together(tmp_path / "cache2", WORKER, path, tmp_path / "run", tmp_path / "second", 0)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "second-steps.json").read_text()) == [5, 6], "from the checkpoint on"
    shapes = [json.loads((tmp_path / f"second-{rank}.json").read_text()) for rank in (0, 1)]
    for name, (sharded, here, whole) in shapes[0].items():
        assert sharded and here < whole and here + shapes[1][name][1] == whole
    before = load("tiny").hf.state_dict()
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, tmp_path / "run"))
    assert one.keys() == two.keys()
    moved = sum((one[name] - before[name]).square().sum() for name in one).sqrt()
    apart = sum((one[name] - two[name]).square().sum() for name in one).sqrt()
    assert 0 < apart < 0.02 * moved or torch.equal(apart, torch.zeros(()))
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (alone, tmp_path / "run")
    ]
    for a, b in zip(*logs, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_the_command_line_shards_and_one_process_prints(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.parse(RECIPES["rmu"]).to_yaml())
    done = together(
        tmp_path / "cache", "-m", "sinkscope", "unlearn", path, "--out", tmp_path / "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert done.stdout.count('"model"') == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_accelerate_launch_shards_over_gpus(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.parse(RECIPES["npo"]).to_yaml())
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "-m",
        "sinkscope",
        "unlearn",
        str(path),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
