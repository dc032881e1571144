"""How sure a model is of the next token at each position. Logits exist for a few positions at a time only."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from sinkscope.io.progress import OnProgress
from sinkscope.models.model import Model

LOGITS = 1 << 26
"""Numbers in one chunk of logits: a quarter of a gigabyte in fp32."""


def top1_by_position(
    model: Model,
    passages: Sequence[list[int]],
    *,
    batch_size: int = 8,
    logits: int = LOGITS,
    on_progress: OnProgress | None = None,
) -> Float[Tensor, " position"]:
    """max_v p(v | tokens up to and with each position) in [0, 1], mean over the passages (token ids, BOS first) that have the position.

    The model reads each batch in chunks of positions, with a key-value cache in between, so that no more than `logits` numbers of vocabulary × positions ×
    batch are held at once. Softmax is in fp32.
    """
    length = max(map(len, passages))
    total, count = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.float64)
    done = 0
    for batch in model.batches(passages, batch_size):
        rows, width = batch.ids.shape
        chunk = max(1, logits // (rows * model.hf.config.get_text_config().vocab_size))
        cache = {_cache_name(model): DynamicCache(config=model.hf.config)} if width > chunk else {}
        for start in range(0, width, chunk):
            here = slice(start, start + chunk)
            with torch.no_grad():
                output = model.hf(
                    input_ids=batch.ids[:, here],
                    attention_mask=batch.mask[:, : here.stop].long(),
                    use_cache=bool(cache),
                    **cache,
                )
            scores = output.logits.float()
            top1 = (scores.amax(-1) - scores.logsumexp(-1)).exp()
            mask = batch.mask[:, here]
            total[start : start + mask.shape[1]] += (top1 * mask).sum(0).double().cpu()
            count[start : start + mask.shape[1]] += mask.sum(0).cpu()
        done += rows
        if on_progress:
            on_progress(done, len(passages))
    return total / count


def _cache_name(model: Model) -> str:
    """What the network calls its key-value cache: newer releases of transformers renamed it."""
    return "cache" if "cache" in inspect.signature(model.hf.forward).parameters else "past_key_values"
