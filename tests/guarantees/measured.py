"""Locating sinks in a process of its own that watches its memory."""

from __future__ import annotations

import json
from pathlib import Path

from sinkscope.locating import locate_in_text
from sinkscope.models import load
from sinkscope.texts import cut, read_texts


def locating(model: str, text: Path, out: Path, told: Path, max_length: int, batch_size: int) -> None:
    """What `sinkscope locate` does. Writes, in bytes, how far the process's memory went up while the text was read and cut (`reading`), and how much further
    it went behind a tenth of the passages than it had gone before (`growth`); and how many passages there were."""
    loaded = load(model, "cpu")
    before = _memory("VmRSS")
    passages = cut(read_texts(text), loaded, max_length)
    found = {"passages": len(passages), "reading": _memory("VmRSS") - before}
    peaks: dict[str, int] = {}

    def report(done: int, total: int) -> None:
        if "first" not in peaks:
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            peaks["first"] = _memory("VmHWM")
        elif "tenth" not in peaks and done >= total / 10:
            peaks["tenth"] = _memory("VmHWM")
        elif done == total:
            peaks["whole"] = _memory("VmHWM")

    locate_in_text(loaded, passages, out, epsilon=0.3, also=[], batch_size=batch_size, report=report)
    told.write_text(json.dumps(found | {"growth": peaks["whole"] - peaks["tenth"]}))


def _memory(name: str) -> int:
    """A number of bytes from the kernel's account of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
