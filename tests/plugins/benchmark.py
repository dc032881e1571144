"""A plugin: the built-in benchmark with its first ten passages to recite."""

from __future__ import annotations

from dataclasses import replace

from sinkscope.benchmarks.benchmark import Benchmark, load_benchmark, register_benchmark


def load_short() -> Benchmark:
    """`tiny` with ten items per split."""
    return replace(load_benchmark("tiny").limit(10), name="short")


register_benchmark("short", load_short)
