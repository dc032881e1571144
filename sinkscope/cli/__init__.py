"""The command line: parse, call one library function, print."""

from sinkscope.cli.main import main

__all__ = ["main"]
