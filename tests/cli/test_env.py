"""`sinkscope env` reports what is installed, and every failed check in one line with exit code 1."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from sinkscope.cli import env
from sinkscope.errors import ModelError
from sinkscope.models import model as models
from sinkscope.models.model import Model
from sinkscope.sinks import locate as sinks
from sinkscope.sinks.locate import SinkMap
from tests.commands import run

ROOT = Path(__file__).parents[2]


def test_every_check_passes(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path / "cache"))
    code, stdout, err = run(capsys, monkeypatch, "env", "--json")
    report = json.loads(stdout)
    assert (code, err) == (0, ""), err
    assert report["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # the build
    assert report["threads"] == torch.get_num_threads() and "cpu" in report["devices"]
    assert report["cache"] == str(tmp_path / "cache") and list((tmp_path / "cache").iterdir()) == []
    names = ["write to the cache", "load the built-in model", *env.MODEL_CHECKS]
    assert [check["name"] for check in report["self_test"]] == names
    assert report["passed"] and all(check["passed"] for check in report["self_test"])


def test_every_extra_is_reported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(env.EXTRAS) == set(project["optional-dependencies"])


def test_missing_packages_and_extras_are_reported(monkeypatch) -> None:
    monkeypatch.setattr(env, "PACKAGES", ["torch", "no-such-package"])
    monkeypatch.setattr(env, "EXTRAS", {"other": "no_such_module"})
    report = env.environment_report()
    assert report["packages"]["no-such-package"] == "not installed"
    assert report["extras"]["other"] == 'not installed: pip install "sinkscope[other]"'


def test_a_cache_that_cannot_be_written_is_named_with_the_fix(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(env, "MODEL_CHECKS", {})
    code, stdout, err = run(capsys, monkeypatch, "env")
    assert code == 1 and "write to the cache: FAILED" in stdout
    assert str(tmp_path / "file" / "cache") in err and err.count("\n") == 1
    assert err.endswith("choose another directory with the variable SINKSCOPE_CACHE\n")


def _negate_last_norm(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    with torch.no_grad():
        model.hf.model.norm.weight.mul_(-1)  # after the last attention: likely tokens become unlikely
    return "'generate text' failed: the model continued 0 of 8 memorized texts correctly"


def _shift_one_backend(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    original = sinks.locate
    calls: list[SinkMap] = []

    def shifted(*arguments, **options) -> SinkMap:
        calls.append(original(*arguments, **options))
        last = calls[-1]
        return last if len(calls) == 1 else SinkMap(last.data.assign(alpha=last.alpha + 0.25))

    monkeypatch.setattr(sinks, "locate", shifted)
    return "'locate sinks with both backends' failed: α of the backends"


def _raise_in_check(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    def fail(model: Model) -> str:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(env, "MODEL_CHECKS", {"generate text": fail})
    return "'generate text' failed: RuntimeError: no kernel for this"


def _refuse_to_load(monkeypatch: pytest.MonkeyPatch, model: Model) -> str:
    def refuse(name: str) -> Model:
        raise ModelError("target/model.safetensors is missing or was changed; reinstall")

    monkeypatch.setattr(models, "load", refuse)
    return "'load the built-in model' failed: target/model.safetensors is missing or was changed; reinstall"


@pytest.mark.parametrize("spoil", [_negate_last_norm, _shift_one_backend, _raise_in_check, _refuse_to_load])
def test_a_failed_check_is_one_line_with_exit_code_1(spoil, capsys, monkeypatch) -> None:
    model = models.load("tiny")
    monkeypatch.setattr(models, "load", lambda name: model)
    message = spoil(monkeypatch, model)
    code, stdout, err = run(capsys, monkeypatch, "env", "--json")
    assert code == 1
    assert err.startswith(f"sinkscope: the check {message}") and err.count("\n") == 1, err
    assert json.loads(stdout)["passed"] is False
