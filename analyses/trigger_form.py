"""Figure 7: what the trigger says matters little, where it stands decides: `python analyses/trigger_form.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("trigger_form")
