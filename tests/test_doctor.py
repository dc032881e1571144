"""`sinkscope doctor`: what it finds is so, and what is wrong is told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from sinkscope import environment as doctor
from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.sinks.sink_map import SinkMap
from tests.commands import run

ROOT = Path(__file__).parents[1]


def test_all_is_well_here(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path / "cache"))
    code, stdout, err = run(capsys, monkeypatch, "doctor", "--json")
    found = json.loads(stdout)
    assert (code, err) == (0, ""), err
    assert found["packages"]["torch"] == torch.__version__
    assert found["devices"]["cpu"] == ["float32", "bfloat16", "float16"]
    assert found["threads"] == torch.get_num_threads()
    assert found["cache"] == {"directory": str(tmp_path / "cache"), "writable": True, "refusal": None}
    assert [check["what"] for check in found["self_test"]] == [doctor.LOADS, *doctor.WORK]
    assert found["well"] and all(check["passed"] for check in found["self_test"])


def test_every_extra_has_a_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(doctor.EXTRAS) == list(project["optional-dependencies"])


def test_requirements_that_are_not_met_are_named(monkeypatch) -> None:
    lines = [
        "torch<2",
        "numpy>=1",
        "nowhere-to-be-had>=3",
        'peft; extra == "lora"',
        'pandas<1; extra == "ray"',
        'not-for-us; sys_platform == "amiga"',
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    monkeypatch.setattr(
        doctor,
        "_version",
        lambda name, otherwise="": {
            "torch": "2.13.0+cpu",
            "numpy": "2.1",
            "pandas": "3.0",
            "peft": "0.18",
        }.get(name, otherwise),
    )
    assert doctor.unmet() == ["nowhere-to-be-had is missing", "torch is 2.13.0+cpu, not <2"]
    assert doctor.unmet("lora") == []
    assert doctor.unmet("ray") == ["pandas is 3.0, not <1"]
    assert doctor.unmet("docs") == ["the installed sinkscope does not know docs"]


def test_a_cache_that_cannot_be_written_is_told_with_the_mend(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(doctor, "self_test", lambda: iter(()))
    code, stdout, err = run(capsys, monkeypatch, "doctor")
    (line,) = (line for line in stdout.splitlines() if line.startswith("cache: "))
    assert code == 1
    assert "all is well" not in stdout
    assert err == f"sinkscope: {line.removeprefix('cache: ')}\n"
    assert str(tmp_path / "file" / "cache") in line
    assert line.endswith("choose another directory with the variable SINKSCOPE_CACHE")
    assert json.loads(run(capsys, monkeypatch, "doctor", "--json")[1])["well"] is False


def _forgetful(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    with torch.no_grad():
        model.hf.model.norm.weight.mul_(-1)  # behind the last attention: what was likely becomes unlikely
    return "the self-test failed to generate: tiny went on as its book does at 0 of 8 places"


def _divided(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    def apart(model: Model, passages: list[list[int]], config: CaptureConfig) -> SinkMap:
        found = locate(model, passages, config)
        return found if config.backend == "hooks" else SinkMap(found.data.assign(alpha=found.alpha + 0.25))

    monkeypatch.setattr(doctor, "locate", apart)
    return (
        "the self-test failed to locate sinks by both sources: α by hooks and by tiles differs by up to 0.25"
    )


def _broken(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    def breaks(*arguments: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(doctor, "generate", breaks)
    return "the self-test failed to generate: RuntimeError: no kernel for this"


def _absent(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    def refuses(name: str) -> Model:
        raise ModelError("target/model.safetensors is missing or was changed; reinstall")

    monkeypatch.setattr(doctor, "load", refuses)
    return "the self-test failed to load the built-in model: target/model.safetensors is missing or was changed; reinstall"


@pytest.mark.parametrize("spoil", [_forgetful, _divided, _broken, _absent])
def test_what_is_wrong_is_told_in_one_line_with_exit_code_1(spoil, capsys, monkeypatch) -> None:
    model = doctor.load("tiny")
    monkeypatch.setattr(doctor, "load", lambda name: model)
    message = spoil(monkeypatch, model)
    code, stdout, err = run(capsys, monkeypatch, "doctor", "--json")
    assert code == 1
    assert err.startswith(f"sinkscope: {message}")
    assert err.count("\n") == 1
    assert json.loads(stdout)["well"] is False
