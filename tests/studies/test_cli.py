"""The command `sinkscope study`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from sinkscope.schema import version_of
from tests.commands import check_refused, run
from tests.studies.small import EVALUATIONS, FEW

SPEC: dict[str, Any] = {
    "seeds": [0, 1],
    "quick": {"seeds": [0]},
    "evaluations": {"few": {"metrics": ["verbmem"], "limit": 3}},
    "grids": {
        "unlearned": {"set": FEW | {"poison_ratio": 0}, "evaluations": ["few"]},
        "target": {"models": ["tiny"], "evaluations": ["few"]},
    },
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write(tmp_path / "spec.yaml", SPEC)


def write(path: Path, values: Any) -> Path:
    unshared = json.loads(json.dumps(values))  # YAML writes shared objects as aliases, which are refused
    path.write_text(yaml.safe_dump(unshared, sort_keys=False))
    return path


def test_a_dry_run_counts_before_and_after(spec: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    options = [spec, "--out", tmp_path / "out", "--store", tmp_path / "store"]

    def grids(*more: str) -> list[tuple[str, int, int, int, bool]]:
        code, stdout, err = run(capsys, monkeypatch, "study", *options, "--dry-run", "--json", *more)
        assert (code, err) == (0, ""), err
        result = json.loads(stdout)
        assert (result["out"], result["store"]) == (str(tmp_path / "out"), str(tmp_path / "store"))
        return [
            (each["grid"], each["runs"], each["jobs"], each["done"], each["minutes"] > 0)
            for each in result["grids"]
        ]

    assert grids() == [("unlearned", 2, 4, 0, True), ("target", 1, 1, 0, True)]
    assert grids("--quick") == [("unlearned", 1, 2, 0, True), ("target", 1, 1, 0, True)]
    assert not (tmp_path / "out").exists() and not (tmp_path / "store").exists()
    code, stdout, err = run(capsys, monkeypatch, "study", *options, "--quick", "--json")
    assert code == 0
    assert json.loads(stdout) == {
        "out": str(tmp_path / "out"),
        "store": str(tmp_path / "store"),
        "runs": 2,
        "jobs": 3,
    }
    lines = err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "[1/3] unlearn unlearned seed 0",
        "[2/3] evaluate unlearned seed 0",
        "[3/3] evaluate target seed 0",
    ]
    assert lines[-1].endswith("less than a minute left")
    assert grids("--quick") == [("unlearned", 1, 2, 2, False), ("target", 1, 1, 1, False)]
    assert grids() == [("unlearned", 2, 4, 2, True), ("target", 1, 1, 1, False)]
    code, stdout, _ = run(capsys, monkeypatch, "study", *options, "--dry-run")
    table = [line.split() for line in stdout.splitlines()[:4]]
    assert code == 0
    assert [row[:4] for row in table] == [
        ["grid", "runs", "jobs", "done"],
        ["unlearned", "2", "4", "2"],
        ["target", "1", "1", "1"],
        ["all", "3", "5", "3"],
    ]


def test_a_changed_specification_replaces_the_old_study(
    spec: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    out, options = tmp_path / "out", ["--out", tmp_path / "out", "--store", tmp_path / "store"]
    assert run(capsys, monkeypatch, "study", spec, *options, "--quick")[0] == 0
    assert pd.read_parquet(out / "runs.parquet")["grid"].tolist() == ["unlearned", "target"]
    (out / "old").write_text("somebody's notes")
    smaller = SPEC | {"grids": {"book": SPEC["grids"]["target"]}}
    code, _, err = run(capsys, monkeypatch, "study", write(spec, smaller), *options)
    assert (
        code == 2 and "holds a file that is not the study's (old); move it" in err and (out / "old").exists()
    )
    (out / "old").unlink()
    code, _, err = run(capsys, monkeypatch, "study", spec, *options)
    assert (code, err) == (0, ""), "the one job is done already"
    assert pd.read_parquet(out / "runs.parquet")["grid"].tolist() == ["book"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "store", spec.name}, (
        "nothing of the old study remains"
    )
    written = (out / "run.json").stat().st_mtime_ns
    assert run(capsys, monkeypatch, "study", spec, *options)[0] == 0
    assert (out / "run.json").stat().st_mtime_ns == written


def test_an_output_that_holds_something_else_is_left_alone(
    spec: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    (tmp_path / "other run").mkdir()
    (tmp_path / "other run" / "run.json").write_text(
        json.dumps({"identity": "x", "files": {}, "kind": "unlearn", "schema": version_of("unlearn")})
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    reasons = {
        "files": "is not empty and holds no run",
        "file": "is a file; give a directory",
        "other run": "holds another run's results",
    }
    for name, reason in reasons.items():
        code, stdout, err = run(
            capsys, monkeypatch, "study", spec, "--out", tmp_path / name, "--store", tmp_path / "store"
        )
        assert (code, stdout, err.count("\n")) == (2, "", 1), err
        assert reason in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "store").exists(), "nothing was done before"


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (SPEC | {"sedes": [1]}, [], "study key 'sedes' is unknown; did you mean 'seeds'?"),
        (SPEC, ["--executor", "slurm"], "'slurm' is not one of 'local', 'ray'"),
        (
            {"grids": {"a": {"recipe": "tiny/nop"}}},
            [],
            "grid 'a': recipe 'tiny/nop' is neither a file nor a known name; did you mean 'tiny/npo'?",
        ),
        ({"grids": {"a": {}}}, ["--quick"], "has no quick version"),
        (
            {"models": {"sink-1": {}}, "grids": {"a": {"models": ["sink-2"]}}},
            [],
            "study grid 'a': model 'sink-2' cannot be loaded: there is no such directory",
        ),
        (
            {"models": {"sink-1": {}}, "grids": {"a": {"axes": {"model": ["tiny", "sink1"]}}}},
            [],
            "check the name; did you mean 'sink-1'?",
        ),
        (
            {
                "grids": {"a": {"models": ["./nowhere/else"], "evaluations": ["few"]}},
                "evaluations": EVALUATIONS,
            },
            [],
            "model './nowhere/else' does not exist; give a directory, a GGUF file, a hub id, `smollm2` or "
            "`tiny`; known names: tiny",
        ),
        (
            {"grids": {"a": {"models": ["tiny"], "evaluations": ["fw"]}}, "evaluations": EVALUATIONS},
            [],
            "grid 'a' names evaluation 'fw', which is not in `evaluations`; known: few",
        ),
        (
            {"grids": {"a": {"models": ["tiny"], "captures": ["heads"]}}},
            [],
            "grid 'a' names capture 'heads', which is not in `captures`; known: none",
        ),
        (
            {"grids": {"a": {"models": ["tiny"], "compare_to": "b"}, "b": {"models": ["tiny"]}}},
            [],
            "grid 'a' is compared to 'b', which is not this grid or one above it; known: a",
        ),
        ([], [], "is not a mapping of keys to values"),
    ],
)
def test_a_wrong_study_is_one_line_and_exit_code_2(
    values, arguments, message, tmp_path: Path, capsys, monkeypatch
) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    path = write(tmp_path / "spec.yaml", values)
    check_refused(
        run(capsys, monkeypatch, "study", path, "--out", out, "--store", store, *arguments), message, out
    )
    check_refused(
        run(capsys, monkeypatch, "study", path, "--out", out, "--store", store, "--dry-run", *arguments),
        message,
        out,
    )
    assert not store.exists()


def test_a_failed_job_is_reported_and_the_others_run(tmp_path: Path, capsys, monkeypatch) -> None:
    """A mask that exceeds the prompts is only detected when the job runs."""
    evaluations = {
        "few": SPEC["evaluations"]["few"],
        "masked": SPEC["evaluations"]["few"] | {"mask": "shallow:900"},
    }
    path = write(
        tmp_path / "spec.yaml",
        {
            "evaluations": evaluations,
            "grids": {"book": {"models": ["tiny"], "evaluations": ["masked", "few"]}},
        },
    )
    code, stdout, err = run(
        capsys, monkeypatch, "study", path, "--out", tmp_path / "out", "--store", tmp_path / "store"
    )
    lines = err.splitlines()
    assert (code, stdout, len(lines)) == (2, "", 3)
    assert lines[0].startswith("failed: evaluate book seed 0: mask shallow:900 exceeds a prompt")
    assert lines[1].startswith("[2/2] evaluate book seed 0")
    assert lines[2].startswith(
        "sinkscope: 1 of 2 jobs failed, first evaluate book seed 0: mask shallow:900 exceeds"
    )
    assert len(list((tmp_path / "store").glob("*/run.json"))) == 1 and not (tmp_path / "out").exists()


def test_by_default_a_study_is_written_next_to_its_store(
    spec: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for quick, name in ((["--quick"], "spec-quick"), ([], "spec")):
        code, stdout, _ = run(capsys, monkeypatch, "study", "spec.yaml", *quick, "--dry-run", "--json")
        assert code == 0 and {key: json.loads(stdout)[key] for key in ("out", "store")} == {
            "out": f"studies/{name}",
            "store": "studies/store",
        }
