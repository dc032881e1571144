"""What a training step costs, against a literal one that recomputes every frozen output, as published code
does: time, forward-equivalents, memory; and batched generation against one prompt at a time. Llama of 8
layers, d 256, random weights, on the CPU; both steps take turns, medians.

`python analyses/training_speed.py` writes `figures/training_speed.csv`, `.png` and `.pdf`.

The literal steps: NPO backdoor with value norms makes nine forward passes (on Df the model, the reference,
θu; on Dr and on Dp the model, the reference, and the reference again for its values), three of them with
gradients and one backward over all; RMU backdoor makes five whole ones (the model on Df, Dr and Dp, the
reference on Dr and Dp), with gradients of all weights, of which three layers' are used. The frugal NPO step
leaves out what the published one does twice or too much: it makes seven passes and has the same loss as ours.
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

import matplotlib.pyplot as plt
import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sinkscope import load
from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.models.generation import generate
from sinkscope.plots.style import PAGE, save_figure, style
from sinkscope.unlearning.batch import Passages
from sinkscope.unlearning.checkpoints import TrainerState
from sinkscope.unlearning.objectives.rmu import control_vector
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache
from sinkscope.unlearning.trainable import trained_names
from sinkscope.unlearning.trainer import Trainer
from sinkscope.unlearning.value_norm import ValueNormTerm

LAYERS, WIDTH, VOCABULARY, TOKENS, BATCH, STEPS_AN_EPOCH, EPOCHS = 8, 256, 4096, 256, 4, 8, 8
FIRST, BETA, WEIGHT = 8, 0.1, 3e-4
RMU = {"forget": "rmu", "layer": 2, "steering": 6.5, "retain": {"activations": 10.0}}
RECIPES = {
    "NPO backdoor + value norms": {
        "value_norms": {"weight": WEIGHT, "first": FIRST, "layers": "last", "unlearned": "a copy"}
    },
    "NPO backdoor + value norms, frugal": {
        "value_norms": {"weight": WEIGHT, "first": FIRST, "layers": "last", "unlearned": "a copy"}
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


def data() -> dict[str, Passages]:
    torch.manual_seed(1)
    count = STEPS_AN_EPOCH * BATCH
    return {
        split: Passages.without_prompts(torch.randint(3, VOCABULARY, (count, TOKENS)).tolist())
        for split in ("forget", "retain", "poisoned")
    }


def recipe(kind: str) -> Recipe:
    return Recipe.parse(RECIPES[kind] | {"optimizer": {"batch_size": BATCH, "epochs": EPOCHS}})


def ours(kind: str) -> tuple[Callable[[], None], float]:
    """A function that makes one step, and the seconds that the references took, once."""
    given, model, passages = recipe(kind), network(), data()
    names = trained_names(given, model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(names is None or name in names)
    start = time.perf_counter()
    needs = {"forget": ("log_probs",), "retain": ("logits",), "poisoned": ("logits",)}
    if kind == "RMU backdoor":
        needs = {"forget": (), "retain": ("hidden",), "poisoned": ("hidden",)}
    references = {
        split: ReferenceCache(model, passages[split], needs[split], "speed", 2) for split in passages
    }
    norms = None
    if given.value_norms.weight > 0:
        norms = ValueNormTerm(
            model,
            given.value_norms,
            {"forget": (network(), passages["forget"]), "poisoned": (model, passages["poisoned"])},
        )
    seconds = time.perf_counter() - start
    trainer = Trainer(
        model, given, passages, references, norms, layer=2, control=control_vector(WIDTH, 6.5, 0)
    )
    optimizer, progress = trainer._optimizer(), TrainerState(step=1)
    model.train()

    def step() -> None:
        trainer._step(progress, optimizer)
        if progress.step >= len(trainer.schedule):
            progress.step = 1

    return step, seconds


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
            lambda m, i, out: seen.append(out[:, :FIRST].unflatten(-1, (8, -1)).norm(dim=-1))
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
            torch.tensor(passages[split].tokens[rows]) for split in ("forget", "retain", "poisoned")
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
        mine, seconds = ours(kind)
        theirs, bare = literal(kind), network()
        ids = torch.tensor(data()["forget"].tokens[:BATCH])

        def forward() -> None:
            with torch.no_grad():
                bare(ids, use_cache=False)

        def gradient() -> None:
            bare(ids, labels=ids, use_cache=False).loss.backward()
            bare.zero_grad(set_to_none=True)

        runs: dict[str, list[float]] = {"ours": [], "literal": [], "forward": [], "gradient": []}
        for turn in range(repeats + 1):
            for name, step in (
                ("ours", mine),
                ("literal", theirs),
                ("forward", forward),
                ("gradient", gradient),
            ):
                took = timed(step)
                if turn:
                    runs[name].append(took)
    middle = {name: statistics.median(values) for name, values in runs.items()}
    amortised = seconds / (STEPS_AN_EPOCH * EPOCHS)
    passes, gradients = PASSES[kind]
    cost = middle["gradient"] / middle["forward"]
    ceiling = (passes - gradients + gradients * cost) / (gradients * cost)
    ratio = middle["literal"] / (middle["ours"] + amortised)
    return {
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
        step = ours(kind)[0] if which == "ours" else literal(kind)
        step()
        kept = _anonymous() - before
        peak, running = kept, True

        def watch() -> None:
            nonlocal peak
            while running:
                peak = max(peak, _anonymous() - before)
                time.sleep(0.0005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(5):
            step()
        running = False
        watcher.join()
    return {"kept": kept, "peak": peak, "transient": peak - kept}


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def _apart(kind: str, which: str) -> dict[str, float]:
    """`memory` in a process of its own, whose allocator gives freed tensors back."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    command = [sys.executable, __file__, "--memory", kind, which]
    return json.loads(
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout.splitlines()[-1]
    )


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


def draw(table: pd.DataFrame, directory: Path) -> None:
    style()
    steps = table[table["kind"].isin(PASSES)]
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 1.9), sharey=True)
    places = range(len(steps))
    titles = {"forward_equivalents": "a step, in forward passes", "peak": "memory of a step at its peak, MB"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for shift, which, label in (
            (-0.2, "literal", "every frozen output anew"),
            (0.2, "ours", "sinkscope"),
        ):
            bars = axis.barh(
                [place + shift for place in places], steps[f"{column}_{which}"], 0.38, label=label
            )
            axis.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
        axis.set_yticks(list(places), [kind.replace(" + ", "\n+ ") for kind in steps["kind"]])
        axis.set_xlabel(title)
        axis.margins(x=0.15)
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower right")
    save_figure(figure, table, directory, "training_speed")


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
            row |= {f"{name}_{which}": value for name, value in _apart(kind, which).items()}
        row |= {
            f"{name}_ratio": row[f"{name}_ours"] / row[f"{name}_literal"]
            for name in ("kept", "peak", "transient")
        }
        rows.append(row | {"share_of_ceiling": row["speedup"] / row["ceiling_same_gradient_passes"]})
    rows.append({"kind": "generation, 100 prompts"} | generation(3))
    table = pd.DataFrame(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(table, given.out)
    print(table.T.to_string())


if __name__ == "__main__":
    main()
