"""Write the captions of all pictures in a directory into its README.md: `python analyses/captions.py [DIR]`.

They are made from the tables beside the pictures, and stand between two comments in the file.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd
from make import find_figures

BEGIN, END = "<!-- captions: made by analyses/captions.py -->", "<!-- end of captions -->"
OTHERS = {
    "smollm2_atlas": ("Attention sinks of a real model", "smollm2_atlas"),
    "trajectory": ("How a backdoor forms", "trajectory"),
    "benchmark_capture": ("Time and memory of attention capture", "benchmark_capture_plot"),
    "benchmark_locate": ("Time of locate on a real model", "benchmark_locate_plot"),
    "benchmark_training": ("Time and memory of a training step", "benchmark_training_plot"),
}
"""Pictures that are no figure of a study: title, and the module with `caption`."""
WIDTH = 110


def read_table(path: Path) -> pd.DataFrame:
    """The numbers of a picture as it was made from them: text that is empty is not missing."""
    frame = pd.read_csv(path)
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    return frame.fillna(dict.fromkeys(texts, ""))


def collect_captions() -> dict[str, tuple[str, Callable[[pd.DataFrame], str]]]:
    """Name -> title and caption, of all figures, and of other pictures."""
    captions = {name: (figure.title, figure.caption) for name, figure in find_figures().items()}
    for name, (title, module) in OTHERS.items():
        captions[name] = (title, import_module(module).caption)
    return captions


def format_captions(directory: Path) -> str:
    """A heading, the picture and its caption for each picture that is in the directory with its table."""
    parts = [BEGIN]
    for name, (title, caption) in collect_captions().items():
        if not all((directory / f"{name}.{kind}").is_file() for kind in ("png", "csv")):
            continue
        text = caption(read_table(directory / f"{name}.csv")).rstrip(".")
        text = textwrap.fill(
            f"{text[0].upper()}{text[1:]}. [Numbers]({name}.csv)", WIDTH, break_on_hyphens=False
        )
        parts += [f"## {title}", f"![{title}]({name}.png)", text]
    return "\n\n".join([*parts, END])


def replace_captions(page: str, captions: str) -> str:
    """The page with these captions in place of its own, or after its text if it has none."""
    before, begin, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    return f"{before.rstrip()}\n\n{captions}{after}"


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    page = directory / "README.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    page.write_text(replace_captions(text, format_captions(directory)), encoding="utf-8")


if __name__ == "__main__":
    main()
