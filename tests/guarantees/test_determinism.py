"""The same recipe gives the same bytes on one machine, in any process, and nearly the same numbers on others.

Other processors sum in another order, so that the last digits of results differ. The tolerances there are
relative to the largest value of a column: 1e-4 for measurements of an existing model, 5e-2 for measurements
of a model that was trained on that machine. The distance between the weights of two such models is below 1e-2
of the distance that training has moved them.

The other machine is simulated: PyTorch and MKL use no wide vector instructions, and two threads. Neither
another processor nor a GPU is tested. The quickstart is a study that takes minutes; it is not run twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.evaluate import EvaluationConfig, evaluate
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.models.loading import data_directory
from sinkscope.models.model import load
from tests.guarantees.conftest import UninterruptedRun
from tests.guarantees.soak_log import attempt
from tests.guarantees.writing import COMMANDS, OTHERS, arguments, assert_same, contents

PROCESSES, SOAK_PROCESSES = 1, 8
FIXED_TOLERANCE, TRAINED_TOLERANCE, WEIGHTS_TOLERANCE = 1e-4, 5e-2, 1e-2
TRAINING = ("unlearn", "study")
ALL_COMMANDS = [*COMMANDS, *OTHERS]
MODEL_COMMANDS = [name for name in ALL_COMMANDS if name != "report"]
"""The commands that run a model."""
OTHER_MACHINE = {
    "OMP_NUM_THREADS": "2",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
"""Environment variables that simulate another machine."""
SCRIPT = """
import json, os, sys
from sinkscope.cli import main
for cache, arguments in json.loads(sys.argv[1]):
    os.environ["SINKSCOPE_CACHE"] = cache
    sys.argv = ["sinkscope", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
UninterruptedRuns = Callable[[str], UninterruptedRun]


def run_in_one_process(names: Iterable[str], inputs: Path, root: Path, variables: dict[str, str]) -> None:
    """Run commands in one new process, each in the directory `root / name`.

    The process uses as many threads as there are cores unless `variables` set another number.
    """
    for name in names:
        (root / name).mkdir(parents=True)
    calls = [(str(root / name / "cache"), arguments(name, inputs, root / name)) for name in names]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | variables
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(calls)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [PROCESSES, pytest.param(SOAK_PROCESSES, marks=pytest.mark.soak)])
def test_another_process_writes_the_same_bytes(
    count: int, inputs: Path, uninterrupted: UninterruptedRuns, tmp_path: Path
) -> None:
    """With one thread and another hash seed. For resumed training see test_crash.py."""
    for number in range(count):
        names = ALL_COMMANDS if number < 2 else COMMANDS
        with attempt("determinism", "commands in other processes", len(names)):
            root = tmp_path / str(number)
            run_in_one_process(
                names, inputs, root, {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(number + 1)}
            )
            for name in names:
                assert_same(contents(root / name), uninterrupted(name).contents)


def test_another_process_on_as_many_threads_writes_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    for number in "12":
        run_in_one_process(MODEL_COMMANDS, inputs, tmp_path / number, {"PYTHONHASHSEED": number})
    for name in MODEL_COMMANDS:
        assert_same(contents(tmp_path / "1" / name), contents(tmp_path / "2" / name))


def test_another_machine_differs_in_the_last_digits(
    inputs: Path, uninterrupted: UninterruptedRuns, tmp_path: Path
) -> None:
    run_in_one_process(MODEL_COMMANDS, inputs, tmp_path, OTHER_MACHINE)
    base = load_file(data_directory() / "target" / "model.safetensors")
    for name in MODEL_COMMANDS:
        here, there = uninterrupted(name).workdir, tmp_path / name
        tables = sorted(path.relative_to(here) for path in here.rglob("*.parquet"))
        assert tables, name
        for table in tables:
            assert_close(
                pd.read_parquet(here / table),
                pd.read_parquet(there / table),
                TRAINED_TOLERANCE if name in TRAINING else FIXED_TOLERANCE,
            )
        for weights in sorted(path.relative_to(here) for path in here.rglob("model/model.safetensors")):
            a, b = load_file(here / weights), load_file(there / weights)
            assert distance(a, b) < WEIGHTS_TOLERANCE * distance(a, base)


def distance(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(a[name] - b[name], dtype=np.float64).sum() for name in a)))


def assert_close(a: pd.DataFrame, b: pd.DataFrame, tolerance: float) -> None:
    """Check that numbers differ by at most `tolerance` of the column's largest, and the rest is equal."""
    assert list(a.columns) == list(b.columns) and len(a) == len(b)
    for column in a:
        if pd.api.types.is_float_dtype(a[column]):
            largest = max(1e-12, float(a[column].abs().max()))
            np.testing.assert_allclose(
                a[column].astype(float),
                b[column].astype(float),
                atol=tolerance * largest,
                rtol=0,
                err_msg=str(column),
            )
        else:
            pd.testing.assert_series_equal(a[column], b[column])


def test_another_attention_implementation_differs_in_the_last_digits() -> None:
    model, benchmark = load("tiny", "cpu"), load_benchmark("tiny").limit(8)
    frames = {}
    for implementation in ("eager", "sdpa"):
        model.hf.set_attn_implementation(implementation)
        frames[implementation] = evaluate(
            EvaluatedModel("tiny", "target", model, 0, None),
            benchmark,
            config=EvaluationConfig(metrics=["verbmem", "min_k"], batch_size=8),
        )
    assert_close(frames["eager"], frames["sdpa"], FIXED_TOLERANCE)
