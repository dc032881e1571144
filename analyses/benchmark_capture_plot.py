"""The picture of benchmark_capture.csv, and its caption."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots.style import (
    PAGE,
    SHAPES,
    add_legend,
    assign_colors,
    create_figure,
    legend_handle,
    set_note,
    styled,
)

MODELS = {
    "cpu": "8 layers × 8 heads, width 256, grouped keys, fp32",
    "cuda": "32 layers × 32 heads, width 4096, bf16",
}


def _describe(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"n\u00a0=\u00a0{first['repeats']} repeats, medians; {first['threads']} threads"


def caption(table: pd.DataFrame) -> str:
    lacking = sorted(table[table["megabytes"].isna()]["length"].unique())
    gaps = f" (not measured at {', '.join(map(str, lacking))} tokens)" if lacking else ""
    return (
        "One pass over one passage. Time is relative to a bare forward pass of the same repeat, memory the "
        f"peak above the loaded model{gaps}. “Output attentions”, “run with cache” and “hooks” hold whole "
        "layers of attention and are not measured on longer passages; “tiled” and “sampled” (a tenth of the "
        f"queries) do not. {_describe(table)}"
    )


@styled
def plot(table: pd.DataFrame) -> Figure:
    devices = list(table["device"].unique())
    figure = create_figure(PAGE, 0.5 + 2.2 * len(devices))
    grid = figure.subplots(len(devices), 2, squeeze=False)
    labels = {"times_bare": "time, × bare forward pass", "megabytes": "peak memory above the model, MB"}
    titles = {"times_bare": "time", "megabytes": "memory"}
    variants = [name for name in table["variant"].unique() if name != "bare"]
    styles = dict(zip(variants, zip(assign_colors(variants).values(), SHAPES, strict=False), strict=False))
    for row, device in zip(grid, devices, strict=True):
        part = table[table["device"] == device]
        lengths = sorted(part["length"].unique())
        for axes, (column, label) in zip(row, labels.items(), strict=True):
            base = part[part["variant"] == "bare"]
            axes.plot(base["length"], base[column], color="black", linewidth=0.8, linestyle="--")
            for variant, (shade, marker) in styles.items():
                line = part[part["variant"] == variant]
                axes.plot(line["length"], line[column], color=shade, marker=marker, **_dot(marker))
            axes.set(xscale="log", yscale="log", xlabel="tokens in one passage", ylabel=label)
            axes.set_title(f"{titles[column]}, {device}: {MODELS[device]}", fontsize=6)
            axes.set_xticks(lengths, [str(length) for length in lengths])
            axes.minorticks_off()
        times = [1, 1.5, 2, 3, 5, 8, 14]
        row[0].set_yticks(times, [f"{time:g}" for time in times])
    handles = [legend_handle("bare forward pass", linewidth=0.8, linestyle="--")]
    for name, (shade, marker) in styles.items():
        handles.append(
            legend_handle(name.replace("_", " "), shade, marker=marker, linestyle="-", **_dot(marker))
        )
    add_legend(figure, handles, 6)
    return set_note(figure, _describe(table))


def _dot(marker: str) -> dict[str, Any]:
    """Hollow squares, so that what they coincide with stays visible."""
    return {"markersize": 6, "markerfacecolor": "none"} if marker == "s" else {"markersize": 3.5}
