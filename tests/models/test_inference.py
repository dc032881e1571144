"""Generation, token likelihoods, Min-K %, AUC and KL divergence against plain passes and other libraries."""

from __future__ import annotations

import copy
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
from sinkscope.sinks.locate import locate
from tests.conftest import FAMILIES, TEXT
from tests.sinks.architectures import make_network


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


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 2.0},
        {"return_dict_in_generate": True},
        {"stop_strings": ["a"]},
        {"min_new_tokens": 12, "bad_words_ids": [[7]]},
    ],
)
def test_generation_is_greedy_whatever_the_checkpoint_says(
    setting: dict[str, object], small_llama: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model = copy.deepcopy(small_llama)
    prompts = passages_of(model)
    expected = generate(model, prompts, 12)
    assert not caplog.messages
    model.hf.generation_config.update(**setting)
    own = model.hf.generation_config
    assert generate(model, prompts, 12) == generate(model, prompts, 12) == expected
    assert model.hf.generation_config is own
    is_noted = not setting.keys() & {"do_sample"}
    assert len(caplog.messages) == is_noted
    assert all(name in message for name in setting for message in caplog.messages)


def test_the_checkpoints_own_end_of_text_still_ends_generation(small_llama: Model) -> None:
    model = copy.deepcopy(small_llama)
    prompt = passages_of(model)[0]
    with torch.no_grad():
        first = int(model.hf(torch.tensor([prompt])).logits[0, -1].argmax())
    model.hf.generation_config.eos_token_id = [first, 2]
    assert generate(model, [prompt], 12) == [model.tokenizer.decode([first], skip_special_tokens=True)]


def test_dropout_is_off_in_a_model_that_is_in_training_mode(small_models: dict[str, Model]) -> None:
    model = copy.deepcopy(small_models["gpt2"])
    model.hf.train()
    model.hf.lm_head.eval()
    assert model.hf.transformer.drop.p > 0
    passages = passages_of(model)
    expected = loglikelihood_tokens(small_models["gpt2"], passages)
    for result, other in zip(loglikelihood_tokens(model, passages), expected, strict=True):
        np.testing.assert_array_equal(result.log_probs, other.log_probs)
    assert generate(model, passages, 8) == generate(small_models["gpt2"], passages, 8)
    assert locate(model, passages).data.equals(locate(small_models["gpt2"], passages).data)
    assert model.hf.training and model.hf.transformer.drop.training and not model.hf.lm_head.training


def test_nan_instead_of_logits_is_an_error(small_llama: Model) -> None:
    model = copy.deepcopy(small_llama)
    with torch.no_grad():
        model.hf.model.norm.weight[0] = torch.nan
    for measure in (generate, loglikelihood_tokens):
        with pytest.raises(ModelError, match="gives NaN instead of logits"):
            measure(model, passages_of(model), 4 if measure is generate else None)


def test_padding_outside_the_embedding_is_not_read(small_llama: Model) -> None:
    model, plain = copy.deepcopy(small_llama), copy.deepcopy(small_llama)
    for each in (model, plain):
        each.tokenizer.add_tokens([f"<{number}>" for number in range(200)])
    model.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert model.tokenizer.pad_token_id > model.hf.get_input_embeddings().weight.shape[0]
    passages = passages_of(model)
    assert generate(model, passages, 8) == generate(plain, passages, 8)
    assert locate(model, passages).data.equals(locate(plain, passages).data)
    for result, other in zip(
        loglikelihood_tokens(model, passages), loglikelihood_tokens(plain, passages), strict=True
    ):
        np.testing.assert_array_equal(result.log_probs, other.log_probs)


@pytest.mark.parametrize("name", ["bart", "roberta", "opt"])
@pytest.mark.parametrize("masked", [None, [[0], [1], [0], [2]]])
def test_prompts_in_a_batch_are_read_as_alone(
    name: str, masked: list[list[int]] | None, small_models: dict[str, Model]
) -> None:
    """Also where positions cannot be handed over, or begin elsewhere."""
    model = Model(name, make_network(name), small_models["neox"].tokenizer)
    assert model.takes_positions == (name == "opt")
    passages = passages_of(model)
    passages[3] = passages[3][: len(passages[1])]
    options = [[[7], [8]]] * len(passages)

    def alone(measure, *arguments) -> list:
        rows = zip(passages, *arguments, masked or [None] * 4, strict=True)
        return [
            measure(model, [passage], *([each] for each in others), masked=[row] if masked else None)[0]
            for passage, *others, row in rows
        ]

    assert generate(model, passages, 6, masked=masked) == [
        generate(model, [passage], 6, masked=[row] if masked else None)[0]
        for passage, row in zip(passages, masked or [None] * 4, strict=True)
    ]
    for result, other in zip(
        loglikelihood_tokens(model, passages, masked=masked), alone(loglikelihood_tokens), strict=True
    ):
        np.testing.assert_allclose(result.log_probs, other.log_probs, atol=1e-4)
    for row, other in zip(
        loglikelihood_options(model, passages, options, masked=masked),
        alone(loglikelihood_options, options),
        strict=True,
    ):
        np.testing.assert_allclose(row[1].log_probs, other[1].log_probs, atol=1e-4)
