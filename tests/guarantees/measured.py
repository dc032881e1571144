"""Memory of a process, and `sinkscope locate` with measurements of its memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sinkscope.cli.main import main
from sinkscope.models import model as models
from sinkscope.sinks import locate as locating


def process_memory(name: str) -> int:
    """Bytes of memory of this process, from /proc: VmRSS is the current size, VmHWM the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def reset_peak_memory() -> None:
    """Reset VmHWM to the current size."""
    Path("/proc/self/clear_refs").write_text("5")


def run_locate(arguments: list[str], result_file: Path) -> None:
    """Run `locate` and write its memory use to `result_file`, in bytes.

    `reading` is the increase until all text is tokenized, without the model. `growth` and `end` are the
    increases of the peak after a tenth of the passages: until the last passage, and until the command ends.
    """
    before, peaks, results = process_memory("VmRSS"), {}, {}
    load, write_locate = models.load, locating.write_locate

    def load_measured(*args: Any, **options: Any) -> models.Model:
        nonlocal before
        at_load = process_memory("VmRSS")
        model = load(*args, **options)
        before += process_memory("VmRSS") - at_load
        return model

    def locate_measured(
        out: Any, model: Any, passages: Any, *args: Any, on_progress: Any, **options: Any
    ) -> Any:
        results.update(passages=len(passages), reading=process_memory("VmRSS") - before)

        def report(done: int, total: int) -> None:
            on_progress(done, total)
            if not peaks:
                reset_peak_memory()
                peaks["first"] = process_memory("VmHWM")
            elif "tenth" not in peaks and done >= total / 10:
                peaks["tenth"] = process_memory("VmHWM")
            elif done == total:
                peaks["last"] = process_memory("VmHWM")

        return write_locate(out, model, passages, *args, on_progress=report, **options)

    models.load, locating.write_locate = load_measured, locate_measured
    sys.argv = ["sinkscope", *arguments]
    try:
        main()
    finally:
        result_file.write_text(
            json.dumps(
                results
                | {"growth": peaks["last"] - peaks["tenth"], "end": process_memory("VmHWM") - peaks["tenth"]}
            )
        )
