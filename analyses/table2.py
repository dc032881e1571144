"""Table 2: unlearned and backdoored models on WMDP-Bio, here on the built-in fields of knowledge: `python analyses/table2.py STUDY [--out figures]`."""

from sinkscope.figures import script

if __name__ == "__main__":
    script("table2")
