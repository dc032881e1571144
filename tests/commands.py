"""Run one command in this process, and check that it was refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sinkscope.cli.main import main


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["sinkscope", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def check_refused(outcome: tuple[int, str, str], message: str, out: Path) -> None:
    code, stdout, err = outcome
    assert code == 2, err
    assert message in err
    assert err.startswith("sinkscope: ")
    assert err.count("\n") == 1
    assert stdout == ""
    assert not out.exists()
    assert not list(out.parent.glob(".out*"))
