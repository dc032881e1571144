"""Table 1: unlearned and backdoored models on MUSE, here on the built-in book: `python analyses/table1.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("table1")
