"""Figure 5: value norms at the first positions of the last layer: `python analyses/value_norms.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("value_norms")
