"""Greedy generation in batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sinkscope.io.progress import OnProgress
from sinkscope.models.likelihood import mask_rows
from sinkscope.models.model import Model


def generate(
    model: Model,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    *,
    masked: Sequence[Sequence[int]] | None = None,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Greedy continuations as text, in the order of `prompts` (token ids, BOS first).

    Prompts of similar length share a batch, padded on the left. The padding is masked and positions count
    from each prompt's first token, so the texts do not depend on the batches (up to rounding).

    Args:
        masked: per prompt, positions that later ones cannot attend to, also while the continuation is
            generated.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    tokenizer = model.tokenizer
    pad = tokenizer.eos_token_id or 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    done = 0
    for batch in model.batches([prompts[i] for i in order], batch_size, side="left"):
        group = order[done : done + batch_size]
        done += len(group)
        with torch.no_grad(), mask_rows(model, [masked[i] for i in group] if masked else ()):
            output = model.hf.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=pad,
            )
        for i, row in zip(group, output[:, batch.ids.shape[1] :].tolist(), strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True)
        if on_progress:
            on_progress(done, len(order))
    return texts
