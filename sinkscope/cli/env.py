"""The command `sinkscope env`: installed versions, devices, and a self-test."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

import typer

from sinkscope.cli.console import print_result
from sinkscope.cli.options import JsonOpt


def env(json: JsonOpt = False) -> None:
    """Tell what is installed, and whether it works: versions, devices, cache, extras, and a self-test of a few seconds on the built-in model.

    Exits with 1 if the self-test fails or the cache cannot be written. What it prints belongs in a bug report.

    Example: `sinkscope env`
    """
    from sinkscope.environment import environment_report, self_test

    found = environment_report()
    if not json:
        _print(found)
    started, checks = time.perf_counter(), []
    for check in self_test():
        checks.append(check)
        if not json:
            print(
                f"self-test: {check.what}: {'passed' if check.passed else 'FAILED'}: {check.detail}",
                flush=True,
            )
    seconds = time.perf_counter() - started
    wrong = [f"the self-test failed to {check.what}: {check.detail}" for check in checks if not check.passed]
    if found["cache"]["refusal"]:
        wrong.append(found["cache"]["refusal"])
    if json:
        print_result(
            found
            | {
                "self_test": [asdict(check) for check in checks],
                "seconds": round(seconds, 1),
                "well": not wrong,
            },
            True,
        )
    elif not wrong:
        print(f"all is well ({seconds:.1f} s)")
    if wrong:
        print(f"sinkscope: {wrong[0]}", file=sys.stderr)
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    print(f"sinkscope {found['sinkscope']}, Python {found['python']}, {found['platform']}")
    print(", ".join(f"{name} {there}" for name, there in found["packages"].items()))
    for line in found["unmet"]:
        print(f"not what sinkscope asks for: {line}; install it again with pip install sinkscope")
    for device, dtypes in found["devices"].items():
        print(f"device {device}: {', '.join(dtypes)}")
    print(f"threads: {found['threads']} on {found['cores']} cores")
    print(f"cache: {found['cache']['refusal'] or found['cache']['directory'] + ', writable'}")
    for extra, about in found["extras"].items():
        state = (
            "installed"
            if about["installed"]
            else f'not installed ({", ".join(about["unmet"])}; pip install "sinkscope[{extra}]")'
        )
        print(f"extra {extra}, for {about['allows']}: {state}")
