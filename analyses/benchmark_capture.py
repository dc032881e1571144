"""What it costs to measure sinks: our sources against a bare forward pass and what people use instead.

    python analyses/capture_speed.py                      # the whole table
    python analyses/capture_speed.py --lengths 512 1024   # a part of it

Every measurement has a process of its own; variants take turns within a repeat, so that a busy machine
troubles all of them alike. Time is one pass over one passage after a warm-up. Memory is the peak above the
loaded model: `megabytes` once, with an allocator that gives freed tensors back to the system, so that it says
what was needed; `megabytes_default` with the usual one, which keeps what it likes (median of the repeats). On
a machine with a GPU the table also has rows for it, in bf16 and the shape of Llama-7B with random weights,
with time between CUDA events. Writes `figures/capture_speed.{csv,png,pdf}`, and `capture_memory.csv`: the
peak over 10, 100 and 1000 passages of 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from sinkscope.models.model import Model

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEST_HELD = 4096
"""Beyond, a variant that holds whole layers of attention in memory is left out: it would need tens of
gigabytes."""
WARM_UP = 64
PASSAGES, PASSAGE = (10, 100, 1000), 256
SMALL = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
LARGE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
SHAPES = {
    "cpu": "8 layers × 8 heads, width 256, grouped keys, fp32",
    "cuda": "32 layers × 32 heads, width 4096, bf16",
}
Passages = list[list[int]]


def bare(model: Model, passages: Passages) -> None:
    for passage in passages:
        _forward(model, passage)


def output_attentions(model: Model, passages: Passages) -> None:
    import torch

    model.hf.set_attn_implementation("eager")
    for passage in passages:
        attentions = _forward(model, passage, output_attentions=True).attentions
        queries = torch.arange(len(passage), 0, -1, device=model.device)
        [layer[0].sum(-2) / queries for layer in attentions]


def run_with_cache(model: Model, passages: Passages) -> None:
    import torch

    wanted = lambda name: name.endswith(("hook_pattern", "v.hook_out"))  # noqa: E731
    for passage in passages:
        queries = torch.arange(len(passage), 0, -1, device=model.device)
        with torch.no_grad():
            _, cache = model.bridge.run_with_cache(
                torch.tensor([passage], device=model.device), names_filter=wanted, return_type=None
            )
        for layer in range(model.n_layers):
            cache[f"blocks.{layer}.attn.hook_pattern"][0].sum(-2) / queries
            cache[f"blocks.{layer}.attn.v.hook_out"].norm(dim=-1)


def lens(model: Model, passages: Passages) -> None:
    from sinkscope.sinks import hooks as lens

    lens.capture(model, passages, [_column_mass(model, passages)], batch_size=1)


def stream(model: Model, passages: Passages) -> None:
    from sinkscope.sinks import tiled as stream

    stream.capture(model, passages, [_column_mass(model, passages)], batch_size=1)


def sampled(model: Model, passages: Passages) -> None:
    from sinkscope.sinks import tiled as stream
    from sinkscope.sinks.sampling import SampledSinkStatistics, Sampling

    tenth = Sampling(0.1)
    stream.capture(
        model,
        passages,
        [SampledSinkStatistics(model.n_layers, model.n_heads, len(passages[0]), tenth)],
        batch_size=1,
        sampling=tenth,
    )


HOLD_ATTENTION = (output_attentions, run_with_cache, lens)
VARIANTS: dict[str, Callable[[Model, Passages], None]] = {
    function.__name__: function for function in (bare, *HOLD_ATTENTION, stream, sampled)
}


def _forward(model: Model, passage: list[int], **options: bool) -> Any:
    import torch

    with torch.no_grad():
        return model.hf(
            input_ids=torch.tensor([passage], device=model.device),
            use_cache=False,
            logits_to_keep=1,
            **options,
        )


def _column_mass(model: Model, passages: Passages):  # type: ignore[no-untyped-def]
    from sinkscope.sinks.statistics import SinkStatistics

    return SinkStatistics(model.n_layers, model.n_heads, len(passages[0]), 0.3)


def _model(device: str) -> Model:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from sinkscope.models.built_in import data_directory
    from sinkscope.models.model import Model

    torch.manual_seed(0)
    config = LlamaConfig(**(SMALL if device == "cpu" else LARGE), max_position_embeddings=max(LENGTHS))
    with torch.device(device):
        network = LlamaForCausalLM._from_config(
            config, dtype=torch.float32 if device == "cpu" else torch.bfloat16
        ).eval()
    network.config.architectures = [type(network).__name__]
    return Model("random", network, PreTrainedTokenizerFast.from_pretrained(data_directory() / "target"))


def measure(variant: str, length: int, passages: int, device: str) -> dict[str, float]:
    """Seconds and peak megabytes of one pass, in this process."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, function = _model(device), VARIANTS[variant]
    texts = torch.randint(
        3, 2048, (passages, length), generator=torch.Generator().manual_seed(length)
    ).tolist()
    function(model, [texts[0][:WARM_UP]])
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function(model, texts)
        end.record()
        torch.cuda.synchronize()
        return {
            "seconds": begin.elapsed_time(end) / 1000,
            "megabytes": (torch.cuda.max_memory_allocated() - before) / 2**20,
        }
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    function(model, texts)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20,
    }


def _apart(
    variant: str, length: int, passages: int, device: str, threads: int, giving_back: bool = False
) -> dict[str, Any]:
    """`measure` in a process of its own; nothing if it fails, as for want of memory."""
    command = [sys.executable, __file__, "--worker", variant, str(length), str(passages), device]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
    }
    if giving_back:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {}
    row = {"device": device, "length": length, "passages": passages, "variant": variant} | json.loads(
        done.stdout.splitlines()[-1]
    )
    print(row, file=sys.stderr)
    return row


def speed(device: str, lengths: list[int], repeats: int, threads: int) -> pd.DataFrame:
    """Medians over repeats, and ratios to the bare forward pass of the same repeat."""
    rows = []
    for length in lengths:
        for repeat in range(repeats):
            for variant, function in VARIANTS.items():
                if (function not in HOLD_ATTENTION or length <= LONGEST_HELD) and (
                    row := _apart(variant, length, 1, device, threads)
                ):
                    rows.append(row | {"repeat": repeat})
    each = pd.DataFrame(rows)
    base = each[each["variant"] == "bare"].set_index(["length", "repeat"])["seconds"]
    each["times_bare"] = (
        each["seconds"] / base.reindex(pd.MultiIndex.from_frame(each[["length", "repeat"]])).to_numpy()
    )
    table = (
        each.groupby(["device", "length", "variant"], sort=False)
        .median(numeric_only=True)
        .drop(columns=["repeat", "passages"])
        .reset_index()
    )
    return memory(table, threads).assign(repeats=repeats, threads=threads)


def memory(table: pd.DataFrame, threads: int) -> pd.DataFrame:
    """The table with the memory that each of its variants needs, and its ratio to the bare pass."""
    if table["device"].iloc[0] == "cpu":  # a GPU's allocator is asked for its peak directly
        table = table.rename(columns={"megabytes": "megabytes_default"})
        found = [
            _apart(variant, length, 1, "cpu", threads, giving_back=True)
            for variant, length in zip(table["variant"], table["length"], strict=True)
        ]
        table["megabytes"] = [row.get("megabytes") for row in found]
    bare = table[table["variant"] == "bare"].set_index("length")["megabytes"]
    return table.assign(memory_times_bare=table["megabytes"] / bare.reindex(table["length"]).to_numpy())


def draw(table: pd.DataFrame, directory: Path) -> None:
    import matplotlib.pyplot as plt

    from sinkscope.plots.style import PAGE, save_figure, style

    style()
    devices = list(table["device"].unique())
    figure, grid = plt.subplots(len(devices), 2, figsize=(PAGE, 2.4 * len(devices)), squeeze=False)
    for axes, device in zip(grid, devices, strict=True):
        mine = table[table["device"] == device]
        lengths = sorted(mine["length"].unique())
        for axis, column, label in zip(
            axes,
            ("times_bare", "megabytes"),
            ("time, × bare forward pass", "peak memory above the model, MB"),
            strict=True,
        ):
            for variant, line in mine.groupby("variant", sort=False):
                axis.plot(
                    line["length"],
                    line[column],
                    marker="o",
                    markersize=3,
                    label=str(variant).replace("_", " "),
                )
            axis.set(xscale="log", yscale="log", xlabel="tokens in one passage", ylabel=label)
            axis.set_xticks(lengths, [str(length) for length in lengths])
            axis.minorticks_off()
        times = [1, 1.5, 2, 3, 5, 8]
        axes[0].set_yticks(times, [f"{time:g}" for time in times])
        axes[0].set_title(f"{device}: {SHAPES[device]}")
    grid[0, 0].legend()
    row = table.iloc[0]
    figure.suptitle(
        f"medians of {row['repeats']}, {row['threads']} threads; sampled: a tenth of the rows", fontsize=7
    )
    save_figure(figure, table, directory, "capture_speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        variant, length, passages, device = arguments.worker
        print(json.dumps(measure(variant, int(length), int(passages), device)))
        return
    import torch

    tables: list[pd.DataFrame] = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        tables.append(speed(device, arguments.lengths, arguments.repeats, arguments.threads))
        draw(pd.concat(tables), arguments.out)
    flat = [
        _apart(variant, PASSAGE, n, "cpu", arguments.threads, giving_back=True)
        for variant in ("stream", "sampled")
        for n in PASSAGES
    ]
    pd.DataFrame(flat).to_csv(arguments.out / "capture_memory.csv", index=False)


if __name__ == "__main__":
    main()
