"""Memory of a process, and `sinkscope locate` in a process of its own that watches its memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sinkscope.cli.main import main
from sinkscope.models import model as models
from sinkscope.sinks import locate as locating


def memory(name: str) -> int:
    """A number of bytes from the kernel's account of this process: VmRSS is what it has now, VmHWM the most it has had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """From here VmHWM counts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def watched(arguments: list[str], told: Path) -> None:
    """A `locate` to its end. Writes, in bytes, how far memory went up until all text was read and cut, but for the model (`reading`), and how much further the
    peak went behind a tenth of the passages than it had gone before: while passages were measured (`growth`), and until the command had ended (`end`)."""
    before, peaks, found = memory("VmRSS"), {}, {}
    load, write_locate = models.load, locating.write_locate

    def loaded(*args: Any) -> models.Model:
        nonlocal before
        held = memory("VmRSS")
        model = load(*args)
        before += memory("VmRSS") - held
        return model

    def measured(out: Any, model: Any, passages: Any, *args: Any, on_progress: Any, **options: Any) -> Any:
        found.update(passages=len(passages), reading=memory("VmRSS") - before)

        def reported(done: int, total: int) -> None:
            on_progress(done, total)
            if not peaks:
                forget_peak()
                peaks["first"] = memory("VmHWM")
            elif "tenth" not in peaks and done >= total / 10:
                peaks["tenth"] = memory("VmHWM")
            elif done == total:
                peaks["whole"] = memory("VmHWM")

        return write_locate(out, model, passages, *args, on_progress=reported, **options)

    models.load, locating.write_locate = loaded, measured
    sys.argv = ["sinkscope", *arguments]
    try:
        main()
    finally:
        told.write_text(
            json.dumps(
                found | {"growth": peaks["whole"] - peaks["tenth"], "end": memory("VmHWM") - peaks["tenth"]}
            )
        )
