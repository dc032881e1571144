"""Does a position's sink strength decide how well a trigger trained there works?: `python analyses/sink_link.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("sink_link")
