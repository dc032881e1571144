"""Sink strength, reach or distance: what decides how well a trigger works?: `python analyses/sink_regression.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("sink_regression")
