"""Figure 2: where the trigger stands decides whether an unlearned model answers again: `python analyses/trigger_position.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("trigger_position")
