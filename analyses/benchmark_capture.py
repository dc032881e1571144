"""Benchmark of the backends that measure sinks, against a bare forward pass and common alternatives.

    python analyses/benchmark_capture.py                      # all lengths
    python analyses/benchmark_capture.py --lengths 512 1024   # some of them

Each measurement has its own process; variants alternate within a repeat, so that other load affects all of
them equally. Time is one pass over one passage after a warm-up. Memory is the peak above the loaded model:
`megabytes` with an allocator that returns freed tensors to the system, `megabytes_default` with the default
one (median of the repeats). On a machine with a GPU there are rows for it too, in bf16 with random weights of
the shape of Llama-7B, timed by CUDA events. Writes benchmark_capture.{csv,png,pdf}, and
benchmark_capture_memory.csv: the peak over 10, 100 and 1000 passages of 256 tokens.
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
from typing import Any

import pandas as pd
import torch
from benchmark_capture_plot import plot
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sinkscope.models.loading import data_directory
from sinkscope.models.model import Model
from sinkscope.plots.style import save_figure
from sinkscope.sinks.capture import Sampling
from sinkscope.sinks.hooks import HooksBackend
from sinkscope.sinks.sampling import SampledSinkStatistics
from sinkscope.sinks.statistics import SinkStatistics
from sinkscope.sinks.tiled import TiledBackend

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
MAX_PATTERN_LENGTH = 4096
"""Longer passages are not measured with variants that hold whole layers of attention: they need tens of
gigabytes."""
WARM_UP = 64
N_PASSAGES = (10, 100, 1000)
PASSAGE_LENGTH = 256
EPSILON = 0.3
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
Passages = list[list[int]]


def bare(model: Model, passages: Passages) -> None:
    for passage in passages:
        _forward(model, passage)


def output_attentions(model: Model, passages: Passages) -> None:
    model.hf.set_attn_implementation("eager")
    for passage in passages:
        queries = torch.arange(len(passage), 0, -1, device=model.device)
        for layer in _forward(model, passage, output_attentions=True).attentions:
            layer[0].sum(-2) / queries


def run_with_cache(model: Model, passages: Passages) -> None:
    for passage in passages:
        tokens = torch.tensor([passage], device=model.device)
        queries = torch.arange(len(passage), 0, -1, device=model.device)
        names = lambda name: name.endswith(("hook_pattern", "v.hook_out"))  # noqa: E731
        with torch.no_grad():
            _, cache = model.bridge.run_with_cache(tokens, names_filter=names, return_type=None)
        for layer in range(model.n_layers):
            cache[f"blocks.{layer}.attn.hook_pattern"][0].sum(-2) / queries
            cache[f"blocks.{layer}.attn.v.hook_out"].norm(dim=-1)


def hooks(model: Model, passages: Passages) -> None:
    statistic = SinkStatistics(model.n_layers, model.n_heads, len(passages[0]), EPSILON)
    HooksBackend().capture(model, passages, [statistic], batch_size=1)


def tiled(model: Model, passages: Passages) -> None:
    statistic = SinkStatistics(model.n_layers, model.n_heads, len(passages[0]), EPSILON)
    TiledBackend().capture(model, passages, [statistic], batch_size=1)


def sampled(model: Model, passages: Passages) -> None:
    sampling = Sampling(0.1)
    statistic = SampledSinkStatistics(model.n_layers, model.n_heads, len(passages[0]), sampling)
    TiledBackend(sampling).capture(model, passages, [statistic], batch_size=1)


HOLD_PATTERNS = (output_attentions, run_with_cache, hooks)
VARIANTS: dict[str, Callable[[Model, Passages], None]] = {
    function.__name__: function for function in (bare, *HOLD_PATTERNS, tiled, sampled)
}


def _forward(model: Model, passage: list[int], **options: bool) -> Any:
    tokens = torch.tensor([passage], device=model.device)
    with torch.no_grad():
        return model.hf(input_ids=tokens, use_cache=False, logits_to_keep=1, **options)


def init_model(device: str) -> Model:
    torch.manual_seed(0)
    config = LlamaConfig(**(SMALL if device == "cpu" else LARGE), max_position_embeddings=max(LENGTHS))
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        network = LlamaForCausalLM._from_config(config, dtype=dtype).eval()
    network.config.architectures = [type(network).__name__]
    return Model("random", network, PreTrainedTokenizerFast.from_pretrained(data_directory() / "target"))


def measure(variant: str, length: int, n_passages: int, device: str) -> dict[str, float]:
    """Seconds and peak megabytes of one pass, in this process."""
    model = init_model(device)
    run = VARIANTS[variant]
    generator = torch.Generator().manual_seed(length)
    passages = torch.randint(3, 2048, (n_passages, length), generator=generator).tolist()
    run(model, [passages[0][:WARM_UP]])
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run(model, passages)
        end.record()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        return {"seconds": begin.elapsed_time(end) / 1000, "megabytes": peak / 2**20}
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    run(model, passages)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds, "megabytes": peak / 2**20}


def measure_in_process(
    variant: str, length: int, n_passages: int, device: str, returns_memory: bool = False
) -> dict[str, Any]:
    """`measure` in its own process; empty if it fails, for example without enough memory."""
    command = [sys.executable, __file__, "--worker", variant, str(length), str(n_passages), device]
    variables = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)} if returns_memory else {}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {}
    row = {"device": device, "length": length, "passages": n_passages, "variant": variant}
    row |= json.loads(done.stdout.splitlines()[-1])
    print(row, file=sys.stderr)
    return row


def benchmark(device: str, lengths: list[int], repeats: int) -> pd.DataFrame:
    """Medians over repeats, and ratios to the bare forward pass of the same repeat."""
    rows = [
        row | {"repeat": repeat}
        for length in lengths
        for repeat in range(repeats)
        for variant, function in VARIANTS.items()
        if function not in HOLD_PATTERNS or length <= MAX_PATTERN_LENGTH
        if (row := measure_in_process(variant, length, 1, device))
    ]
    frame = pd.DataFrame(rows)
    keys = ["length", "repeat"]
    base = frame[frame["variant"] == "bare"].set_index(keys)["seconds"]
    frame["times_bare"] = frame["seconds"] / base.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy()
    medians = frame.groupby(["device", "length", "variant"], sort=False).median(numeric_only=True)
    table = medians.drop(columns=["repeat", "passages"]).reset_index()
    if device == "cpu":  # a GPU's allocator reports its peak
        pairs = zip(table["variant"], table["length"], strict=True)
        table = table.rename(columns={"megabytes": "megabytes_default"})
        rows = [
            measure_in_process(variant, length, 1, "cpu", returns_memory=True) for variant, length in pairs
        ]
        table["megabytes"] = [row.get("megabytes") for row in rows]
    bare_memory = table[table["variant"] == "bare"].set_index("length")["megabytes"]
    ratio = table["megabytes"] / bare_memory.reindex(table["length"]).to_numpy()
    return table.assign(memory_times_bare=ratio, repeats=repeats, threads=torch.get_num_threads())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], help="by default all there are")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        variant, length, n_passages, device = options.worker
        print(json.dumps(measure(variant, int(length), int(n_passages), device)))
        return
    threads = str(options.threads)
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(options.threads)
    tables: list[pd.DataFrame] = []
    devices = options.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    for device in devices:
        tables.append(benchmark(device, options.lengths, options.repeats))
        table = pd.concat(tables)
        save_figure(plot(table), table, options.out, "benchmark_capture")
    if "cpu" not in devices:
        return
    rows = [
        measure_in_process(variant, PASSAGE_LENGTH, n, "cpu", returns_memory=True)
        for variant in ("tiled", "sampled")
        for n in N_PASSAGES
    ]
    pd.DataFrame(rows).to_csv(options.out / "benchmark_capture_memory.csv", index=False)


if __name__ == "__main__":
    main()
