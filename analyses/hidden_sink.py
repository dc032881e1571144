"""Does the backdoor need its sink, in training or when asked?: `python analyses/hidden_sink.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("hidden_sink")
