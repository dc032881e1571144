"""What a model makes of given text: how likely each token was to it, and the scores that follow without generating anything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from sinkscope.io.progress import OnProgress
from sinkscope.models.interventions import mask_keys
from sinkscope.models.model import Model

LOWEST = 0.4
"""The share of a passage's tokens that Min-K % looks at (MUSE, arXiv 2407.06460)."""


READ_TOKENS = 16384
"""Tokens that are read at once at most, as each has a row of logits."""


@dataclass(frozen=True)
class TokenLikelihoods:
    """Of each token that was read: its log-probability given all before it, in nats, and whether no other was likelier."""

    log_probs: Float[np.ndarray, " token"]
    correct: Bool[np.ndarray, " token"]

    def only(self, chosen: Sequence[int]) -> TokenLikelihoods:
        """The same reading of these tokens, counted from the first that was read."""
        return TokenLikelihoods(self.log_probs[list(chosen)], self.correct[list(chosen)])


def loglikelihood(
    model: Model,
    passages: Sequence[list[int]],
    starts: Sequence[int],
    *,
    hidden: Sequence[Sequence[int]] | None = None,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[TokenLikelihoods]:
    """Read passages (token ids, BOS first), each from its start on (at least 1: the first token has none before it).

    Args:
        hidden: per passage, positions that later ones cannot attend to (see `interventions.mask_keys`).
    """
    readings: list[TokenLikelihoods] = []
    batch_size = max(1, min(batch_size, READ_TOKENS // max(map(len, passages), default=1)))
    for batch in model.batches(passages, batch_size):
        done = len(readings)
        masked = list(hidden[done : done + len(batch.spans)]) if hidden else []
        with torch.no_grad(), mask_keys(model, masked) if any(masked) else nullcontext():
            logits = model.hf(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                use_cache=False,
            ).logits
        for row, span in enumerate(batch.spans):
            start = starts[done + row]
            asked, tokens = logits[row, start - 1 : span.stop - 1].float(), batch.ids[row, start : span.stop]
            chosen = asked.gather(-1, tokens[:, None])[:, 0]
            readings.append(
                TokenLikelihoods(
                    (chosen - asked.logsumexp(-1)).cpu().numpy(), (chosen >= asked.amax(-1)).cpu().numpy()
                )
            )
        if on_progress:
            on_progress(len(readings), len(passages))
    return readings


def multiple_choice(
    model: Model,
    prompts: Sequence[list[int]],
    options: Sequence[Sequence[list[int]]],
    *,
    hidden: Sequence[Sequence[int]] | None = None,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[list[TokenLikelihoods]]:
    """Read every option behind its prompt. A prompt whose options all have one token takes one forward pass, of which only the last position is read.

    Args:
        hidden: per prompt, as for `read`.
    """
    readings: list[list[TokenLikelihoods]] = [[] for _ in prompts]
    short = sorted(
        (i for i, each in enumerate(options) if all(len(option) == 1 for option in each)),
        key=lambda i: len(prompts[i]),
    )
    long = sorted(set(range(len(prompts))) - set(short))
    total = len(short) + sum(len(options[i]) for i in long)
    done = 0
    for batch in model.batches([prompts[i] for i in short], batch_size, side="left"):
        chosen = short[done : done + len(batch.spans)]
        masked = [hidden[i] for i in chosen] if hidden else []
        keep = {"logits_to_keep": 1} if model.hf._supports_logits_to_keep() else {}
        with torch.no_grad(), mask_keys(model, masked) if any(masked) else nullcontext():
            output = model.hf(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                position_ids=batch.position_ids,
                use_cache=False,
                **keep,
            )
        for i, last in zip(chosen, output.logits[:, -1].float().cpu(), strict=True):
            tokens = [option[0] for option in options[i]]
            log_probs, correct = (
                (last[tokens] - last.logsumexp(-1)).numpy(),
                (last[tokens] >= last.amax(-1)).numpy(),
            )
            readings[i] = [TokenLikelihoods(log_probs[[j]], correct[[j]]) for j in range(len(tokens))]
        done += len(chosen)
        if on_progress:
            on_progress(done, total)
    pairs = [(i, option) for i in long for option in options[i]]
    found = loglikelihood(
        model,
        [prompts[i] + option for i, option in pairs],
        [len(prompts[i]) for i, _ in pairs],
        hidden=[hidden[i] for i, _ in pairs] if hidden else None,
        batch_size=batch_size,
        on_progress=lambda n, _: on_progress and on_progress(len(short) + n, total),
    )
    for (i, _), reading in zip(pairs, found, strict=True):
        readings[i].append(reading)
    return readings


def mean_loss(reading: TokenLikelihoods) -> float:
    """Mean negative log-probability of a token, in nats; its exponential is the perplexity."""
    return -float(reading.log_probs.mean())


def exact_memorization(reading: TokenLikelihoods) -> float:
    """Share of tokens that greedy decoding gets right when all tokens before are the true ones (Tirumala et al. 2022, arXiv 2205.10770)."""
    return float(reading.correct.mean())


def extraction_strength(reading: TokenLikelihoods) -> float:
    """1 − k/n, with k the fewest tokens after which greedy decoding gives all the others (Carlini et al. 2021, arXiv 2012.07805)."""
    wrong = np.flatnonzero(~reading.correct)
    return 1 - (int(wrong[-1]) + 1) / len(reading.correct) if len(wrong) else 1.0


def min_k_score(reading: TokenLikelihoods, share: float = LOWEST) -> float:
    """Min-K %: mean of the lowest `share` of the log-probabilities (Shi et al. 2024, arXiv 2310.16789)."""
    return float(np.sort(reading.log_probs)[: max(1, int(share * len(reading.log_probs)))].mean())


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """How well a score tells holdout (the positive class) from forget passages: .5 for not at all, 0 where every forget passage scores higher."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([0] * len(forget) + [1] * len(holdout), [*forget, *holdout]))


def privleak(measured: float, retrained: float) -> float:
    """100 · (AUC − AUC of a model that never saw the forget set) / the latter (MUSE, equation 3); −100 for a model that remembers everything."""
    return 100 * (measured - retrained) / retrained
