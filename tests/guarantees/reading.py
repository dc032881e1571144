"""The command line as the guarantees use it: run in this process, with everything that a command reads given by what kind of thing it is."""

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
from tests.guarantees.measured import forget_peak, memory

SECONDS = 60
"""A command that refuses its input and is not back by then hangs."""
MEMORY = 512 << 20
"""Bytes that one may take besides what this process had: the longest line that is read takes half of them."""
Arguments = Callable[[Path, Path], list[object]]
"""From the thing that is given and a directory of our own with `notes.txt`, `triggers.txt` and `recipe.yaml` to arguments, but for --out."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    memory: int


def sinkscope(*arguments: object) -> Outcome:
    """One command, in this process; `memory` is how far its peak was above what there was before."""
    out, err, argv, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["sinkscope", *map(str, arguments)]
    forget_peak()
    before = memory("VmRSS")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), at_most(SECONDS):
            main()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
    finally:
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue(), memory("VmHWM") - before)


class Late(BaseException):
    """No error of the operating system, as TimeoutError is: what takes those for bad input does not take this one."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Within the context a wait without end is broken off; who was waited for too long has failed, whatever it makes of that."""
    rang = False

    def late(*about: object) -> None:
        nonlocal rang
        rang = True
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        assert not rang, f"not back after {seconds} s"


def check_refused(outcome: Outcome, out: Path, *names: str, limit: int = MEMORY) -> None:
    """Exit code 2, one line that names the input, nothing on standard output, nothing written, bounded memory."""
    assert outcome.code == 2, outcome
    assert outcome.out == "", outcome
    assert (
        outcome.err.startswith("sinkscope: ") and outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    ), outcome
    assert "Traceback" not in outcome.err and "internal error" not in outcome.err, outcome
    assert len(outcome.err) < 2200, len(outcome.err)
    assert any(name in outcome.err for name in names), (names, outcome.err)
    assert outcome.memory < limit, outcome
    assert not os.path.lexists(out), "half written"
    assert not list(out.parent.glob(f".{out.name}*")), "something is left beside the output"


def _study(path: Path, grid: dict[str, Any], **more: Any) -> Path:
    path.write_text(yaml.safe_dump({"seeds": [0], "grids": {"a": grid}, **more}))
    return path


def _store(own: Path) -> list[object]:
    return ["--store", own / "store"]


COMMANDS: dict[str, dict[str, Arguments]] = {
    "text": {
        "locate": lambda given, own: ["locate", "tiny", "--text", given],
        "compare": lambda given, own: ["compare", "tiny", "tiny-retrained", "--text", given],
    },
    "recipe": {
        "unlearn": lambda given, own: ["unlearn", given],
        "unlearn, dry": lambda given, own: ["unlearn", given, "--dry-run"],
        "study": lambda given, own: [
            "study",
            _study(own / "spec.yaml", {"recipe": str(given)}),
            *_store(own),
        ],
    },
    "study": {
        "study": lambda given, own: ["study", given, *_store(own)],
        "study, dry": lambda given, own: ["study", given, "--dry-run", *_store(own)],
    },
    "triggers": {"probe": lambda given, own: ["audit", "tiny", "--triggers", given]},
    "benchmark": {
        "evaluate": lambda given, own: ["evaluate", "tiny", "--benchmark", given],
        "probe": lambda given, own: [
            "audit",
            "tiny",
            "--benchmark",
            given,
            "--triggers",
            own / "triggers.txt",
        ],
        "unlearn": lambda given, own: ["unlearn", own / "recipe.yaml", "--set", f"benchmark={given}"],
        "unlearn, dry": lambda given, own: [
            "unlearn",
            own / "recipe.yaml",
            "--set",
            f"benchmark={given}",
            "--dry-run",
        ],
        "study": lambda given, own: [
            "study",
            _study(own / "spec.yaml", {"set": {"benchmark": str(given)}}),
            *_store(own),
        ],
    },
    "tasks": {"evaluate": lambda given, own: ["evaluate", "tiny", "--harness", "mine", "--tasks", given]},
    "model": {
        "locate": lambda given, own: ["locate", given, "--text", own / "notes.txt"],
        "compare": lambda given, own: ["compare", given, "tiny", "--text", own / "notes.txt"],
        "compare, second": lambda given, own: ["compare", "tiny", given, "--text", own / "notes.txt"],
        "unlearn": lambda given, own: ["unlearn", own / "recipe.yaml", "--set", f"model={given}"],
        "unlearn, dry": lambda given, own: [
            "unlearn",
            own / "recipe.yaml",
            "--set",
            f"model={given}",
            "--dry-run",
        ],
        "evaluate": lambda given, own: ["evaluate", given, "--limit", 2],
        "evaluate, retrained": lambda given, own: ["evaluate", "tiny", "--limit", 2, "--retain-model", given],
        "probe": lambda given, own: ["audit", given, "--limit", 2, "--triggers", own / "triggers.txt"],
        "study": lambda given, own: [
            "study",
            _study(
                own / "spec.yaml",
                {"models": [str(given)], "evaluations": ["few"]},
                evaluations={"few": {"limit": 2, "benchmark": "tiny"}},
            ),
            *_store(own),
        ],
    },
    "finished study": {"report": lambda given, own: ["report", given]},
}
"""By the kind of thing that is read, the commands that read it. A new command is a line here."""
