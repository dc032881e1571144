"""Figure 3: how the trigger changes attention, by placement: `python analyses/attention_difference.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("attention_difference")
