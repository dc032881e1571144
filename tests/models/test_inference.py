"""Generation, token likelihoods, Min-K %, AUC and KL divergence against plain passes and other libraries."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sinkscope import load
from sinkscope.errors import ModelError
from sinkscope.models.attention import mask_keys
from sinkscope.models.inference import (
    TokenLikelihoods,
    auc,
    generate,
    kl_divergence,
    loglikelihood_options,
    loglikelihood_tokens,
    min_k_score,
)
from sinkscope.models.model import Model
from tests.conftest import FAMILIES, TEXT


def passages_of(model: Model) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [
        model.with_bos(torch.randint(5, 390, (n - 1,), generator=generator).tolist())[:n]
        for n in (20, 9, 31, 14)
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_likelihoods_are_those_of_one_token_at_a_time(kind: str, small_models: dict[str, Model]) -> None:
    model, starts = small_models[kind], [1, 4, 30, 7]
    passages = passages_of(model)
    for passage, start, result in zip(
        passages, starts, loglikelihood_tokens(model, passages, starts, batch_size=3), strict=True
    ):
        assert len(result.log_probs) == len(passage) - start
        for i, position in enumerate(range(start, len(passage))):
            with torch.no_grad():
                row = model.hf(torch.tensor([passage[:position]])).logits[0, -1].double()
            assert result.log_probs[i] == pytest.approx(
                row.log_softmax(-1)[passage[position]].item(), abs=1e-4
            )
            assert result.correct[i] == (row.argmax().item() == passage[position])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_options_after_prompts_of_unequal_length(kind: str, small_models: dict[str, Model]) -> None:
    """Options of one token or of several, with and without a mask, against a forward pass over each alone."""
    model = small_models[kind]
    prompts = passages_of(model)
    options = [[[7], [8], [9]], [[7, 8], [9]], [[300], [12]], [[5]]]
    for masked in (None, [[0, 1], [2], [], [0, 3]]):
        result = loglikelihood_options(model, prompts, options, masked=masked, batch_size=3)
        assert [len(row) for row in result] == [3, 2, 2, 1]
        for i, prompt in enumerate(prompts):
            for option, likelihoods in zip(options[i], result[i], strict=True):
                ids = torch.tensor([prompt + option])
                with torch.no_grad(), mask_keys(model, masked[i]) if masked and masked[i] else nullcontext():
                    rows = model.hf(ids, attention_mask=torch.ones_like(ids)).logits[0].double()
                scored = rows[len(prompt) - 1 : -1]
                expected = [
                    row.log_softmax(-1)[token].item() for row, token in zip(scored, option, strict=True)
                ]
                assert likelihoods.log_probs.tolist() == pytest.approx(expected, abs=1e-4)
                assert likelihoods.correct.tolist() == [
                    row.argmax().item() == token for row, token in zip(scored, option, strict=True)
                ]


def test_min_k_score_and_auc() -> None:
    likelihoods = TokenLikelihoods(np.log([0.5, 0.1, 0.9, 0.2, 0.7]), np.ones(5, dtype=bool))
    assert min_k_score(likelihoods) == pytest.approx(np.log([0.1, 0.2]).mean())
    forget, holdout = [-1.0, -0.5, -2.0], [-3.0, -1.5, -4.0]
    pairs = [float(h > f) for f in forget for h in holdout]
    assert auc(forget, holdout) == pytest.approx(np.mean(pairs))
    assert auc(forget, holdout) == roc_auc_score([0, 0, 0, 1, 1, 1], forget + holdout)
    assert auc([0.0, 0.0], [-1.0, -1.0]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_there_is_no_auc_of_a_score_that_is_not_finite(bad: float) -> None:
    for forget, holdout in (([bad, -1.0], [-2.0, -3.0]), ([-1.0, -2.0], [-3.0, bad])):
        with pytest.raises(ModelError, match="infinite or NaN log-probability"):
            auc(forget, holdout)


def test_min_k_separates_the_forget_set_in_the_target_and_not_in_the_retain_model() -> None:
    """Min-40 % separates the forget book from unseen text in the target only."""
    from sinkscope.benchmarks.benchmark import load_benchmark

    benchmark, result = load_benchmark("tiny"), {}
    for name in ("tiny", "tiny-retrained"):
        model = load(name, device="cpu")
        scores = {}
        for split in ("forget", "holdout"):
            passages = [model.encode(row["text"]) for row in benchmark.rows["privleak"][split][:40]]
            scores[split] = [
                min_k_score(likelihoods)
                for likelihoods in loglikelihood_tokens(model, passages, batch_size=20)
            ]
        result[name] = auc(scores["forget"], scores["holdout"])
    assert result["tiny"] < 0.05
    assert 0.25 < result["tiny-retrained"] < 0.75


def test_kl_is_torchs_kl_div() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 5, 11) * 3, torch.randn(3, 5, 11)
    oracle = torch.nn.functional.kl_div(
        second.log_softmax(-1), first.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(kl_divergence(first, second), oracle)
    assert not torch.allclose(kl_divergence(first, second), kl_divergence(second, first))


@pytest.mark.parametrize("kind", FAMILIES)
def test_batched_generation_equals_one_by_one(kind: str, small_models: dict[str, Model]) -> None:
    model = small_models[kind]
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False)
    prompts = [model.with_bos(ids[i * 5 : i * 5 + length]) for i, length in enumerate((4, 19, 11, 30, 7))]
    together = generate(model, prompts, 12, batch_size=5)
    assert together == [generate(model, [prompt], 12)[0] for prompt in prompts]
    assert together == generate(model, prompts, 12, batch_size=2)
    assert len(set(together)) > 1
