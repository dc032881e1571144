"""The sinks of a real language model, on the license of this repository: the README's first picture.

    sinkscope fetch smollm2 && python analyses/smollm2_atlas.py

It is the atlas that `sinkscope locate smollm2 --text LICENSE` draws; smollm2_atlas.{csv,png,pdf} in figures/.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sinkscope.models.model import load
from sinkscope.plots.sinks import draw_atlas
from sinkscope.plots.style import save_figure
from sinkscope.sinks.locate import locate
from sinkscope.text import tokenize_passages
from sinkscope.text_sources import read_texts

ROOT = Path(__file__).parents[1]
LENGTH = 64


def measure() -> pd.DataFrame:
    """The columns of `SinkMap.to_frame()` at the strongest position, and the number of passages."""
    model = load("smollm2", "cpu")
    passages = tokenize_passages(read_texts(ROOT / "LICENSE"), model, LENGTH)
    sinks = locate(model, passages)
    frame = sinks.to_frame()
    at_strongest = frame[frame["position"] == sinks.strongest(1)]
    return at_strongest.assign(passages=len(passages), bos=model.begins_with)


def _describe(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return (
        f"SmolLM2-135M-Instruct (4-bit weights, dequantized), n\u00a0=\u00a0{first['passages']} passages "
        f"of ≤ {LENGTH} tokens, {first['bos']}"
    )


def caption(table: pd.DataFrame) -> str:
    return (
        "Attention that the first token receives, and the share of passages in which it exceeds 0.3, by "
        f"layer and head: mean over passages. {_describe(table)}"
    )


def draw(table: pd.DataFrame) -> Figure:
    return draw_atlas(table, int(table["position"].iloc[0]), f"mean over passages, {_describe(table)}")


if __name__ == "__main__":
    data = measure()
    save_figure(draw(data), data, ROOT / "figures", "smollm2_atlas")
