"""What is left of a backdoor after further training, rounding, pruning and a second unlearning: `python analyses/persistence.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("persistence")
