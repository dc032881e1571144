"""Bad models, for every command that loads one: exit code 2 and one error message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sinkscope.models.loading import is_incomplete_run
from sinkscope.schema import KINDS
from tests.guarantees import hostile
from tests.guarantees.apart import run_measured
from tests.guarantees.reading import COMMANDS, check_refused, sinkscope
from tests.guarantees.soak_log import attempt

MODELS = [*hostile.BAD_MODEL_FILES, *hostile.BAD_MODEL_CONFIGS]


@pytest.mark.usefixtures("once_and_in_soak")
@pytest.mark.parametrize("name", MODELS)
def test_bad_models_are_refused_by_every_command(
    name: str, good_inputs: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    path, out = tmp_path / "input", tmp_path / "out"
    hostile.broken_model(path, checkpoints["llama"], name)
    for arguments in COMMANDS["model"].values():
        with attempt("bad input", "models through commands"):
            check_refused(sinkscope(*arguments(path, good_inputs), "--out", out), out, str(path))


@pytest.mark.usefixtures("once_and_in_soak")
@pytest.mark.parametrize("name", hostile.NOT_FILES)
def test_paths_without_a_model_are_refused_by_every_command(
    name: str, good_inputs: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "input", tmp_path / "out"
    hostile.NOT_FILES[name](path)
    for arguments in COMMANDS["model"].values():
        with attempt("bad input", "models through commands"):
            check_refused(sinkscope(*arguments(path, good_inputs), "--out", out), out, str(path))


def test_an_unfinished_run_is_reported_without_a_request_to_the_hub(
    good_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs/x` could also be a name on the hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for left in (".x.0123456789abcdef.checkpoints", ".x.abc12345.partial"):
        (tmp_path / "runs" / left).mkdir()
        for arguments in COMMANDS["model"].values():
            outcome = sinkscope(*arguments(Path("runs/x"), good_inputs), "--out", tmp_path / "out")
            check_refused(outcome, tmp_path / "out", "run runs/x is not finished; start it again")
        (tmp_path / "runs" / left).rmdir()
    for left in (".x.lock", ".x.0123456789abcdef.lock", ".x.swp"):
        (tmp_path / "runs" / left).touch()
    assert not is_incomplete_run(Path("runs/x"))


def test_a_run_without_a_model_is_reported_with_its_kind(good_inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.mkdir()
    manifest = {"identity": "x", "kind": "evaluate", "schema": KINDS["evaluate"].version, "files": {}}
    (path / "run.json").write_text(json.dumps(manifest))
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, good_inputs), "--out", tmp_path / "out"),
            tmp_path / "out",
            f"{path} is a run of kind evaluate, which holds no model",
        )
    (path / "run.json").unlink()
    (path / "model").mkdir()
    for arguments in COMMANDS["model"].values():
        check_refused(
            sinkscope(*arguments(path, good_inputs), "--out", tmp_path / "out"),
            tmp_path / "out",
            f"{path}/run.json is missing",
        )


def test_an_unknown_model_name_gives_one_line(good_inputs: Path, tmp_path: Path) -> None:
    """With a hub address that does not respond: the messages of the library's retries are not printed."""
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "home"),
    }
    code, err, _, _ = run_measured(
        ["evaluate", "nobody/nothing-at-all", "--benchmark", "tiny", "--out", tmp_path / "out"],
        tmp_path,
        **environment,
    )
    assert (code, err.count("\n")) == (2, 1), err
    assert "model 'nobody/nothing-at-all' cannot be loaded" in err
