"""Figure 6: what aligning value norms adds to a backdoor, by share of poisoned passages: `python analyses/ratio_regularization.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("ratio_regularization")
