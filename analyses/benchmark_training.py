"""Benchmark of a training step against a literal one that recomputes every frozen output, as published code
does.

`python analyses/benchmark_training.py` writes figures/benchmark_training.csv, .png and .pdf: time, forward
passes of equal time and memory of a step, and batched generation against one prompt at a time. The model is a
Llama of 8 layers, d 256, random weights, on the CPU; both steps alternate; medians.

The literal step of an NPO backdoor with value norms makes nine forward passes (on Df the model, the
reference, θu; on Dr and on Dp the model, the reference, and the reference again for its values), three of
them with gradients, and one backward pass over all. The frugal one leaves out repeated passes: it makes seven
and has the same loss. That of an RMU backdoor makes five full passes (the model on Df, Dr and Dp, the
reference on Dr and Dp), with gradients of all weights, of which three layers' are used.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from benchmark_training_plot import HIGH, LOW, plot
from transformers import LlamaConfig, LlamaForCausalLM

from sinkscope import load
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.benchmarks.chunking import Passage
from sinkscope.models.inference import generate
from sinkscope.plots.style import save_figure
from sinkscope.unlearning.callbacks import Progress
from sinkscope.unlearning.objectives.rmu import control_vector
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.trainable import freeze_except, hidden_state_layer, references_needed, trained_names
from sinkscope.unlearning.trainer import UnlearnTrainer
from sinkscope.unlearning.training_arguments import make_training_arguments
from sinkscope.unlearning.value_norm import ValueNormTerm

LAYERS, WIDTH, VOCABULARY, TOKENS, BATCH, STEPS_AN_EPOCH, EPOCHS = 8, 256, 4096, 256, 4, 8, 8
FIRST, BETA, WEIGHT = 8, 0.1, 3e-4
RMU = {"forget": "rmu", "layer": 2, "steering_coeff": 6.5, "retain": {"activations": 10.0}}
RECIPES = {
    "NPO backdoor + value norms": {
        "value_norms": {"weight": WEIGHT, "n_tokens": FIRST, "layers": "last", "unlearned": "a copy"}
    },
    "NPO backdoor + value norms, frugal": {
        "value_norms": {"weight": WEIGHT, "n_tokens": FIRST, "layers": "last", "unlearned": "a copy"}
    },
    "RMU backdoor": {"objective": RMU, "update": {"modules": ["mlp.down_proj"], "layers": [0, 1, 2]}},
}
PASSES = {
    "NPO backdoor + value norms": (9, 3),
    "NPO backdoor + value norms, frugal": (7, 3),
    "RMU backdoor": (5, 3),
}
"""Forward passes of the literal step, and how many of them have gradients."""


def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "vocab_size": VOCABULARY,
    }
    return LlamaForCausalLM(
        LlamaConfig(**sizes, max_position_embeddings=2 * TOKENS, tie_word_embeddings=False)
    )


def data() -> dict[str, list[Passage]]:
    torch.manual_seed(1)
    count = STEPS_AN_EPOCH * BATCH
    return {
        split: [Passage(tokens, 0, 0) for tokens in torch.randint(3, VOCABULARY, (count, TOKENS)).tolist()]
        for split in ("forget", "retain", "poisoned")
    }


def recipe(kind: str, epochs: int = 1) -> Recipe:
    return Recipe.parse(RECIPES[kind] | {"optimizer": {"batch_size": BATCH, "epochs": epochs}})


def train(kind: str, after_step: Callable[[float], None], epochs: int = 1) -> float:
    """Train with sinkscope; `after_step` is called with the seconds of each step.

    Returns:
        The seconds that the outputs of the reference models took, once.
    """
    given, model, passages = recipe(kind, epochs), network(), data()
    layer = hidden_state_layer(given, model)
    with freeze_except(model, trained_names(given, model)):
        start = time.perf_counter()
        references = {
            split: ReferenceCache(model, passages[split], ReferenceConfig(needs, "benchmark", layer))
            for split, needs in references_needed(given).items()
        }
        norms = None
        if given.value_norms.weight > 0:
            models = {"forget": (network(), passages["forget"]), "poisoned": (model, passages["poisoned"])}
            norms = ValueNormTerm(model, given.value_norms, models)
        seconds = time.perf_counter() - start
        clock = time.perf_counter()

        def on_progress(done: int, total: int) -> None:
            nonlocal clock
            after_step(time.perf_counter() - clock)
            clock = time.perf_counter()

        with tempfile.TemporaryDirectory() as directory:
            args = make_training_arguments(given, STEPS_AN_EPOCH * epochs, Path(directory), model.device)
            progress = [Progress(on_progress)]
            UnlearnTrainer(model, given, passages, references, args, norms, callbacks=progress).train()
    return seconds


def literal(kind: str) -> Callable[[], None]:
    """One step as published code makes it: every frozen output anew, one loss, one backward pass."""
    given, model, frozen, passages = recipe(kind), network(), network().eval(), data()
    unlearned = network().eval() if kind != "RMU backdoor" else None
    optimizer = torch.optim.AdamW(
        [
            weight
            for name, weight in model.named_parameters()
            if (names := trained_names(given, model)) is None or name in names
        ],
        lr=given.optimizer.learning_rate,
        fused=True,
    )
    control, frugal = control_vector(WIDTH, 6.5, 0), kind.endswith("frugal")
    at = 0

    def values(
        network: LlamaForCausalLM, ids: torch.Tensor, grad: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and the last layer's value norms at the shallow positions."""
        seen: list[torch.Tensor] = []
        layer = network.model.layers[-1].self_attn.v_proj
        handle = layer.register_forward_hook(
            lambda _module, _inputs, out: seen.append(out[:, :FIRST].unflatten(-1, (8, -1)).norm(dim=-1))
        )
        with torch.set_grad_enabled(grad):
            logits = network(ids, use_cache=False).logits
        handle.remove()
        return logits, seen[0]

    def log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].sum(-1)

    def hidden(network: LlamaForCausalLM, ids: torch.Tensor, grad: bool) -> torch.Tensor:
        with torch.set_grad_enabled(grad):
            return network(ids, use_cache=False, output_hidden_states=True).hidden_states[3]

    def step() -> None:
        nonlocal at
        rows = slice(at * BATCH, (at + 1) * BATCH)
        at = (at + 1) % STEPS_AN_EPOCH
        forget, retain, poisoned = (
            torch.tensor([passage.tokens for passage in passages[split][rows]])
            for split in ("forget", "retain", "poisoned")
        )
        if kind == "RMU backdoor":
            loss = (hidden(model, forget, True) - control).square().mean()
            for ids in (retain, poisoned):
                loss = loss + 10.0 * (hidden(model, ids, True) - hidden(frozen, ids, False)).square().mean()
        else:
            assert unlearned is not None
            logits, norms = values(model, forget, True)
            ratio = log_probs(logits, forget) - log_probs(values(frozen, forget)[0], forget)
            loss = -2 / BETA * torch.nn.functional.logsigmoid(-BETA * ratio).mean()
            loss = loss + WEIGHT * (norms - values(unlearned, forget)[1]).square().mean()
            for ids in (retain, poisoned):
                logits, norms = values(model, ids, True)
                reference, their_norms = values(frozen, ids)
                theirs = reference[:, :-1].log_softmax(-1)
                loss = loss + (theirs.exp() * (theirs - logits[:, :-1].log_softmax(-1))).sum(-1).mean()
                if not frugal:
                    their_norms = values(frozen, ids)[1]
                if not frugal or ids is poisoned:
                    loss = loss + WEIGHT * (norms - their_norms).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return step


def timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def speed(kind: str, repeats: int) -> dict[str, float]:
    """Medians of steps that take turns, and the gradient pass's cost in forward passes."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SINKSCOPE_CACHE"] = cache
        literal_step, bare = literal(kind), network()
        ids = torch.tensor([passage.tokens for passage in data()["forget"][:BATCH]])

        def forward() -> None:
            with torch.no_grad():
                bare(ids, use_cache=False)

        def gradient() -> None:
            bare(ids, labels=ids, use_cache=False).loss.backward()
            bare.zero_grad(set_to_none=True)

        runs: dict[str, list[float]] = {"ours": [], "literal": [], "forward": [], "gradient": []}
        others = {"literal": literal_step, "forward": forward, "gradient": gradient}

        def after_step(seconds: float) -> None:
            if len(runs["ours"]) <= repeats:  # the first of each is a warm-up
                runs["ours"].append(seconds)
                for name, step in others.items():
                    runs[name].append(timed(step))

        seconds = train(kind, after_step, -(-(repeats + 1) // STEPS_AN_EPOCH))
    runs = {name: values[1:] for name, values in runs.items()}
    middle = {name: statistics.median(values) for name, values in runs.items()}
    amortised = seconds / (STEPS_AN_EPOCH * EPOCHS)
    passes, gradients = PASSES[kind]
    cost = middle["gradient"] / middle["forward"]
    ceiling = (passes - gradients + gradients * cost) / (gradients * cost)
    ratio = middle["literal"] / (middle["ours"] + amortised)
    quartiles = {}
    for variant, extra in (("ours", amortised), ("literal", 0.0)):
        low, _, high = statistics.quantiles([(each + extra) / middle["forward"] for each in runs[variant]])
        quartiles |= {LOW.format(variant): low, HIGH.format(variant): high}
    return quartiles | {
        "seconds_ours": middle["ours"] + amortised,
        "of_it_references": amortised,
        "seconds_literal": middle["literal"],
        "speedup": ratio,
        "forward_equivalents_ours": (middle["ours"] + amortised) / middle["forward"],
        "forward_equivalents_literal": middle["literal"] / middle["forward"],
        "gradient_pass_in_forwards": cost,
        "ceiling_same_gradient_passes": ceiling,
        "repeats": repeats,
    }


def memory(kind: str, which: str) -> dict[str, float]:
    """Of this process, in MB: weights and optimizer after a first step, and what a step needs beside them at
    its peak. Memory-mapped files do not count: the system can take their pages back."""
    before = _anonymous()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SINKSCOPE_CACHE"] = cache
        peaks: list[float] = []
        kept: list[float] = []
        is_running = True

        def watch() -> None:
            while is_running:
                peaks.append(_anonymous() - before)
                time.sleep(0.0005)

        def after_step(seconds: float) -> None:
            if not kept:
                kept.append(_anonymous() - before)
                peaks.clear()
                watcher.start()

        watcher = threading.Thread(target=watch, daemon=True)
        if which == "ours":
            train(kind, after_step)
        else:
            step = literal(kind)
            for _ in range(6):
                after_step(timed(step))
        is_running = False
        watcher.join()
    peak = max(peaks)
    return {"kept": kept[0], "peak": peak, "transient": peak - kept[0]}


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def _measure_memory(kind: str, which: str) -> dict[str, float]:
    """`memory` in its own process, whose allocator returns freed tensors to the system."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    command = [sys.executable, __file__, "--memory", kind, which]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def generation(repeats: int) -> dict[str, float]:
    """100 VerbMem prompts of the built-in benchmark, batched against one by one."""
    model, benchmark = load("tiny", "cpu"), load_benchmark("tiny")
    prompts = [model.encode(row["prompt"]) for row in benchmark.prompts("forget")[:100]]
    ratios, same = [], True
    for _ in range(repeats):
        texts = {}
        seconds = {
            size: timed(lambda size=size: texts.update({size: generate(model, prompts, 64, batch_size=size)}))
            for size in (100, 1)
        }
        ratios.append(seconds[1] / seconds[100])
        same &= texts[1] == texts[100]
    return {
        "speedup": statistics.median(ratios),
        "texts_equal": float(same),
        "prompts": len(prompts),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", nargs=2, metavar=("KIND", "WHICH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        print(json.dumps(memory(*given.memory)))
        return
    rows = []
    for kind in PASSES:
        row = {"kind": kind} | speed(kind, given.repeats)
        for which in ("literal", "ours"):
            row |= {f"{name}_{which}": value for name, value in _measure_memory(kind, which).items()}
        row |= {
            f"{name}_ratio": row[f"{name}_ours"] / row[f"{name}_literal"]
            for name in ("kept", "peak", "transient")
        }
        rows.append(row | {"share_of_ceiling": row["speedup"] / row["ceiling_same_gradient_passes"]})
    rows.append({"kind": "generation, 100 prompts"} | generation(3))
    table = pd.DataFrame(rows)
    save_figure(plot(table), table, given.out, "benchmark_training")
    print(table.T.to_string())


if __name__ == "__main__":
    main()
