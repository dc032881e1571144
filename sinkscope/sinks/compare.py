"""Compare two conditions: two models on one text, or one model on clean and triggered text.

`compare` measures two conditions and returns a `Comparison`; `write_comparison` also writes it to a run
directory, as the command `sinkscope compare` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sinkscope.errors import ModelError, TextError
from sinkscope.io.progress import OnProgress
from sinkscope.io.run_directory import create_or_load
from sinkscope.models.model import Model
from sinkscope.sinks.backends import BackendName
from sinkscope.sinks.comparison import Comparison
from sinkscope.sinks.conditions import (
    Condition,
    ConditionStatistics,
    check_comparable,
    insert_trigger,
    measure,
    most_common_span,
    part_of,
)
from sinkscope.sinks.locate import CaptureConfig, hash_passages
from sinkscope.sinks.maps import bin_size_for
from sinkscope.text import check_max_length, token_texts
from sinkscope.triggers import Placement, Trigger

CLEAN = "clean"
TRIGGERED = "triggered"

DrawComparison = Callable[[Path, Mapping[str, pd.DataFrame], Mapping[str, Any]], None]
"""Draws the figures of `compare`: see `sinkscope.plots.run_figures.draw_comparison`."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared.

    Args:
        layer: layer of the difference maps; by default the last.
        bin_size: positions per bin of the difference maps.
        backend: as in `CaptureConfig`.
        batch_size: passages per forward pass.
    """

    layer: int | None = None
    bin_size: int = 4
    backend: BackendName | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class ConditionPair:
    """Two conditions, and a description of what differs between them."""

    first: Condition
    second: Condition
    description: str = ""


def pair_conditions(
    model: Model,
    other: Model | None,
    passages: Sequence[list[int]],
    max_length: int,
    trigger: tuple[Trigger, Placement] | None,
) -> ConditionPair:
    """Two models on one text, with the trigger if one is given, or one model on clean and triggered text.

    Raises:
        ModelError: neither a second model nor a trigger, or models whose heads or tokens do not correspond.
        TextError: no passage has `max_length` tokens, or the second model cannot read so many.
        PlacementError: the trigger does not fit a passage.
    """
    if other is None and trigger is None:
        raise ModelError(
            f"model {model.name!r} has nothing to be compared with; give a second model or a `trigger`"
        )
    longest = max(map(len, passages))
    if longest < max_length:
        raise TextError(
            f"no passage has `max_length` {max_length} tokens, which maps need; the longest has {longest}: "
            "lower it to that or give more text"
        )
    if other is not None:
        check_comparable(model, other)
        check_max_length(other, max_length)
    triggered: Sequence[list[int]] = passages
    spans = None
    if trigger is not None:
        triggered, spans = insert_trigger(model, passages, *trigger)
    trigger_text = f"trigger “{trigger[0].text}” as {trigger[1]}" if trigger else ""
    if other is None:
        return ConditionPair(
            Condition(CLEAN, model, passages, spans),
            Condition(TRIGGERED, model, triggered, spans),
            f"{_short_name(model)}, {trigger_text}",
        )
    description = f"A = {_short_name(model)}, B = {_short_name(other)}"
    return ConditionPair(
        Condition("A", model, triggered, spans),
        Condition("B", other, triggered, spans),
        f"{description}, both with {trigger_text}" if trigger else description,
    )


def compare(
    first: Condition,
    second: Condition,
    config: CompareConfig | None = None,
    *,
    description: str = "",
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Measure two conditions whose models correspond and whose passages have the same lengths.

    Raises:
        ModelError: the model has no such layer, or its attention cannot be captured.
        TextError: bins do not fit the passages, or their number or greatest length differs.
    """
    config = config or CompareConfig()
    model = first.model
    layer = model.n_layers - 1 if config.layer is None else config.layer
    max_length = _check_compared(first, second, layer, config.bin_size)
    capture = CaptureConfig(backend=config.backend, batch_size=config.batch_size)
    measured = [
        measure(
            condition,
            capture,
            layer=layer,
            bin_size=config.bin_size,
            on_progress=part_of(on_progress, index, 2),
        )
        for index, condition in enumerate((first, second))
    ]
    attrs = {
        "description": description,
        "difference": f"{second.label} − {first.label}",
        "passages": len(first.passages),
        "full_length_passages": sum(len(passage) == max_length for passage in first.passages),
        "max_length": max_length,
        "backend": sorted({str(statistics.sinks.data.attrs["backend"]) for statistics in measured}),
        "layer": layer,
        "map_bin": config.bin_size,
        "bin": bin_size_for(model.n_layers * model.n_heads, max_length),
        "shifted": first.passages is not second.passages,
    }
    if first.spans:
        attrs["trigger_start"], attrs["trigger_stop"] = most_common_span(first.spans)
    return Comparison(_combine(measured, (first, second), max_length).assign_attrs(attrs))


def _check_compared(first: Condition, second: Condition, layer: int, bin_size: int) -> int:
    """Check what `compare` is given, and return the length of the longest passages."""
    if not 0 <= layer < first.model.n_layers:
        raise ModelError(
            f"`layer` {layer} does not exist in model {first.model.name!r}; "
            f"use 0 to {first.model.n_layers - 1}"
        )
    n_passages, second_n_passages = len(first.passages), len(second.passages)
    max_length, second_max_length = (max(map(len, condition.passages)) for condition in (first, second))
    if (n_passages, max_length) != (second_n_passages, second_max_length):
        raise TextError(
            f"conditions {first.label!r} and {second.label!r} have {n_passages} and {second_n_passages} "
            f"passages of up to {max_length} and {second_max_length} tokens; "
            "compare as many passages of the same length"
        )
    if not 1 <= bin_size <= max_length:
        raise TextError(
            f"`bin_size` {bin_size} does not fit passages of {max_length} tokens; use 1 to {max_length}"
        )
    return max_length


def write_comparison(
    directory: Path,
    pair: ConditionPair,
    config: CompareConfig,
    *,
    draw: DrawComparison | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Compare and write the result to a run directory; a complete run of the same inputs is loaded.

    Args:
        draw: draws figures into `directory/figures`.

    Returns:
        The summary.
    """
    conditions = (pair.first, pair.second)

    def build(staging: Path) -> None:
        comparison = compare(*conditions, config, description=pair.description, on_progress=on_progress)
        comparison.save(staging)
        if draw is not None:
            attrs = comparison.data.attrs | {"strongest": comparison.sinks(0).strongest(1)}
            draw(staging / "figures", comparison.tables, attrs)

    def load(run: Path) -> dict[str, Any]:
        return json.loads((run / "summary.json").read_text(encoding="utf-8"))

    content = [
        [condition.label, condition.model.fingerprint(), hash_passages(condition.passages)]
        for condition in conditions
    ]
    spans = [[span.start, span.stop] for span in pair.first.spans or []]
    inputs = asdict(config) | {"conditions": content, "spans": spans, "description": pair.description}
    del inputs["batch_size"]
    metadata = {
        "models": [condition.model.name for condition in conditions],
        "passages": len(pair.first.passages),
    }
    return create_or_load(directory, "compare", inputs, build, load, metadata=metadata)


def _combine(
    measured: Sequence[ConditionStatistics], conditions: Sequence[Condition], max_length: int
) -> xr.Dataset:
    """The data of a `Comparison`, without attributes."""
    first = measured[0].sinks.data
    n_layers, n_heads, _ = first["alpha"].shape
    spans = conditions[0].spans
    passage = _common_passage(conditions[0], max_length)
    n_first = min(statistics.value_norms.shape[-1] for statistics in measured)
    coarse = np.array([statistics.pattern for statistics in measured], dtype=np.float32)
    variables: dict[str, tuple[str, Any]] = {
        "top1": ("position", [statistics.top1 for statistics in measured]),
        "pattern": ("layer head query key", coarse.reshape(2, n_layers, n_heads, *coarse.shape[2:])),
        "layer_map": ("head map_query map_key", [statistics.layer_map for statistics in measured]),
        "first_value_norm": (
            "passage layer kv_head first_position",
            [statistics.value_norms[..., :n_first] for statistics in measured],
        ),
        "text": ("position", [_padded_texts(condition, passage, max_length) for condition in conditions]),
    }
    for name in ("alpha", "value_norm"):
        variables[name] = ("layer head position", [statistics.sinks.data[name] for statistics in measured])
    if spans:
        variables["span_mass"] = ("layer head", [statistics.span_mass for statistics in measured])
    data = xr.Dataset(
        {
            name: (("condition", *dims.split()), np.array(values))
            for name, (dims, values) in variables.items()
        },
        coords={"condition": [condition.label for condition in conditions]},
    )
    return data.assign(uniform=first["uniform"], passages=first["passages"])


def _common_passage(condition: Condition, max_length: int) -> int:
    """The first full-length passage with the most common span."""
    full_length = [i for i, passage in enumerate(condition.passages) if len(passage) == max_length]
    if not condition.spans:
        return full_length[0]
    span = range(*most_common_span(condition.spans))
    return next((i for i in full_length if condition.spans[i] == span), full_length[0])


def _padded_texts(condition: Condition, passage: int, length: int) -> list[str | None]:
    texts = token_texts(condition.model, condition.passages[passage])
    return [*texts, *[None] * (length - len(texts))]


def _short_name(model: Model) -> str:
    return Path(model.name).name or model.name
