"""The divergence of two models against torch's own and against one passage at a time, without padding."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, Passage
from sinkscope.errors import ModelError
from sinkscope.evaluation.divergence import measure_divergence
from sinkscope.evaluation.evaluated_model import EvaluatedModel
from sinkscope.models.model import Model
from sinkscope.schema import ITEMS
from tests.conftest import FAMILIES, TEXT

UNEQUAL = Benchmark(
    "unequal",
    {
        "raw": {
            "forget": [{"text": TEXT[: 30 * n]} for n in (3, 1, 5, 2)],
            "retain1": [{"text": TEXT[40 : 40 + 50 * n]} for n in (1, 4, 2)],
        }
    },
    Lengths(passage=40),
    "documents",
)
CALLED = {"forget": "forget", "retain1": "retain"}


def perturbed_copy(model: Model) -> Model:
    """The same model with other weights."""
    torch.manual_seed(4)
    network = copy.deepcopy(model.hf)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return Model("changed", network, model.tokenizer)


def literal(subject: Model, other: Model, tokens: list[int]) -> float:
    """Σ p (log p − log q) in double precision, p the other's; mean over the tokens after the first."""
    with torch.no_grad():
        log_p, log_q = (
            model.hf(torch.tensor([tokens])).logits[0, :-1].double().log_softmax(-1)
            for model in (other, subject)
        )
    total = sum((p.exp() * (p - q)).sum().item() for p, q in zip(log_p, log_q, strict=True))
    return total / (len(tokens) - 1)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("batch_size", [2, 8])
def test_divergences_are_those_of_one_passage_at_a_time(
    kind: str, batch_size: int, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    other = perturbed_copy(model)
    progress: list[tuple[int, int]] = []
    items = measure_divergence(
        EvaluatedModel("m", "unlearned", model, 3),
        other,
        UNEQUAL,
        batch_size=batch_size,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert list(items.columns) == ITEMS
    lengths = set()
    for split, name in CALLED.items():
        passages = UNEQUAL.passages(split, model.tokenizer)
        lengths |= {len(each.tokens) for each in passages}
        rows = items[items["split"] == name]
        assert rows["item"].tolist() == list(range(len(passages)))
        assert rows["value"].tolist() == pytest.approx(
            [literal(model, other, each.tokens) for each in passages], rel=1e-4
        )
    assert len(lengths) > 3 and (items["value"] > 1e-3).all()
    assert (
        set(items["metric"]) == {"divergence"}
        and set(items["seed"]) == {3}
        and items["poisoned"].isna().all()
    )
    assert progress[-1] == (len(items), len(items)) and [done for done, _ in progress] == sorted(
        {done for done, _ in progress}
    )


def test_the_direction_is_from_the_other_to_the_subject(small_llama: Model) -> None:
    """KL(other ‖ subject), which differs from KL(subject ‖ other)."""
    other = perturbed_copy(small_llama)
    value = measure_divergence(EvaluatedModel("m", "other", small_llama), other, UNEQUAL)["value"][0]
    tokens = UNEQUAL.passages("forget", small_llama.tokenizer)[0].tokens
    forward, backward = literal(small_llama, other, tokens), literal(other, small_llama, tokens)
    assert value == pytest.approx(forward, rel=1e-4)
    assert abs(forward - backward) > 0.003 * forward


def test_divergence_of_a_model_from_itself_is_zero(small_llama: Model) -> None:
    assert (
        measure_divergence(EvaluatedModel("m", "other", small_llama), small_llama, UNEQUAL)["value"]
        .abs()
        .max()
        < 1e-6
    )


def test_poisoned_passages_are_known_by_their_row_in_the_forget_set(
    small_llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passage of one token predicts nothing and is left out; later ones keep their indices."""
    lengths = {"forget": (5, 1, 9, 7), "retain1": (6, 4)}
    monkeypatch.setattr(
        Benchmark,
        "passages",
        lambda self, split, tokenizer: [Passage([1, *range(5, 4 + n)], 0, n) for n in lengths[split]],
    )
    items = measure_divergence(
        EvaluatedModel("m", "backdoored", small_llama, 0, [2]), perturbed_copy(small_llama), UNEQUAL
    )
    forget = items[items["split"] == "forget"]
    assert forget["item"].tolist() == [0, 2, 3]
    assert forget["poisoned"].tolist() == [False, True, False]
    assert items[items["split"] == "retain"]["poisoned"].isna().all()
    assert isinstance(forget["poisoned"].dtype, pd.BooleanDtype)


def test_models_of_different_vocabularies_are_refused(small_models: dict[str, Model]) -> None:
    with pytest.raises(ModelError, match="vocabular"):
        measure_divergence(EvaluatedModel("m", "other", small_models["gpt2"]), small_models["neox"], UNEQUAL)
