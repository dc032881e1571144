"""What a newcomer or a bug report needs to know: what is installed here, and whether it works on the built-in model."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import numpy as np
import torch
from packaging.requirements import Requirement

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.evaluation.items import verbmem_items
from sinkscope.evaluation.requests import generate
from sinkscope.io.atomic import write_error
from sinkscope.io.cache import cache_directory
from sinkscope.models.model import DTYPES, Model, load
from sinkscope.sinks.backends import BACKENDS
from sinkscope.sinks.locate import CaptureConfig, locate

PACKAGES = (
    "torch",
    "transformers",
    "transformer-lens",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
    "numpy",
    "pandas",
)
EXTRAS = {
    "lora": "adapters, by update.lora in a recipe",
    "harness": "tasks of lm-evaluation-harness, by sinkscope evaluate --harness",
    "ray": "studies on a cluster, by sinkscope study --engine ray",
    "docs": "building the documentation, by mkdocs build --strict -f .docs/mkdocs.yml",
    "dev": "tests, lint and types: all of the above and what CI runs",
}
"""What each extra of the package allows."""
AGREE = 1e-3
"""Two sources that differ by more in any α are not of one opinion."""
PASSAGES, PROMPTS, TOKENS = 4, 8, 12
RIGHT = 6
"""Of the prompts; the model does not have every sentence of its book by heart."""


@dataclass(frozen=True)
class Check:
    """One part of the self-test: what was tried, whether it went well, and what was seen."""

    what: str
    passed: bool
    detail: str


class _Unwell(Exception):
    """A check ran, and what it saw is wrong."""


def environment_report() -> dict[str, Any]:
    """Versions, requirements that are not met, devices with the dtypes they can multiply in, threads, cache, extras."""
    directory, refusal = cache_directory(), _why_not_writable()
    return {
        "sinkscope": _version("sinkscope"),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: _version(name) for name in PACKAGES},
        "unmet": unmet(),
        "devices": {
            name: [dtype for dtype in DTYPES if _multiplies(device, DTYPES[dtype])]
            for device, name in _devices()
        },
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cache": {"directory": str(directory), "writable": refusal is None, "refusal": refusal},
        "extras": {
            extra: {"allows": allows, "installed": not unmet(extra), "unmet": unmet(extra)}
            for extra, allows in EXTRAS.items()
        },
    }


def unmet(extra: str | None = None) -> list[str]:
    """Requirements of the package, or of one of its extras, that are not met here, each with what is there instead."""
    try:
        lines = requires("sinkscope") or []
    except PackageNotFoundError:  # a checkout on the path
        lines = []
    wanted = [requirement for requirement in map(Requirement, lines) if _belongs(requirement, extra)]
    if extra is not None and not wanted:
        return [f"the installed sinkscope does not know {extra}"]
    found = {requirement: _version(requirement.name, "") for requirement in wanted}
    missing = [f"{requirement.name} is missing" for requirement, there in found.items() if not there]
    return missing + [
        f"{requirement.name} is {there}, not {requirement.specifier}"
        for requirement, there in found.items()
        if there and not requirement.specifier.contains(there, prereleases=True)
    ]


def _belongs(requirement: Requirement, extra: str | None) -> bool:
    always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if extra is None or requirement.marker is None:
        return always and extra is None
    return not always and requirement.marker.evaluate({"extra": extra})


def _version(package: str, otherwise: str = "unknown") -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise


def _devices() -> Iterator[tuple[str, str]]:
    """Each device as torch names it, and with its own name."""
    yield "cpu", "cpu"
    for number in range(torch.cuda.device_count()):
        yield f"cuda:{number}", f"cuda:{number} ({torch.cuda.get_device_name(number)})"
    if torch.backends.mps.is_available():
        yield "mps", "mps"


def _multiplies(device: str, dtype: torch.dtype) -> bool:
    try:
        ones = torch.ones(8, 8, dtype=dtype, device=device)
        return bool((ones @ ones == 8).all())
    except (RuntimeError, NotImplementedError, TypeError):
        return False


def _why_not_writable() -> str | None:
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return str(write_error(directory, error))


def self_test() -> Iterator[Check]:
    """Load the built-in model, locate its sinks by both sources, have it recite; a check is yielded as soon as it is done.

    Whatever goes wrong is a check that did not pass: finding that out is what this is for.
    """
    try:
        model = load("tiny")
    except Exception as error:
        yield Check(LOADS, False, _said(error))
        return
    yield Check(
        LOADS,
        True,
        f"{model.hf.num_parameters() / 1e6:.1f} million weights on {model.device}, every file as it was shipped",
    )
    for what, work in WORK.items():
        try:
            yield Check(what, True, work(model))
        except Exception as error:
            yield Check(what, False, _said(error))


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, (_Unwell, ValueError)) and text else f"{type(error).__name__}: {text}"


def _locates(model: Model) -> str:
    passages = load_benchmark("tiny").full_length_passages("holdout", model.tokenizer)[:PASSAGES]
    hooks, tiled = (locate(model, passages, CaptureConfig(backend=name)) for name in BACKENDS)
    apart = float(np.abs(hooks.alpha.values - tiled.alpha.values).max())
    if not apart <= AGREE:
        raise _Unwell(f"α by hooks and by tiles differs by up to {apart:.2g}")
    strongest, first = hooks.strongest(1), float(hooks.alpha.sel(position=0).mean())
    if strongest != 0:
        raise _Unwell(
            f"the strongest sink of {model.name} is its first token, but position {strongest} was found"
        )
    return f"the first token receives {first:.2f} of all attention in {len(passages)} passages; hooks and tiles differ by {apart:.0e} at most"


def _recites(model: Model) -> str:
    items = verbmem_items(load_benchmark("tiny"), "forget", model)[:PROMPTS]
    texts = generate(model, [item.prompt for item in items], TOKENS)
    right = [
        text.strip()
        for item, text in zip(items, texts, strict=True)
        if item.reference.strip().startswith(text.strip())
    ]
    if len(right) < RIGHT:
        raise _Unwell(
            f"{model.name} went on as its book does at {len(right)} of {len(items)} places, and said “{texts[0].strip()}” at the first"
        )
    return f"it went on as its book does at {len(right)} of {len(items)} places, as with “{right[0]}”"


LOADS = "load the built-in model"
WORK: dict[str, Callable[[Model], str]] = {"locate sinks by both sources": _locates, "generate": _recites}
