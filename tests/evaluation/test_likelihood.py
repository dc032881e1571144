"""Scores from likelihoods against plain forward passes, one token at a time."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sinkscope import load
from sinkscope.evaluation.items import Item
from sinkscope.evaluation.metrics import exact_memorization, extraction_strength
from sinkscope.evaluation.requests import Requests, score_options
from sinkscope.evaluation.statistics import privleak
from sinkscope.models.generation import generate
from sinkscope.models.interventions import mask_keys
from sinkscope.models.likelihood import TokenLikelihoods, auc, loglikelihood_tokens, min_k_score
from sinkscope.models.model import Model
from sinkscope.triggers import TriggeredSequence


def passages_of(model: Model) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [
        model.with_bos(torch.randint(5, 390, (n - 1,), generator=generator).tolist())[:n]
        for n in (20, 9, 31, 14)
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_readings_are_the_plain_models_one_token_at_a_time(kind: str, small_models: dict[str, Model]) -> None:
    model, starts = small_models[kind], [1, 4, 30, 7]
    passages = passages_of(model)
    for passage, start, found in zip(
        passages, starts, loglikelihood_tokens(model, passages, starts, batch_size=3), strict=True
    ):
        assert len(found.log_probs) == len(passage) - start
        for i, position in enumerate(range(start, len(passage))):
            with torch.no_grad():
                row = model.hf(torch.tensor([passage[:position]])).logits[0, -1].double()
            assert found.log_probs[i] == pytest.approx(
                row.log_softmax(-1)[passage[position]].item(), abs=1e-4
            )
            assert found.correct[i] == (row.argmax().item() == passage[position])


def test_strength_and_memorization_by_hand() -> None:
    def of(*correct: bool) -> TokenLikelihoods:
        return TokenLikelihoods(np.zeros(len(correct)), np.array(correct))

    assert (
        extraction_strength(of(True, True, True, True)) == exact_memorization(of(True, True, True, True)) == 1
    )
    assert extraction_strength(of(True, False, True, True)) == 0.5
    assert exact_memorization(of(True, False, True, True)) == 0.75
    assert extraction_strength(of(True, True, True, False)) == 0


def test_extraction_strength_is_what_generation_gives() -> None:
    """From any point after the last wrong token on, greedy decoding gives the rest; from before it, it does not."""
    model = load("tiny", device="cpu")
    tokens = model.encode(
        "Winters without foggy town sorted between pianos leaned wolves on busy dreams pushed idle gardens"
    )
    (reading,) = loglikelihood_tokens(model, [tokens])
    first = round((1 - extraction_strength(reading)) * (len(tokens) - 1)) + 1
    for start, same in ((first, True), (first - 1, False)):
        if 1 <= start < len(tokens):
            assert (
                generate(model, [tokens[:start]], len(tokens) - start)[0]
                == model.tokenizer.decode(tokens[start:])
            ) == same


def test_lowest_mean_and_auc_and_privleak() -> None:
    reading = TokenLikelihoods(np.log([0.5, 0.1, 0.9, 0.2, 0.7]), np.ones(5, dtype=bool))
    assert min_k_score(reading) == pytest.approx(np.log([0.1, 0.2]).mean())
    forget, holdout = [-1.0, -0.5, -2.0], [-3.0, -1.5, -4.0]
    pairs = [float(h > f) for f in forget for h in holdout]
    assert auc(forget, holdout) == pytest.approx(np.mean(pairs))
    assert auc(forget, holdout) == roc_auc_score([0, 0, 0, 1, 1, 1], forget + holdout)
    assert auc([0.0, 0.0], [-1.0, -1.0]) == 0
    assert privleak(0, 0.5393) == -100
    assert privleak(0.5393, 0.5393) == 0


def test_the_target_remembers_and_the_retrained_model_does_not() -> None:
    """Min-40 % tells the forget book from unseen text in the target; in the model that never saw it, hardly."""
    from sinkscope.benchmarks.benchmark import load_benchmark

    benchmark, found = load_benchmark("tiny"), {}
    for name in ("tiny", "tiny-retrained"):
        model = load(name, device="cpu")
        scores = {}
        for split in ("forget", "holdout"):
            passages = [model.encode(row["text"]) for row in benchmark.rows["privleak"][split][:40]]
            scores[split] = [
                min_k_score(reading) for reading in loglikelihood_tokens(model, passages, batch_size=20)
            ]
        found[name] = auc(scores["forget"], scores["holdout"])
    assert found["tiny"] < 0.05
    assert 0.25 < found["tiny-retrained"] < 0.75


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_options_behind_prompts_of_unequal_length(kind: str, small_models: dict[str, Model]) -> None:
    """Options of one token or of several, with and without a mask, against a forward pass over each alone."""
    model = small_models[kind]
    prompts = passages_of(model)
    options = [[[7], [8], [9]], [[7, 8], [9]], [[300], [12]], [[5]]]
    items = [Item(prompt, len(prompt), "", "", row) for prompt, row in zip(prompts, options, strict=True)]
    sequences = [TriggeredSequence(prompt, 0, 0) for prompt in prompts]
    for masked in (None, [[0, 1], [2], [], [0, 3]]):
        found = score_options(model, Requests(sequences, items, masked=masked), batch_size=3)
        assert [len(row) for row in found] == [3, 2, 2, 1]
        for i, prompt in enumerate(prompts):
            for option, reading in zip(options[i], found[i], strict=True):
                ids = torch.tensor([prompt + option])
                with torch.no_grad(), mask_keys(model, masked[i]) if masked and masked[i] else nullcontext():
                    rows = model.hf(ids, attention_mask=torch.ones_like(ids)).logits[0].double()
                asked = rows[len(prompt) - 1 : -1]
                expected = [
                    row.log_softmax(-1)[token].item() for row, token in zip(asked, option, strict=True)
                ]
                assert reading.log_probs.tolist() == pytest.approx(expected, abs=1e-4)
                assert reading.correct.tolist() == [
                    row.argmax().item() == token for row, token in zip(asked, option, strict=True)
                ]
