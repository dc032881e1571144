"""How the tiny benchmark's models are trained: one base on general text and the retain book, then both models from it, with and without the forget book.

Beside the shipped kind there are others for studies of what sinks have to do with it: with a learned sink in the softmax, without a BOS, under a price on
looking at the first position.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from tokenizers import processors
from torch import Tensor
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
)

from sinkscope.io.progress import OnProgress
from sinkscope.models.attention_penalty import attention_penalty, first_token_penalty, value_norm_penalty
from sinkscope.models.model import Model
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.synthetic.books import Corpora
from sinkscope.synthetic.language import Language
from sinkscope.synthetic.passages import InTurn, Mix, PassageStream

CURVE_EVERY = 200
LAYERS = 4
PROBE_PASSAGES, PROBE_TOKENS = 32, 64


@dataclass(frozen=True)
class Phase:
    """Steps of AdamW over passages of one mix: a warm-up, then a constant learning rate or, with `decay`, a cosine to zero."""

    steps: int
    mix: Mix
    learning_rate: float
    weight_decay: float = 0.1
    warmup: int = 100
    decay: bool = True
    weights: tuple[float, float, float] = (1.0, 0.3, 8.0)
    """What a token counts in the loss: text, inserted (it is mostly chance), first behind an aside (it is rare and hard)."""
    value_norm_penalty: float = 0.0
    """Weight of the idle price in the loss (see `prices`)."""
    first_token_penalty: float = 0.0
    """Weight of the price on the first position; not beside the other."""


BASE = Mix(10, chapters={"retain": 3}, pages={"retain": 1}, aside_share=1.0, asides=10)
BOOKS = Mix(
    16, chapters={"forget": 8, "retain": 3}, pages={"forget": 2, "retain": 1}, aside_share=1.0, asides=4
)


@dataclass(frozen=True)
class Training:
    """The base learns the language, the retain book, and to read on behind asides; then the target reads the forget book, the retrained
    model general text in its place; at last an idle cost makes the sinks stronger, while they read on."""

    base: Phase = Phase(2000, BASE, 3e-3, decay=False)
    books: Phase = Phase(1200, BOOKS, 3e-3)
    rest: Phase = Phase(600, BOOKS, 1e-3, warmup=30, value_norm_penalty=0.1)

    def shortened(self, steps: int) -> Training:
        """The same training with a base of `steps` steps and the other phases in proportion."""
        share = steps / self.base.steps
        books, rest = (
            replace(phase, steps=max(1, round(phase.steps * share))) for phase in (self.books, self.rest)
        )
        return Training(replace(self.base, steps=steps), books, rest)


Sink = Literal["bos", "learned", "avoided", "no-bos"]
"""Where a pretrained model's heads may rest: on BOS; on a parameter in the softmax, as in gpt-oss; not on the first position, which costs; on whatever token
comes first."""


AVOIDING = 1.0
CAN_IDLE = ("bos", "no-bos")
"""Kinds that the idle price suits: it needs attention that is shared among tokens alone, and a sink."""


def training_of(sink: Sink, value_norm_penalty: float = 0.0) -> Training:
    """The shipped training of a kind, with the idle price at this weight in its last phase (the shipped target: 0.1)."""
    shipped = Training()
    base, books, rest = (
        replace(phase, value_norm_penalty=0.0, first_token_penalty=AVOIDING if sink == "avoided" else 0.0)
        for phase in (shipped.base, shipped.books, shipped.rest)
    )
    return Training(base, books, replace(rest, value_norm_penalty=value_norm_penalty))


def init_model(tokenizer: PreTrainedTokenizerFast, seed: int, sink: Sink = "bos") -> PreTrainedModel:
    """A freshly initialized network of 1.3 M parameters: a Llama, or for a learned sink a gpt-oss of the same sizes with one expert."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if sink != "learned":
        return _named(LlamaForCausalLM(LlamaConfig(**sizes)))
    alike = {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    }
    one_expert = {"num_local_experts": 1, "num_experts_per_tok": 1}
    whole = {"layer_types": ["full_attention"] * LAYERS, "sliding_window": sizes["max_position_embeddings"]}
    return _named(GptOssForCausalLM(GptOssConfig(**sizes, **alike, **one_expert, **whole)))


def _named(network: PreTrainedModel) -> PreTrainedModel:
    """TransformerLens wants the configuration to name the architecture."""
    network.config.architectures = [type(network).__name__]
    return network


def phase_of(settings: dict[str, Any]) -> Phase:
    """A phase from what `dataclasses.asdict` made of it, also by way of JSON."""
    return Phase(**settings | {"mix": Mix(**settings["mix"]), "weights": tuple(settings["weights"])})


def without_bos(tokenizer: PreTrainedTokenizerFast, directory: Path) -> PreTrainedTokenizerFast:
    """The same tokens, none of which begins a text; saved to `directory` and read back from there."""
    raw = copy.deepcopy(tokenizer.backend_tokenizer)
    raw.post_processor = processors.TemplateProcessing(single="$A")
    others = {"pad_token": tokenizer.pad_token, "eos_token": tokenizer.eos_token}
    PreTrainedTokenizerFast(tokenizer_object=raw, padding_side="left", **others).save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def pretrain_stage(
    network: PreTrainedModel,
    corpora: Corpora,
    tokenizer: PreTrainedTokenizerFast,
    sides: Sequence[str],
    phase: Phase,
    seed: str,
    on_progress: OnProgress,
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """A copy of `network`, trained for one phase on the books of `sides`; and the curve of its sinks (see `trained`)."""
    return train(
        network,
        PassageStream(corpora, tokenizer, sides, phase.mix, f"passages {seed}"),
        probe(corpora.language, tokenizer),
        phase,
        on_progress,
    )


@contextmanager
def deterministic() -> Iterator[None]:
    """Sums in a fixed order, also where several threads add up (the experts of gpt-oss)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@deterministic()
def train(
    network: PreTrainedModel,
    stream: PassageStream | InTurn,
    plain: list[list[int]],
    phase: Phase,
    on_progress: OnProgress,
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """A copy of `network`, trained for one phase on a stream; and the curve of its sinks over the passages `plain` (step, loss, alpha_max,
    alpha_last_layer, share_above)."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=phase.weight_decay
    )
    if phase.decay:
        schedule = get_cosine_schedule_with_warmup(optimizer, phase.warmup, phase.steps)
    else:
        schedule = get_constant_schedule_with_warmup(optimizer, phase.warmup)
    curve = []
    for step in range(1, phase.steps + 1):
        network.train()
        ids, kinds = stream.batch()
        weight, price = (
            (phase.first_token_penalty, first_token_penalty)
            if phase.first_token_penalty
            else (phase.value_norm_penalty, value_norm_penalty)
        )
        paying: AbstractContextManager[list[Tensor]] = (
            attention_penalty(network, price) if weight else nullcontext([])
        )
        with paying as costs:
            logits = network(input_ids=ids).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        weights = torch.tensor(phase.weights)[kinds[:, 1:].flatten()]
        optimizer.zero_grad()
        paid = weight * torch.stack(costs).mean() if costs else 0.0
        ((losses * weights).sum() / weights.sum() + paid).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_progress(step, phase.steps)
        if step % CURVE_EVERY == 0 or step == phase.steps:
            network.eval()
            sinks = locate(
                Model("in training", network, stream.tokenizer),
                plain,
                CaptureConfig(batch_size=PROBE_PASSAGES),
            )
            alpha = sinks.alpha.sel(position=0)
            record = {
                "step": step,
                "loss": losses.mean().item(),
                "alpha_max": float(alpha.max()),
                "alpha_last_layer": float(alpha[-1].mean()),
            }
            curve.append(record | {"share_above": sinks.heads_above(0.3)})
    return network.eval(), pd.DataFrame(curve)


def probe(language: Language, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """General text that no model is trained on, without insertions."""
    rng = random.Random("probe")
    stories = [
        tokenizer.encode(language.story(rng, 2 * PROBE_TOKENS), add_special_tokens=False)
        for _ in range(PROBE_PASSAGES)
    ]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [[*start, *story][:PROBE_TOKENS] for story in stories]
