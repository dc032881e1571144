"""What a model makes of given text: how likely each token was to it, and the scores that follow without generating anything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from sinkscope.capture.batches import padded_batches
from sinkscope.interventions import masked_keys
from sinkscope.models import Model
from sinkscope.progress import Report

LOWEST = 0.4
"""The share of a passage's tokens that Min-K % looks at (MUSE, arXiv 2407.06460)."""


@dataclass(frozen=True)
class Reading:
    """Of each token that was read: its log-probability given all before it, in nats, and whether no other was likelier."""

    log_probs: Float[np.ndarray, " token"]
    correct: Bool[np.ndarray, " token"]


def read(
    model: Model,
    passages: Sequence[list[int]],
    starts: Sequence[int],
    *,
    hidden: Sequence[Sequence[int]] | None = None,
    batch_size: int = 8,
    report: Report | None = None,
) -> list[Reading]:
    """Read passages (token ids, BOS first), each from its start on (at least 1: the first token has none before it).

    Args:
        hidden: per passage, positions that later ones cannot attend to (see `interventions.masked_keys`).
    """
    readings: list[Reading] = []
    for batch in padded_batches(passages, batch_size, model.tokenizer.pad_token_id or 0, model.device):
        done = len(readings)
        masked = list(hidden[done : done + len(batch.spans)]) if hidden else []
        with torch.no_grad(), masked_keys(model, masked) if any(masked) else nullcontext():
            logits = model.hf(input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False).logits
        for row, span in enumerate(batch.spans):
            start = starts[done + row]
            asked, tokens = logits[row, start - 1 : span.stop - 1].float(), batch.ids[row, start : span.stop]
            chosen = asked.gather(-1, tokens[:, None])[:, 0]
            readings.append(Reading((chosen - asked.logsumexp(-1)).cpu().numpy(), (chosen >= asked.amax(-1)).cpu().numpy()))
        if report:
            report(len(readings), len(passages))
    return readings


def exact_memorization(reading: Reading) -> float:
    """Share of tokens that greedy decoding gets right when all tokens before are the true ones (Tirumala et al. 2022, arXiv 2205.10770)."""
    return float(reading.correct.mean())


def extraction_strength(reading: Reading) -> float:
    """1 − k/n, with k the fewest tokens after which greedy decoding gives all the others (Carlini et al. 2021, arXiv 2012.07805)."""
    wrong = np.flatnonzero(~reading.correct)
    return 1 - (int(wrong[-1]) + 1) / len(reading.correct) if len(wrong) else 1.0


def lowest_mean(reading: Reading, share: float = LOWEST) -> float:
    """Min-K %: mean of the lowest `share` of the log-probabilities (Shi et al. 2024, arXiv 2310.16789)."""
    return float(np.sort(reading.log_probs)[: max(1, int(share * len(reading.log_probs)))].mean())


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """How well a score tells holdout (the positive class) from forget passages: .5 for not at all, 0 where every forget passage scores higher."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([0] * len(forget) + [1] * len(holdout), [*forget, *holdout]))


def privleak(measured: float, retrained: float) -> float:
    """100 · (AUC − AUC of a model that never saw the forget set) / the latter (MUSE, equation 3); −100 for a model that remembers everything."""
    return 100 * (measured - retrained) / retrained
