"""Files that the builds of both synthetic benchmarks write."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.splits import Lengths
from sinkscope.io.run_directory import checksums

CARD = """---
license: mit
---

# sinkscope {name}

{text}
The model knows nothing of the world and is of use only as a built-in target of sinkscope.

Measured by the build ({units}; α is mean attention to BOS on held-out text):

{numbers}
"""


def write_rows(rows: Mapping[str, Sequence[Mapping[str, Any]]], directory: Path) -> None:
    """Write `rows[name]` as `name.jsonl`."""
    for name, records in rows.items():
        path = directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        path.write_text("".join(lines), encoding="utf-8")


def write_benchmark_config(directory: Path, name: str, lengths: Lengths, **options: str) -> None:
    """Write `benchmark.json`."""
    content = {"name": name, **options, "lengths": asdict(lengths)}
    (directory / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_card(directory: Path, name: str, text: str, units: str, numbers: Mapping[str, float]) -> None:
    """Write a model card to `directory`."""
    lines = "\n".join(f"- {key}: {value}" for key, value in numbers.items())
    card = CARD.format(name=name, text=textwrap.fill(text, 110), units=units, numbers=lines)
    (directory / "README.md").write_text(card, encoding="utf-8")


def write_checksums(directory: Path) -> None:
    """Write `SHA256SUMS.json`, which is compared when a built-in model is loaded."""
    (directory / "SHA256SUMS.json").write_text(json.dumps(checksums(directory), indent=1), encoding="utf-8")


def write_measured(directory: Path, measured: Mapping[str, Any]) -> None:
    """Write what was measured on a benchmark."""
    text = json.dumps(measured, indent=1, ensure_ascii=False)
    (directory / "measured.json").write_text(text, encoding="utf-8")


def read_measured(directory: Path) -> dict[str, Any]:
    """What was measured on a benchmark."""
    return json.loads((directory / "measured.json").read_text(encoding="utf-8"))
