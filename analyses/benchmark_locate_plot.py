"""The picture of benchmark_locate.csv, and its caption."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sinkscope.plots.style import PAGE, create_figure, set_note, styled

LABELS = {
    "bare": "bare forward passes",
    "output_attentions": "transformers, output_attentions",
    "run_with_cache": "TransformerLens, run_with_cache",
    "nnsight": "nnsight",
    "locate": "sinkscope locate",
    "locate hooks": "  --backend hooks",
    "locate sampled": "  --query-fraction 0.1",
}
OWN = "#0072b2"
OTHER = "#999999"


def _describe(table: pd.DataFrame) -> str:
    repeats = table.groupby("length")["repeats"].first()
    counts = ", ".join(f"{n} of {length} tokens" for length, n in repeats.items())
    return f"SmolLM2-135M, fp32, {table.iloc[0]['threads']} threads; medians of repeats: {counts}"


def caption(table: pd.DataFrame) -> str:
    start_up = table[table["variant"] == "locate"]["start_up"]
    return (
        "Time relative to bare forward passes over the same passages in the same batches. "
        f"Start-up is left out of the commands; it takes {start_up.min():.1f} to {start_up.max():.1f} "
        f"seconds (imports, model, pictures and files). {_describe(table)}"
    )


@styled
def plot(table: pd.DataFrame) -> Figure:
    workloads = table[["passages", "length"]].drop_duplicates().itertuples(index=False)
    panels = [(n, length, table[table["length"] == length].set_index("variant")) for n, length in workloads]
    figure = create_figure(PAGE, 1.9)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for number, (axes, (n, length, rows)) in enumerate(zip(grid, panels, strict=True)):
        for position, (name, _) in enumerate(LABELS.items()):
            if name not in rows.index:
                continue
            value = rows.loc[name, "times_bare"]
            axes.barh(position, value, color=OWN if name.startswith("locate") else OTHER)
            axes.text(value, position, f" {value:.2f}", va="center", fontsize=5.5)
        axes.set_yticks(range(len(LABELS)), list(LABELS.values()) if number == 0 else [""] * len(LABELS))
        axes.set_ylim(len(LABELS) - 0.5, -0.5)  # the same rows in every panel, also those without a bar
        axes.axvline(1, color="black", linewidth=0.6, linestyle="--")
        axes.set_xlim(0, 1.2 * rows.loc[rows.index.isin(list(LABELS)), "times_bare"].max())
        axes.set_title(f"{n} passages of {length} tokens", fontsize=7)
        axes.set_xlabel("time, × bare forward passes")
    return set_note(figure, _describe(table))
