"""Table 3: what hiding tokens leaves of the backdoor: `python analyses/masking.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("masking")
