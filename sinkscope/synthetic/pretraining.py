"""Pretraining of the built-in models: stages of AdamW over streams of passages, with the curve of their
sinks.

A shared model learns general text and the retain book (`pretrain`). From it the target learns the forget
book, and the retain model general text in its place (`memorize`). At last a penalty on value norms makes the
sinks stronger (`anneal`). Studies pretrain other kinds: with a learned sink in the softmax, without BOS, or
with a penalty on attention to the first token.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic.dataclasses import dataclass
from tokenizers import processors
from torch import Tensor
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    get_scheduler,
)

from sinkscope.io.progress import OnProgress
from sinkscope.models.attention import attention_penalty, first_token_penalty, value_norm_penalty
from sinkscope.models.bos import leading_ids
from sinkscope.models.model import Model
from sinkscope.sinks.locate import CaptureConfig, locate
from sinkscope.synthetic.language import Language
from sinkscope.synthetic.passages import PassageMix, PassageStream

CURVE_EVERY = 200
N_LAYERS = 4
HELD_OUT_PASSAGES, HELD_OUT_TOKENS = 32, 64

Sink = Literal["bos", "learned", "penalized", "no-bos"]
"""What a pretrained model's heads can attend to: BOS; a parameter in the softmax, as in gpt-oss; not the
first token, which is penalized; the first token of the text, without BOS."""
VALUE_NORM_SINKS = ("bos", "no-bos")
"""Kinds that the value-norm penalty fits: attention is shared among tokens alone, and there is a sink."""
STREAM_NAMES = {"pretrain": "base", "memorize": "books", "anneal": "rest", "penalized": "avoided"}
"""Names in the seeds of random streams that differ from those of stages and sinks: results depend on them."""


@dataclass(frozen=True)
class TrainingStage:
    """Steps of AdamW over passages of one mix: warm-up, then a constant learning rate or, with `decay`, a
    cosine to 0. Of the penalties (see `models.attention`) only one can have a weight.

    Attributes:
        weights: of tokens in the loss: text, inserted (mostly random), first after a distractor (rare and
            hard).
    """

    steps: int
    mix: PassageMix
    learning_rate: float
    weight_decay: float = 0.1
    warmup: int = 100
    decay: bool = True
    weights: tuple[float, float, float] = (1.0, 0.3, 8.0)
    value_norm_penalty: float = 0.0
    first_token_penalty: float = 0.0


PRETRAIN_MIX = PassageMix(
    10, chapters={"retain": 3}, pages={"retain": 1}, distractor_rate=1.0, distractors=10
)
BOOKS_MIX = PassageMix(
    16,
    chapters={"forget": 8, "retain": 3},
    pages={"forget": 2, "retain": 1},
    distractor_rate=1.0,
    distractors=4,
)


def training_plan(
    sink: Sink = "bos", value_norm_penalty: float = 0.1, steps: int | None = None
) -> dict[str, TrainingStage]:
    """The stages of a model, by default of the built-in target.

    Args:
        value_norm_penalty: its weight in the last stage.
        steps: of the first stage, the others in proportion.
    """
    stages = {
        "pretrain": TrainingStage(2000, PRETRAIN_MIX, 3e-3, decay=False),
        "memorize": TrainingStage(1200, BOOKS_MIX, 3e-3),
        "anneal": TrainingStage(600, BOOKS_MIX, 1e-3, warmup=30, value_norm_penalty=value_norm_penalty),
    }
    if sink == "penalized":
        stages = {name: replace(stage, first_token_penalty=1.0) for name, stage in stages.items()}
    return dict(zip(stages, scale_steps(list(stages.values()), steps), strict=True))


def scale_steps(stages: Sequence[TrainingStage], steps: int | None) -> list[TrainingStage]:
    """The stages with `steps` steps in the first one and the others in proportion, at least one."""
    share = 1.0 if steps is None else steps / stages[0].steps
    return [replace(stage, steps=max(1, round(stage.steps * share))) for stage in stages]


def stream_seed(stage: str, sink: str, seed: int) -> str:
    """The seed of the passages that a stage of a study's target reads."""
    return f"passages {STREAM_NAMES.get(stage, stage)} {STREAM_NAMES.get(sink, sink)} {seed}"


def init_model(tokenizer: PreTrainedTokenizerFast, seed: int, sink: Sink = "bos") -> PreTrainedModel:
    """A randomly initialized model of 1.3 M parameters: a Llama, or a gpt-oss with one expert for a learned
    sink."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model: PreTrainedModel
    if sink == "learned":
        as_llama = {
            "num_key_value_heads": 4,
            "head_dim": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": False,
            "num_local_experts": 1,
            "num_experts_per_tok": 1,
            "layer_types": ["full_attention"] * N_LAYERS,
            "sliding_window": sizes["max_position_embeddings"],
        }
        model = GptOssForCausalLM(GptOssConfig(**sizes, **as_llama))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.config.architectures = [type(model).__name__]  # TransformerLens reads the architecture here
    return model


def without_bos(tokenizer: PreTrainedTokenizerFast, directory: Path) -> PreTrainedTokenizerFast:
    """The same tokenizer without a BOS token; saved to `directory` and loaded from there."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.post_processor = processors.TemplateProcessing(single="$A")
    specials = {"pad_token": tokenizer.pad_token, "eos_token": tokenizer.eos_token}
    return save_tokenizer(backend, specials, directory)


def save_tokenizer(backend: Any, specials: dict[str, Any], directory: Path) -> PreTrainedTokenizerFast:
    """A tokenizer, saved to `directory` and loaded from there: TransformerLens needs its path."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **specials)
    tokenizer.save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def train(
    model: PreTrainedModel, streams: Sequence[PassageStream], stage: TrainingStage, on_progress: OnProgress
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """A copy of `model`, trained for one stage on batches of the streams in turn; and the curve of its sinks
    on held-out text.

    The columns of the curve are step, loss, alpha_max, alpha_last_layer, share_above (of heads with α > 0.3).
    """
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=stage.weight_decay
    )
    name = "cosine" if stage.decay else "constant_with_warmup"
    schedule = get_scheduler(name, optimizer, stage.warmup, stage.steps)
    tokenizer = streams[0].tokenizer
    held_out = held_out_passages(streams[0].language, tokenizer)
    curve = []
    with _deterministic():
        for step in range(1, stage.steps + 1):
            model.train()
            ids, kinds = streams[(step - 1) % len(streams)].batch()
            losses, penalty = _losses(model, stage, ids)
            weights = torch.tensor(stage.weights)[kinds[:, 1:].flatten()]
            optimizer.zero_grad()
            ((losses * weights).sum() / weights.sum() + penalty).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            on_progress(step, stage.steps)
            if step % CURVE_EVERY == 0 or step == stage.steps:
                sinks = sink_numbers(Model("in training", model.eval(), tokenizer), held_out)
                curve.append({"step": step, "loss": losses.mean().item()} | sinks)
    return model.eval(), pd.DataFrame(curve)


def _losses(model: PreTrainedModel, stage: TrainingStage, ids: Tensor) -> tuple[Tensor, Tensor | float]:
    """The loss of every predicted token, and the weighted attention penalty."""
    weight, penalty = stage.value_norm_penalty, value_norm_penalty
    if stage.first_token_penalty:
        weight, penalty = stage.first_token_penalty, first_token_penalty
    context: AbstractContextManager[list[Tensor]] = nullcontext([])
    if weight:
        context = attention_penalty(model, penalty)
    with context as penalties:
        logits = model(input_ids=ids).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return losses, weight * torch.stack(penalties).mean() if penalties else 0.0


def sink_numbers(model: Model, passages: Sequence[list[int]]) -> dict[str, float]:
    """How strong the sink at the first position is: the largest α, its mean in the last layer, and the share
    of heads with α > 0.3."""
    sinks = locate(model, list(passages), CaptureConfig(batch_size=HELD_OUT_PASSAGES))
    alpha = sinks.alpha.sel(position=0)
    return {
        "alpha_max": float(alpha.max()),
        "alpha_last_layer": float(alpha[-1].mean()),
        "share_above": sinks.heads_above(0.3),
    }


@contextmanager
def _deterministic() -> Iterator[None]:
    """Sums in a fixed order, also with several threads (the experts of gpt-oss)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def held_out_passages(language: Language, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """General text that no model is trained on, without insertions."""
    rng = random.Random("probe")
    stories = [
        tokenizer.encode(language.story(rng, 2 * HELD_OUT_TOKENS), add_special_tokens=False)
        for _ in range(HELD_OUT_PASSAGES)
    ]
    bos = leading_ids(tokenizer)
    return [[*bos, *story][:HELD_OUT_TOKENS] for story in stories]
