"""Figure 4: confidence in the next token with and without the trigger: `python analyses/top1.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("top1")
