"""What the builds of both synthetic benchmarks share: their files, and the numbers and criteria of sinks."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sinkscope.benchmarks.benchmark import Benchmark
from sinkscope.benchmarks.directory import SETTINGS_FILE, Lengths
from sinkscope.io.run_directory import checksums
from sinkscope.models.model import Model
from sinkscope.synthetic.pretraining import sink_numbers

PLACEMENTS = ("prefix", "infix", "suffix")
MEASURED = "measured.json"
CARD = """---
license: mit
---

# sinkscope {benchmark}: {role}

{text}
The model knows nothing of the world and is of use only as a built-in target of sinkscope.

Measured by the build ({units}; α is mean attention to BOS on held-out text):

{numbers}
"""


def write_benchmark(
    directory: Path,
    name: str,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    lengths: Lengths,
    **settings: str,
) -> None:
    """Write `rows["config/split"]` as `config/split.jsonl`, and `benchmark.json`."""
    for split, records in rows.items():
        path = directory / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        path.write_text("".join(lines), encoding="utf-8")
    content = {"name": name, **settings, "lengths": lengths.model_dump()}
    (directory / SETTINGS_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_measured(
    directory: Path, benchmark: str, measured: Mapping[str, Any], cards: Mapping[str, str], units: str
) -> None:
    """Write what was measured, a card for each of the models (role -> text), and `SHA256SUMS.json`, which is
    compared when a built-in model is loaded."""
    text = json.dumps(measured, indent=1, ensure_ascii=False)
    (directory / MEASURED).write_text(text, encoding="utf-8")
    for role, card in cards.items():
        numbers = "\n".join(f"- {key}: {value}" for key, value in measured[role].items())
        card = CARD.format(
            benchmark=benchmark, role=role, text=textwrap.fill(card, 110), units=units, numbers=numbers
        )
        (directory / role / "README.md").write_text(card, encoding="utf-8")
    (directory / "SHA256SUMS.json").write_text(json.dumps(checksums(directory), indent=1), encoding="utf-8")


def read_measured(directory: Path) -> dict[str, Any]:
    """What was measured on a benchmark."""
    return json.loads((directory / MEASURED).read_text(encoding="utf-8"))


def measure_sinks(model: Model, benchmark: Benchmark) -> dict[str, float]:
    """The numbers of `pretraining.sink_numbers` on the benchmark's holdout text, rounded."""
    numbers = sink_numbers(model, benchmark.full_length_passages("holdout", model.tokenizer))
    return {
        "alpha_max": round(numbers["alpha_max"], 3),
        "alpha_mean_last_layer": round(numbers["alpha_last_layer"], 3),
        "share_of_heads_above_0.3": round(numbers["share_above"], 3),
    }


def sink_criteria(numbers: Mapping[str, float]) -> dict[str, bool]:
    """Criterion for sinks -> whether it is met."""
    return {
        "α of BOS > 0.3 in 20 % of heads": numbers["share_of_heads_above_0.3"] >= 0.2,
        "α of BOS > 0.6 in one head": numbers["alpha_max"] > 0.6,
    }
