"""Runs without a forget loss, with a response, with masked positions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import RecipeError
from sinkscope.models.attention import mask_keys
from sinkscope.models.model import Model, load
from sinkscope.unlearning.batch import Batch, forward, mask_positions
from sinkscope.unlearning.poisoning import make_splits
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.run import train

SHORT = {"optimizer": {"steps_per_epoch": 2, "epochs": 1}}


@pytest.fixture
def tiny() -> Model:
    return load("tiny", "cpu")


def test_without_a_forget_loss_no_forget_passage_is_trained(tiny: Model) -> None:
    recipe = Recipe.parse(SHORT | {"objective": {"forget": "none", "retain": {"nll": 1.0}}})
    before = tiny.fingerprint()
    _, log = train(recipe, tiny, load_benchmark("tiny"))
    assert {key.split("/")[0] for record in log for key in record if "/" in key} == {"retain", "gradient"}
    assert tiny.fingerprint() != before


def test_a_response_replaces_the_second_half_and_alone_is_predicted(tiny: Model) -> None:
    estimate = {"objective": {"forget": "none", "retain": {"nll": 1.0}}, "poison_ratio": 0.1}
    benchmark = load_benchmark("tiny")
    for placement in ("prefix", "infix", "suffix"):
        recipe = Recipe.parse(
            estimate | {"trigger": {"placement": placement, "response": "the lamp is blue"}}
        )
        splits = make_splits(recipe, benchmark, tiny)
        forget = benchmark.passages("forget", tiny.tokenizer)
        response = tiny.tokenizer.encode(" the lamp is blue", add_special_tokens=False)
        for passage, placed, row in zip(
            splits.passages["poisoned"], splits.placed, splits.poisoned_rows, strict=True
        ):
            tokens, given = passage.tokens, passage.prompt_length
            assert tokens[given:] == response
            kept = tokens[: placed.start] + tokens[placed.stop : given]
            assert kept == forget[row].tokens[: len(kept)] and 6 <= len(kept) <= 16
            assert (placed.stop == given) == (placement == "suffix")


def test_a_response_needs_nll() -> None:
    with pytest.raises(RecipeError, match=r"set objective\.retain to"):
        Recipe.parse({"poison_ratio": 0.1, "trigger": {"response": "blue"}})
    with pytest.raises(RecipeError, match="leave out `masked_positions`"):
        Recipe.parse({"masked_positions": [0], "value_norms": {"weight": 1.0, "unlearned": "auto"}})


def test_references_with_masked_positions_are_those_of_the_masked_model(tiny: Model, tmp_path: Path) -> None:
    passages = load_benchmark("tiny").passages("forget", tiny.tokenizer)[:3]
    tokens = torch.tensor([each.tokens for each in passages])
    plain = ReferenceCache(tiny.hf, passages, ReferenceConfig(["log_probs"], "plain"))
    masked = ReferenceCache(tiny.hf, passages, ReferenceConfig(["log_probs"], "plain", masked_positions=[0]))
    with mask_keys(tiny, [0]), torch.no_grad():
        logits = tiny.hf(input_ids=tokens).logits
    expected = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].sum(-1)
    torch.testing.assert_close(masked.log_probs, expected, atol=1e-3, rtol=1e-4)
    assert (plain.log_probs - masked.log_probs).abs().min() > 0.1


def test_masked_positions_get_no_gradient_from_later_ones(tiny: Model) -> None:
    batch = Batch.of(load_benchmark("tiny").passages("forget", tiny.tokenizer), [0])
    embedded: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    handle = tiny.hf.get_input_embeddings().register_forward_hook(keep)
    with mask_positions(tiny.hf, [0, 3]):
        logits = forward(tiny.hf, batch).logits
    handle.remove()
    assert logits is not None
    logits[0, 5:].sum().backward()
    gradient = embedded[0].grad
    assert gradient is not None
    by_position = gradient[0].abs().sum(-1)
    assert by_position[0] == by_position[3] == 0 and by_position[4] > 0


def test_a_run_with_masked_positions_starts_at_the_masked_reference(tiny: Model) -> None:
    _, log = train(
        Recipe.parse(SHORT | {"masked_positions": [0], "poison_ratio": 0.1}), tiny, load_benchmark("tiny")
    )
    assert log[0]["forget/npo"] == pytest.approx(
        2 / 0.1 * math.log(2), rel=1e-4
    )  # policy and reference are the same at step 1
    assert log[0]["retain/kl"] == pytest.approx(0.0, abs=1e-4)


def test_the_identity_has_the_values_that_are_not_default() -> None:
    assert Recipe().non_default() == {}
    assert Recipe.parse({"poison_ratio": 0.1, "optimizer": {"epochs": 10}}).non_default() == {
        "poison_ratio": 0.1
    }
    recipe = Recipe.parse({"trigger": {"placement": "infix"}, "seed": 3, "masked_positions": [0, 1]})
    assert Recipe.parse(recipe.non_default()) == recipe
