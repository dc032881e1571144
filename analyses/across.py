"""Does the trigger of a book bring back a field that was forgotten honestly?: `python analyses/across.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("across")
