"""Batched greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from sinkscope.io.progress import OnProgress
from sinkscope.models.interventions import mask_keys
from sinkscope.models.model import Model


def generate(
    model: Model,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    *,
    hidden: Sequence[Sequence[int]] | None = None,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Greedy continuations as text, in the order of `prompts` (token ids, BOS first).

    Prompts of similar length share a batch, padded on the left; the padding is masked and positions count from each prompt's first
    real token, so the texts do not depend on the batching (up to rounding).

    Args:
        hidden: per prompt, positions that later ones cannot attend to, in the prompt as in its continuation (see `interventions.mask_keys`).
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    pad = (
        model.tokenizer.pad_token_id
        if model.tokenizer.pad_token_id is not None
        else (model.tokenizer.eos_token_id or 0)
    )
    start = 0
    for batch in model.batches([prompts[i] for i in order], batch_size, side="left"):
        chosen, width = order[start : start + batch_size], batch.ids.shape[1]
        start += len(chosen)
        masked = [hidden[i] for i in chosen] if hidden else []
        with torch.no_grad(), mask_keys(model, masked) if any(masked) else nullcontext():
            output = model.hf.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
            )
        for i, row in zip(chosen, output[:, width:].tolist(), strict=True):
            texts[i] = model.tokenizer.decode(row, skip_special_tokens=True)
        if on_progress:
            on_progress(start, len(order))
    return texts
