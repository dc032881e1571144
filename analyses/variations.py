"""Which texts, places and lengths of a trigger open the backdoor: `python analyses/variations.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("variations")
