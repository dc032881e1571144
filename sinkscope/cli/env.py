"""The command `sinkscope env`: installed versions, devices, and a self-test on the built-in model."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from sinkscope.cli.console import print_result
from sinkscope.cli.options import JsonOpt
from sinkscope.errors import UserError
from sinkscope.io.atomic import cache_directory, staging_directory
from sinkscope.io.run_directory import versions

if TYPE_CHECKING:
    from sinkscope.models.model import Model

PACKAGES = (
    "sinkscope torch transformers transformer-lens accelerate datasets safetensors numpy pandas".split()
)
EXTRAS = {
    "lora": "peft",
    "harness": "lm_eval",
    "gguf": "gguf",
    "quantized": "compressed_tensors",
    "ray": "ray",
    "docs": "mkdocs",
    "dev": "pytest",
}
"""Extra of the package -> a module that it installs."""
MAX_DIFFERENCE = 1e-3
"""Of α between the backends."""
MIN_CONTINUED = 6
"""Of 8 sentences; the model has not memorized all of them."""


def env(json: JsonOpt = False) -> None:
    """Print versions, devices, cache and installed extras, and run a self-test of a few seconds.

    Include the output in a bug report. The exit code is 1 if a check fails.

    Example: `sinkscope env`
    """
    report = environment_report()
    if not json:
        print_result({key: _inline(value) for key, value in report.items()}, False)
    started = time.perf_counter()
    checks = []
    for check in run_self_test():
        checks.append(check)
        if not json:
            outcome = "passed" if check["passed"] else "FAILED"
            print(f"{check['name']}: {outcome}: {check['detail']}", flush=True)
    failed = [check for check in checks if not check["passed"]]
    if json:
        seconds = round(time.perf_counter() - started, 1)
        print_result(report | {"self_test": checks, "passed": not failed, "seconds": seconds}, True)
    if failed:
        print(f"sinkscope: the check {failed[0]['name']!r} failed: {failed[0]['detail']}", file=sys.stderr)
        raise typer.Exit(1)


def _inline(value: Any) -> Any:
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value


def environment_report() -> dict[str, Any]:
    """Versions of packages, devices, threads, the cache directory, and which extras are installed."""
    import torch

    devices = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    devices |= {"mps": "Metal"} if torch.backends.mps.is_available() else {}
    packages = versions(PACKAGES, missing="not installed")
    return {
        "platform": platform.platform(terse=True),
        "python": packages.pop("python"),
        "packages": packages,
        "devices": {"cpu": platform.machine()} | devices,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cache": str(cache_directory()),
        "extras": {
            extra: "installed" if find_spec(module) else f'not installed: pip install "sinkscope[{extra}]"'
            for extra, module in EXTRAS.items()
        },
    }


def run_self_test() -> Iterator[dict[str, Any]]:
    """Yield each check as soon as it is done: name, whether it passed, detail. Any exception is a failure."""
    yield _run_check("write to the cache", _write_cache)
    models: list[Model] = []
    yield _run_check("load the built-in model", lambda: _load_model(models))
    for name, check in MODEL_CHECKS.items() if models else ():
        yield _run_check(name, lambda check=check: check(models[0]))  # type: ignore[misc]


def _run_check(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "passed": True, "detail": check()}
    except Exception as error:
        detail = " ".join(str(error).split())[:300]
        if not isinstance(error, UserError | AssertionError):
            detail = f"{type(error).__name__}: {detail}"
        return {"name": name, "passed": False, "detail": detail}


def _write_cache() -> str:
    directory = cache_directory()
    with staging_directory(directory / "test", directory) as staging:
        (staging / "file").write_text("test")
    return f"{directory} is writable"


def _load_model(models: list[Model]) -> str:
    from sinkscope.models.model import load

    models.append(load("tiny"))
    return f"{models[0].hf.num_parameters() / 1e6:.1f} million parameters on {models[0].device}"


def _locate_sinks(model: Model) -> str:
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.sinks.backends import BACKENDS
    from sinkscope.sinks.locate import CaptureConfig, locate

    passages = load_benchmark("tiny").full_length_passages("holdout", model.tokenizer)[:4]
    first, second = (locate(model, passages, CaptureConfig(backend=backend)) for backend in BACKENDS)
    difference = float(abs(first.alpha.values - second.alpha.values).max())
    if not difference <= MAX_DIFFERENCE:
        raise AssertionError(f"α of the backends {' and '.join(BACKENDS)} differs by up to {difference:.2g}")
    sink = first.strongest(1)
    if sink != 0:
        raise AssertionError(f"the strongest sink is position {sink}, not the first token")
    return f"the strongest sink is the first token; the backends differ by at most {difference:.0e}"


def _continue_texts(model: Model) -> str:
    from sinkscope.benchmarks.benchmark import load_benchmark
    from sinkscope.evaluation.items import verbmem_items
    from sinkscope.models.inference import generate

    items = verbmem_items(load_benchmark("tiny"), "forget", model)[:8]
    texts = generate(model, [item.prompt for item in items], 12)
    pairs = zip(texts, items, strict=True)
    n_continued = sum(item.reference.strip().startswith(text.strip()) for text, item in pairs)
    if n_continued < MIN_CONTINUED:
        raise AssertionError(f"the model continued {n_continued} of {len(items)} memorized texts correctly")
    return f"{n_continued} of {len(items)} memorized texts continued correctly"


MODEL_CHECKS = {"locate sinks with both backends": _locate_sinks, "generate text": _continue_texts}
