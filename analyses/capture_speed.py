"""What it costs to measure sinks: our two sources against a bare forward pass and what people use instead.

    python analyses/capture_speed.py                      # the whole table
    python analyses/capture_speed.py --lengths 512 1024   # a part of it

Every measurement has a process of its own; variants take turns within a repeat, so that a busy machine troubles all of them alike. Time is one
pass over one passage after a warm-up, memory the peak of the resident set above the loaded model. Writes `figures/capture_speed.{csv,png,pdf}`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from sinkscope.models import Model

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
HOLDS_ATTENTION = ("output_attentions", "run_with_cache", "lens")
LONGEST_HELD = 4096
"""Beyond, a variant that holds whole layers of attention in memory is left out: it would need tens of gigabytes."""


def bare(model: Model, passage: list[int]) -> None:
    _forward(model, passage)


def output_attentions(model: Model, passage: list[int]) -> None:
    import torch

    model.hf.set_attn_implementation("eager")
    attentions = _forward(model, passage, output_attentions=True).attentions
    queries = torch.arange(len(passage), 0, -1)
    [layer[0].sum(-2) / queries for layer in attentions]


def run_with_cache(model: Model, passage: list[int]) -> None:
    import torch

    queries = torch.arange(len(passage), 0, -1)
    wanted = lambda name: name.endswith(("hook_pattern", "v.hook_out"))  # noqa: E731
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(torch.tensor([passage]), names_filter=wanted, return_type=None)
    for layer in range(model.n_layers):
        cache[f"blocks.{layer}.attn.hook_pattern"][0].sum(-2) / queries
        cache[f"blocks.{layer}.attn.v.hook_out"].norm(dim=-1)


def lens(model: Model, passage: list[int]) -> None:
    _ours(model, passage, "lens")


def stream(model: Model, passage: list[int]) -> None:
    _ours(model, passage, "stream")


VARIANTS: dict[str, Callable[[Model, list[int]], None]] = {function.__name__: function for function in (bare, output_attentions, run_with_cache, lens, stream)}


def _forward(model: Model, passage: list[int], **options: bool):  # type: ignore[no-untyped-def]
    import torch

    with torch.no_grad():
        return model.hf(input_ids=torch.tensor([passage]), use_cache=False, logits_to_keep=1, **options)


def _ours(model: Model, passage: list[int], source: str) -> None:
    from sinkscope.capture import lens, stream
    from sinkscope.capture.reducers import ColumnMass

    reducer = ColumnMass(model.n_layers, model.n_heads, len(passage), 0.3)
    (lens if source == "lens" else stream).capture(model, [passage], [reducer], batch_size=1)
    reducer.result()


def _model() -> Model:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from sinkscope.models import Model, data_directory

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=max(LENGTHS),
    )
    network = LlamaForCausalLM(config).eval()
    network.config.architectures = [type(network).__name__]
    return Model("random", network, PreTrainedTokenizerFast.from_pretrained(data_directory() / "target"))


def measure(variant: str, length: int) -> dict[str, float]:
    """Seconds and peak megabytes of one pass, in this process."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, function = _model(), VARIANTS[variant]
    passage = torch.randint(3, 2048, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    function(model, passage[:64])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    function(model, passage)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20}


def run(lengths: list[int], repeats: int, threads: int) -> pd.DataFrame:
    """Medians over repeats, and ratios to the bare forward pass of the same repeat."""
    rows = []
    for length in lengths:
        for repeat in range(repeats):
            for variant in VARIANTS:
                if variant in HOLDS_ATTENTION and length > LONGEST_HELD:
                    continue
                command = [sys.executable, __file__, "--worker", variant, "--lengths", str(length)]
                done = subprocess.run(command, capture_output=True, text=True, env=_environment(threads), check=True)
                rows.append({"length": length, "repeat": repeat, "variant": variant} | json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], file=sys.stderr)
    each = pd.DataFrame(rows)
    base = each[each["variant"] == "bare"].set_index(["length", "repeat"])["seconds"]
    each["times_bare"] = each["seconds"] / base.reindex(pd.MultiIndex.from_frame(each[["length", "repeat"]])).to_numpy()
    table = each.groupby(["length", "variant"], sort=False).median(numeric_only=True).drop(columns="repeat").reset_index()
    memory = table[table["variant"] == "bare"].set_index("length")["megabytes"]
    table["memory_times_bare"] = table["megabytes"] / memory.reindex(table["length"]).to_numpy()
    table["repeats"], table["threads"] = repeats, threads
    return table


def _environment(threads: int) -> dict[str, str]:
    import os

    return os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


def draw(table: pd.DataFrame, directory: Path) -> None:
    import matplotlib.pyplot as plt

    from sinkscope.plots.style import PAGE, save, style

    style()
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.4))
    lengths = sorted(table["length"].unique())
    for axis, column, label in zip(axes, ("times_bare", "megabytes"), ("time, × bare forward pass", "peak memory above the model, MB"), strict=True):
        for variant, mine in table.groupby("variant", sort=False):
            axis.plot(mine["length"], mine[column], marker="o", markersize=3, label=variant.replace("_", " "))
        axis.set(xscale="log", yscale="log", xlabel="tokens in one passage", ylabel=label)
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
    times = [1, 1.5, 2, 3, 5, 8]
    axes[0].set_yticks(times, [f"{time:g}" for time in times])
    axes[0].legend()
    row = table.iloc[0]
    figure.suptitle(f"8 layers × 8 heads, width 256, grouped keys; medians of {row['repeats']}, {row['threads']} threads", fontsize=7)
    save(figure, table, directory, "capture_speed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments.lengths[0])))
    else:
        draw(run(arguments.lengths, arguments.repeats, arguments.threads), arguments.out)
