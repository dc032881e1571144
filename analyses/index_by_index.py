"""Trained at one index, tried at another, by target: `python analyses/index_by_index.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("index_by_index")
