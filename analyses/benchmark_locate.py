"""Benchmark of the whole command `locate` on SmolLM2-135M, against bare forward passes and other tools.

    sinkscope fetch smollm2 && python analyses/benchmark_locate.py

Every measurement is a process of its own; variants take turns within a repeat, each time in another order, so
that other load affects all of them equally. `bare` runs the decoder on the same passages in the same batches,
without logits, as the command does, after a warm-up; the tools compute α of every position and head as their
users would. `seconds` are wall time and `megabytes` the peak of the process; start-up is the same command on
one short passage (imports, model, pictures, files), for each backend. Medians over repeats; `times_bare` is
(seconds − start-up) / seconds of the passes of `bare`, and `times_needed` is seconds / (start-up + those
passes), each within a repeat. nnsight is measured if it is installed. Of passages above 1024 tokens only
`locate` is measured: the other tools keep patterns of 40 GB. Writes benchmark_locate.{csv,png,pdf}.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from benchmark_locate_plot import plot

from sinkscope.models.model import Model, load
from sinkscope.models.smollm2 import find_smollm2
from sinkscope.plots.style import save_figure
from sinkscope.text import tokenize_passages
from sinkscope.text_sources import read_texts

WORKLOADS = ((100, 64), (10, 1024), (5, 2048))
"""Passages, and tokens in each."""
BATCH_SIZE = 8
COMMANDS: dict[str, list[str]] = {
    "locate": [],
    "locate hooks": ["--backend", "hooks"],
    "locate sampled": ["--query-fraction", "0.1"],
}
START_UP = {
    "locate": "start-up, tiled",
    "locate hooks": "start-up, hooks",
    "locate sampled": "start-up, tiled",
}
"""For each the start-up with its backend; `locate` itself chooses tiles for such texts."""
NOT_SAMPLED = 128
"""Passages up to this length are read in full anyway."""
LONGEST = 1024
"""For tools that keep all patterns of a batch."""
Passages = list[list[int]]
Run = Callable[[Passages], None]


def write_text(path: Path, model: Model, n_passages: int, length: int) -> None:
    """Random words, as many as give so many passages."""
    tokenizer = model.tokenizer
    words = "the of and a in is it that was for on are with as his they at be this from have or by one had"
    words = random.Random(0).choices(words.split(), k=n_passages * length)  # a token each
    n_tokens = n_passages * (length - (model.bos_id is not None))
    ids = tokenizer.encode(" ".join(words), add_special_tokens=False)[:n_tokens]
    path.write_text(tokenizer.decode(ids), encoding="utf-8")


def read_passages(model: Model, text: Path, length: int, n_passages: int) -> Passages:
    """What the command cuts the text into."""
    passages = list(tokenize_passages(read_texts(text), model, length))
    if [len(each) for each in passages] != [length] * n_passages:
        raise ValueError(f"{text} gives passages of {[*map(len, passages)]} tokens")
    return passages


def bare(model: str) -> Run:
    """The passes alone, without logits."""
    network = _network(model).base_model

    def run(passages: Passages) -> None:
        for ids, mask in _batches(passages):
            network(input_ids=ids, attention_mask=mask, use_cache=False)

    return run


def output_attentions(model: str) -> Run:
    import torch

    network = _network(model, attn_implementation="eager").base_model

    def run(passages: Passages) -> None:
        for ids, mask in _batches(passages):
            output = network(input_ids=ids, attention_mask=mask, use_cache=False, output_attentions=True)
            for pattern in output.attentions:
                pattern.sum(2) / torch.arange(ids.shape[1], 0, -1)

    return run


def run_with_cache(model: str) -> Run:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(model, hf_model=_network(model), device="cpu")

    def run(passages: Passages) -> None:
        names = lambda name: name.endswith("attn.hook_pattern")  # noqa: E731
        for ids, mask in _batches(passages):
            _, cache = bridge.run_with_cache(ids, attention_mask=mask, names_filter=names, return_type=None)
            for layer in range(bridge.cfg.n_layers):
                cache[f"blocks.{layer}.attn.hook_pattern"].sum(2) / torch.arange(ids.shape[1], 0, -1)

    return run


def nnsight(model: str) -> Run:
    import torch
    from nnsight import LanguageModel

    network = LanguageModel(model, attn_implementation="eager", dispatch=True)

    def run(passages: Passages) -> None:
        for ids, _ in _batches(passages):
            with network.trace(ids.tolist(), output_attentions=True):
                alphas = list().save()  # noqa: C408  # a literal list has no method of nnsight
                for layer in network.model.layers:
                    alphas.append(layer.self_attn.output[1].sum(2) / torch.arange(ids.shape[1], 0, -1))
            assert len(alphas) == len(network.model.layers)

    return run


TOOLS = {function.__name__: function for function in (bare, output_attentions, run_with_cache, nnsight)}


def _network(model: str, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False, **options).eval()


def _batches(passages: Passages) -> list[tuple[Any, Any]]:
    """Token ids and masks, of passages of one length."""
    import torch

    batches = [passages[start : start + BATCH_SIZE] for start in range(0, len(passages), BATCH_SIZE)]
    return [(ids, torch.ones_like(ids)) for ids in map(torch.tensor, batches)]


def work(tool: str, model: str, passages: Passages) -> None:
    """Print the seconds of the passes of a tool, after one passage."""
    import torch

    with torch.no_grad():
        run = TOOLS[tool](model)
        run(passages[:1])
        start = time.perf_counter()
        run(passages)
    print(json.dumps({"passes": time.perf_counter() - start}))


def measure(command: list[str]) -> dict[str, float]:
    """Wall time and peak memory of a process, and what it printed last, if that is JSON."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {stderr.read().decode()[-2000:]}")
        lines = stdout.read().decode().splitlines()
    row = {"seconds": seconds, "megabytes": usage.ru_maxrss / 1024}
    return row | (json.loads(lines[-1]) if lines[-1:] and lines[-1].startswith("{") else {})


def find_variants(model: Model, directory: Path, n_passages: int, length: int) -> dict[str, list[str]]:
    """The command of each variant of a workload, whose text is written to `directory`."""
    text, short, ids = (directory / f"{name}-{length}" for name in ("text.txt", "short.txt", "ids.json"))
    write_text(text, model, n_passages, length)
    write_text(short, model, 1, 64)
    ids.write_text(json.dumps(read_passages(model, text, length, n_passages)), encoding="utf-8")
    variants = {
        tool: [sys.executable, __file__, "--worker", tool, model.name, str(ids)]
        for tool in TOOLS
        if tool == "bare" or (length <= LONGEST and (tool != "nnsight" or find_spec("nnsight")))
    }
    sinkscope = [sys.executable, "-m", "sinkscope", "locate", model.name, "--max-length", str(length)]
    for name, options in COMMANDS.items():
        if (name == "locate sampled" and length <= NOT_SAMPLED) or (
            name == "locate hooks" and length > LONGEST
        ):
            continue
        variants[name] = [*sinkscope, *options, "--text", str(text)]
        backend = "hooks" if "hooks" in options else "tiled"
        variants[START_UP[name]] = [*sinkscope, "--backend", backend, "--text", str(short)]
    return variants


def benchmark(model: Model, n_passages: int, length: int, repeats: int, directory: Path) -> pd.DataFrame:
    """A row per variant of a workload."""
    rows = []
    variants = find_variants(model, directory, n_passages, length)
    for repeat in range(repeats):
        for name in random.Random(repeat).sample([*variants], len(variants)):
            out = ["--out", str(directory / f"{length}-{repeat}-{name}")]
            found = measure([*variants[name], *(out if "locate" in variants[name] else [])])
            row = {"passages": n_passages, "length": length, "variant": name, "repeat": repeat, **found}
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    return summarize(pd.DataFrame(rows))


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Ratios within each repeat, and medians over repeats."""
    repeats = frame["repeat"].nunique()
    seconds = frame.set_index(["length", "repeat", "variant"])["seconds"]
    passes = frame[frame["variant"] == "bare"].set_index(["length", "repeat"])["passes"]
    for index, row in frame.iterrows():
        at = (row["length"], row["repeat"])
        if row["variant"] in COMMANDS:
            start_up = seconds[(*at, START_UP[row["variant"]])]
            frame.loc[index, "start_up"] = start_up
            frame.loc[index, "times_bare"] = (row["seconds"] - start_up) / passes[at]
            frame.loc[index, "times_needed"] = row["seconds"] / (start_up + passes[at])
        elif row["variant"] in TOOLS:
            frame.loc[index, "times_bare"] = row["passes"] / passes[at]
    medians = frame.groupby(["passages", "length", "variant"]).median(numeric_only=True)
    return medians.drop(columns="repeat").reset_index().assign(repeats=repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a directory; by default SmolLM2-135M-Instruct")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        tool, model, ids = options.worker
        work(tool, model, json.loads(Path(ids).read_text(encoding="utf-8")))
        return
    threads = str(options.threads)
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    model = load(options.model or find_smollm2(), "cpu")
    table = pd.DataFrame()
    for workload in WORKLOADS:
        with tempfile.TemporaryDirectory() as directory:
            rows = benchmark(model, *workload, options.repeats, Path(directory))
        table = pd.concat([table, rows.assign(threads=options.threads)], ignore_index=True)
        save_figure(plot(table), table, options.out, "benchmark_locate")  # so far


if __name__ == "__main__":
    main()
