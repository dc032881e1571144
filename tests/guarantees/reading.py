"""Run commands in this process; the commands that read each kind of input; the checks of refused input."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sinkscope.cli.main import main
from tests.guarantees.measured import process_memory, reset_peak_memory

SECONDS = 60
"""Time limit of a command; one that refuses its input later than that counts as hanging."""
MEMORY = 512 << 20
"""Limit on the memory that a command adds to this process; the longest allowed line uses half of it."""
Arguments = Callable[[Path, Path], list[object]]
"""Path of the tested input and directory of valid inputs (`good_inputs`) -> arguments without --out."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    memory: int


def sinkscope(*arguments: object) -> Outcome:
    """Run a command in this process; `memory` of the outcome is the peak minus the memory before."""
    out, err, argv, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["sinkscope", *map(str, arguments)]
    reset_peak_memory()
    before = process_memory("VmRSS")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), time_limit(SECONDS):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    finally:
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue(), process_memory("VmHWM") - before)


class TimeLimitExceeded(BaseException):
    """Not an OSError, unlike TimeoutError, so that it is not reported as bad input."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the context after `seconds`, and fail even if the interruption was caught."""
    expired = False

    def on_alarm(*args: object) -> None:
        nonlocal expired
        expired = True
        raise TimeLimitExceeded

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        assert not expired, f"not finished after {seconds} s"


def check_refused(outcome: Outcome, out: Path, *names: str, limit: int = MEMORY) -> None:
    """Check exit code 2, one error message that contains one of `names`, no output and bounded memory."""
    assert outcome.code == 2, outcome
    assert outcome.out == "", outcome
    assert (
        outcome.err.startswith("sinkscope: ") and outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    ), outcome
    assert "Traceback" not in outcome.err and "internal error" not in outcome.err, outcome
    assert len(outcome.err) < 2200, len(outcome.err)
    assert any(name in outcome.err for name in names), (names, outcome.err)
    assert outcome.memory < limit, outcome
    assert not os.path.lexists(out), "an output was written"
    assert not list(out.parent.glob(f".{out.name}*")), "temporary files were not removed"


def _study(path: Path, grid: dict[str, Any], **more: Any) -> Path:
    path.write_text(yaml.safe_dump({"seeds": [0], "grids": {"a": grid}, **more}))
    return path


def _store(good: Path) -> list[object]:
    return ["--store", good / "store"]


COMMANDS: dict[str, dict[str, Arguments]] = {
    "text": {
        "locate": lambda path, good: ["locate", "tiny", "--text", path],
        "compare": lambda path, good: ["compare", "tiny", "tiny-retrained", "--text", path],
    },
    "recipe": {
        "unlearn": lambda path, good: ["unlearn", path],
        "unlearn, dry": lambda path, good: ["unlearn", path, "--dry-run"],
        "study": lambda path, good: [
            "study",
            _study(good / "spec.yaml", {"recipe": str(path)}),
            *_store(good),
        ],
    },
    "study": {
        "study": lambda path, good: ["study", path, *_store(good)],
        "study, dry": lambda path, good: ["study", path, "--dry-run", *_store(good)],
    },
    "triggers": {"probe": lambda path, good: ["audit", "tiny", "--triggers", path]},
    "benchmark": {
        "evaluate": lambda path, good: ["evaluate", "tiny", "--benchmark", path],
        "probe": lambda path, good: [
            "audit",
            "tiny",
            "--benchmark",
            path,
            "--triggers",
            good / "triggers.txt",
        ],
        "unlearn": lambda path, good: ["unlearn", good / "recipe.yaml", "--set", f"benchmark={path}"],
        "unlearn, dry": lambda path, good: [
            "unlearn",
            good / "recipe.yaml",
            "--set",
            f"benchmark={path}",
            "--dry-run",
        ],
        "study": lambda path, good: [
            "study",
            _study(good / "spec.yaml", {"set": {"benchmark": str(path)}}),
            *_store(good),
        ],
    },
    "tasks": {"evaluate": lambda path, good: ["evaluate", "tiny", "--harness", "mine", "--tasks", path]},
    "model": {
        "locate": lambda path, good: ["locate", path, "--text", good / "notes.txt"],
        "compare": lambda path, good: ["compare", path, "tiny", "--text", good / "notes.txt"],
        "compare, second": lambda path, good: ["compare", "tiny", path, "--text", good / "notes.txt"],
        "unlearn": lambda path, good: ["unlearn", good / "recipe.yaml", "--set", f"model={path}"],
        "unlearn, dry": lambda path, good: [
            "unlearn",
            good / "recipe.yaml",
            "--set",
            f"model={path}",
            "--dry-run",
        ],
        "evaluate": lambda path, good: ["evaluate", path, "--benchmark", "tiny", "--limit", 2],
        "evaluate, retrained": lambda path, good: ["evaluate", "tiny", "--limit", 2, "--retain-model", path],
        "probe": lambda path, good: [
            *("audit", path, "--benchmark", "tiny", "--limit", 2, "--triggers", good / "triggers.txt")
        ],
        "study": lambda path, good: [
            "study",
            _study(
                good / "spec.yaml",
                {"models": [str(path)], "evaluations": ["few"]},
                evaluations={"few": {"limit": 2, "benchmark": "tiny"}},
            ),
            *_store(good),
        ],
    },
    "finished study": {"report": lambda path, good: ["report", path]},
}
"""Kind of input -> the commands that read it. A new command needs a line here."""
