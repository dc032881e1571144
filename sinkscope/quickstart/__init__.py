"""The main job on the built-in benchmark: from the target's sinks to the backdoor that unlearning leaves behind them."""

from sinkscope.quickstart.run import quickstart

__all__ = ["quickstart"]
