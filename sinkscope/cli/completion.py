"""Values that the shell offers when Tab is pressed. Every press starts the command anew, so nothing here may load torch.

The shell offers files where nothing of these fits.
"""

from __future__ import annotations

MODELS = ("tiny", "tiny-retrained", "tiny-wmdp")
PLACEMENTS = ("prefix", "infix", "suffix", "index:8", "sink:1")
MASKS = ("shallow:8", "sinks:3", "span", "positions:4,9")
STATISTICS = ("entropy", "learned_sink")
SOURCES = ("lens", "stream")
DTYPES = ("float32", "bfloat16", "float16")


def models() -> tuple[str, ...]:
    """Built-in models."""
    return MODELS


def benchmarks() -> list[str]:
    """Benchmarks that have a name."""
    from sinkscope.benchmarks.benchmark import BUILT_IN
    from sinkscope.benchmarks.hub import HUB_BENCHMARKS

    return [*BUILT_IN, *HUB_BENCHMARKS]


def recipes() -> list[tuple[str, str]]:
    """Recipes that come with the package, each with its first line."""
    from sinkscope.unlearning.recipes import recipe_summaries

    return list(recipe_summaries().items())


def placements() -> tuple[str, ...]:
    """The five forms of a placement."""
    return PLACEMENTS


def several_placements(incomplete: str) -> list[str]:
    """The same behind each comma."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{each}" for each in PLACEMENTS]


def masks() -> tuple[str, ...]:
    """The four forms of a mask."""
    return MASKS


def statistics() -> tuple[str, ...]:
    """What `--also` measures."""
    return STATISTICS


def sources() -> tuple[str, ...]:
    """Where a capture gets its blocks."""
    return SOURCES


def dtypes() -> tuple[str, ...]:
    """What weights can be loaded as."""
    return DTYPES
