"""The control: does placement matter without a forget loss?: `python analyses/control.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("control")
