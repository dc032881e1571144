"""Greedy generation, token log-probabilities of given text, and what follows: Min-K %, AUC, KL divergence."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from sinkscope.errors import ModelError
from sinkscope.io.progress import OnProgress, shift_progress
from sinkscope.models.attention import mask_keys
from sinkscope.models.model import Model
from sinkscope.models.padding import PaddedBatch

LOGGER = logging.getLogger("sinkscope")
MIN_K = 0.4
"""Share of a passage's tokens that Min-K % averages (MUSE, arXiv 2407.06460)."""
NOT_IN_GREEDY = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"),
    *("_from_model_config", "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("max_length", "max_new_tokens", "use_cache", "cache_implementation"),
}
"""Settings of generation that are kept, or that change nothing of greedy decoding."""
_noted: WeakKeyDictionary[torch.nn.Module, GenerationConfig] = WeakKeyDictionary()
"""Models, and the settings of theirs that a warning has named."""
MAX_BATCH_TOKENS = 16384
"""Most tokens of one forward pass, as each has a row of logits."""


@dataclass(frozen=True)
class TokenLikelihoods:
    """Log-probability of each token given all before it, in nats, and whether it is the most likely."""

    log_probs: Float[np.ndarray, " token"]
    correct: Bool[np.ndarray, " token"]

    def select(self, tokens: Sequence[int]) -> TokenLikelihoods:
        """The likelihoods of some of the tokens, by index."""
        return TokenLikelihoods(self.log_probs[list(tokens)], self.correct[list(tokens)])


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

    Prompts of similar length share a batch, padded on the left; the texts do not depend on the batches (up to
    rounding). Of the checkpoint's `generation_config.json` only the end-of-text tokens are used: a repetition
    penalty, for instance, would change what a model can recite.

    Args:
        masked: per prompt, positions that later ones cannot attend to, also in the continuation.

    Raises:
        ModelError: the model's logits are NaN.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    tokenizer = model.tokenizer
    # continuations that end early are padded with it, and decoded without it
    has_pad = tokenizer.pad_token_id == model.pad_id
    pad = model.pad_id if has_pad or tokenizer.eos_token_id is None else tokenizer.eos_token_id
    done = 0
    for batch in model.batches([prompts[i] for i in order], batch_size, side="left"):
        group = order[done : done + len(batch.spans)]
        done += len(group)
        rows = _mask_rows(model, [masked[i] for i in group] if masked else ())
        with torch.no_grad(), model.eval_mode(), rows, _greedy_decoding(model, pad):
            output = model.hf.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask.long(),
                max_new_tokens=max_new_tokens,
                logits_processor=LogitsProcessorList([_RequireNumbers(model.name)]),
            )
        for i, row in zip(group, output[:, batch.ids.shape[1] :].tolist(), strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True)
        if on_progress:
            on_progress(done, len(order))
    return texts


@contextmanager
def _greedy_decoding(model: Model, pad: int) -> Iterator[None]:
    """Within the context the model generates greedily, whatever its `generation_config.json` says."""
    own = model.hf.generation_config
    others = {
        name: value for name, value in own.to_diff_dict().items() if value and name not in NOT_IN_GREEDY
    }
    if others and own is not _noted.get(model.hf):
        _noted[model.hf] = own
        LOGGER.warning(
            "model %s: decoding is greedy, without the settings in its generation_config.json (%s)",
            *(model.name, ", ".join(f"{name} {value}" for name, value in others.items())),
        )
    # transformers fills what a configuration given to `generate` leaves open from the model's own
    model.hf.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        pad_token_id=pad,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
    )
    try:
        yield
    finally:
        model.hf.generation_config = own


class _RequireNumbers(LogitsProcessor):
    """Raises ModelError if a logit is NaN, from which argmax would take any token."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        _require_numbers(self._name, scores, torch.ones_like(scores[:, 0], dtype=torch.bool))
        return scores


def _require_numbers(
    name: str, logits: Float[Tensor, "*batch vocab"], counted: Bool[Tensor, "*batch"]
) -> None:
    """Raise ModelError if a logit is NaN where `counted`."""
    if (logits.isnan().any(-1) & counted).any():
        raise ModelError(
            f"model {name!r} gives NaN instead of logits; check its weights, or load it in float32"
        )


def _mask_rows(model: Model, positions: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
    """`mask_keys`, or no intervention where no row of the batch has a position to mask."""
    return mask_keys(model, positions) if any(positions) else nullcontext()


def forward_logits(
    model: Model, batch: PaddedBatch, masked: Sequence[Sequence[int]] = (), **options: Any
) -> Float[Tensor, "batch position vocab"]:
    """Logits of a padded batch, without gradients; `options` are arguments of the model's forward method.

    Raises:
        ModelError: a logit is NaN.
    """
    if any(span.start for span in batch.spans):  # else the model counts positions as it was trained to
        options["position_ids"] = batch.position_ids
    with torch.no_grad(), model.eval_mode(), _mask_rows(model, masked):
        logits = model.hf(
            input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False, **options
        ).logits
    counted = batch.mask[:, -logits.shape[1] :]  # padding on the left attends to nothing
    _require_numbers(model.name, logits, counted)
    return logits


def loglikelihood_tokens(
    model: Model,
    passages: Sequence[list[int]],
    starts: Sequence[int] | None = None,
    *,
    masked: Sequence[Sequence[int]] | None = None,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[TokenLikelihoods]:
    """Likelihoods of the tokens of each passage (token ids, BOS first).

    Args:
        starts: per passage, the first token to score; by default 1, as the first token has no context.
        masked: per passage, positions that later ones cannot attend to.
    """
    likelihoods: list[TokenLikelihoods] = []
    batch_size = max(1, min(batch_size, MAX_BATCH_TOKENS // max(map(len, passages), default=1)))
    for batch in model.batches(passages, batch_size):
        done = len(likelihoods)
        logits = forward_logits(model, batch, masked[done : done + len(batch.spans)] if masked else ())
        for row, span in enumerate(batch.spans):
            start = starts[done + row] if starts else 1
            tokens = batch.ids[row, start : span.stop]
            likelihoods.append(_score(logits[row, start - 1 : span.stop - 1].float(), tokens))
        if on_progress:
            on_progress(len(likelihoods), len(passages))
    return likelihoods


def _score(logits: Float[Tensor, "token vocab"], tokens: Tensor) -> TokenLikelihoods:
    chosen = logits.gather(-1, tokens[:, None])[:, 0]
    log_probs = (chosen - logits.logsumexp(-1)).cpu().numpy()
    return TokenLikelihoods(log_probs, (chosen >= logits.amax(-1)).cpu().numpy())


def loglikelihood_options(
    model: Model,
    prompts: Sequence[list[int]],
    options: Sequence[Sequence[list[int]]],
    masked: Sequence[Sequence[int]] | None = None,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[list[TokenLikelihoods]]:
    """Likelihoods of every option after its prompt (token ids, BOS first).

    A prompt whose options all have one token needs one forward pass, of which only the last position is used.

    Args:
        masked: per prompt, positions that later ones cannot attend to.
    """
    likelihoods: list[list[TokenLikelihoods]] = [[] for _ in prompts]
    single = [i for i, row in enumerate(options) if all(len(option) == 1 for option in row)]
    single.sort(key=lambda i: len(prompts[i]))
    pairs = [(i, option) for i in sorted(set(range(len(prompts))) - set(single)) for option in options[i]]
    total = len(single) + len(pairs)
    keep = {"logits_to_keep": 1} if model.hf._supports_logits_to_keep() else {}
    done = 0
    for batch in model.batches([prompts[i] for i in single], batch_size, side="left"):
        group = single[done : done + len(batch.spans)]
        logits = forward_logits(model, batch, [masked[i] for i in group] if masked else (), **keep)
        for i, last in zip(group, logits[:, -1].float().cpu(), strict=True):
            chosen = last[[option[0] for option in options[i]]]
            log_probs = (chosen - last.logsumexp(-1)).numpy()
            correct = (chosen >= last.amax(-1)).numpy()
            likelihoods[i] = [TokenLikelihoods(log_probs[[j]], correct[[j]]) for j in range(len(chosen))]
        done += len(group)
        if on_progress:
            on_progress(done, total)
    scored = loglikelihood_tokens(
        model,
        [prompts[i] + option for i, option in pairs],
        [len(prompts[i]) for i, _ in pairs],
        masked=[masked[i] for i, _ in pairs] if masked else None,
        batch_size=batch_size,
        on_progress=shift_progress(on_progress, done, total),
    )
    for (i, _), tokens in zip(pairs, scored, strict=True):
        likelihoods[i].append(tokens)
    return likelihoods


def min_k_score(likelihoods: TokenLikelihoods, share: float = MIN_K) -> float:
    """Min-K %: mean of the lowest `share` of the log-probabilities (Shi et al. 2024, arXiv 2310.16789)."""
    lowest = max(1, int(share * len(likelihoods.log_probs)))
    return float(np.sort(likelihoods.log_probs)[:lowest].mean())


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """Area under the ROC curve of a score that separates holdout (the positive class) from forget passages.

    0.5: no separation; 0: every forget passage scores higher than every holdout passage. As scikit-learn's
    `roc_auc_score` to the last bit: corners on straight lines are left out.

    Raises:
        ModelError: a score is infinite or NaN.
    """
    scores = np.array([*forget, *holdout], dtype=float)
    if not np.isfinite(scores).all():
        raise ModelError(
            "the model gives a passage an infinite or NaN log-probability, so there is no AUC; check its "
            "weights, or load it in float32"
        )
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(order >= len(forget))[ends]
    false = 1 + ends - true
    if len(ends) > 2:
        corners = np.r_[True, (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0), True]
        true, false = true[corners], false[corners]
    true, false = np.append(0, true), np.append(0, false)
    return float(np.trapezoid(true / true[-1], false / false[-1]))


def kl_divergence(
    p_logits: Float[Tensor, "*batch vocab"], q_logits: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) = Σ_v p_v log(p_v / q_v) of two distributions given as logits, in nats."""
    log_p = p_logits.log_softmax(-1)
    log_q = q_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
