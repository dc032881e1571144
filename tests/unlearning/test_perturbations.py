"""Rounding and pruning against literal versions and torch's own fake quantization."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.unlearning.perturbations import parse_perturbation, perturb, prune, quantize_rows
from tests.conftest import FAMILIES


def perturbed(model: Model, perturbation: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """All parameters before and after; the model itself stays as it is."""
    network = copy.deepcopy(model.hf)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    perturb(network, perturbation)
    return before, {name: weight.detach() for name, weight in network.named_parameters()}


def matrices(model: Model) -> dict[str, bool]:
    """Parameter names of linear layers except the head, and whether each matrix is stored transposed."""
    head = model.hf.get_output_embeddings()
    kinds = {
        name: module
        for name, module in model.hf.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    return {f"{name}.weight": isinstance(module, Conv1D) for name, module in kinds.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_is_the_literal_rounding_of_every_row(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 9).to(dtype)
    weight[3] *= 1e-3
    for row, made in zip(weight.tolist(), quantize_rows(weight).tolist(), strict=True):
        step = max(abs(number) for number in row) / 127
        literal = torch.tensor([round(number / step) * step for number in row])
        torch.testing.assert_close(torch.tensor(made), literal.to(dtype).float(), rtol=1e-6, atol=0)
        assert len(set(made)) > 1


def test_int8_is_torchs_fake_quantization_per_channel() -> None:
    torch.manual_seed(1)
    weight = torch.randn(17, 33)
    scale = weight.abs().amax(1) / 127
    oracle = torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(17, dtype=torch.int32), 0, -127, 127
    )
    torch.testing.assert_close(quantize_rows(weight), oracle, rtol=1e-6, atol=0)
    assert not torch.equal(quantize_rows(weight), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_int8_of_zero_and_tiny_rows_is_finite(dtype: torch.dtype) -> None:
    weight = torch.zeros(3, 4, dtype=dtype)
    weight[1] = torch.finfo(dtype).tiny
    made = quantize_rows(weight)
    assert made.isfinite().all()
    assert (made[0] == 0).all()
    assert made[1:2].abs().amax() <= torch.finfo(dtype).tiny


@pytest.mark.parametrize(("share", "count"), [(0.3, 11), (0.5, 18), (0.01, 0), (0.999, 36)])
def test_pruning_removes_exactly_the_smallest(share: float, count: int) -> None:
    torch.manual_seed(2)
    weight = torch.randn(4, 9)
    made = prune(weight, share)
    gone = made == 0
    assert gone.sum() == count
    assert torch.equal(made[~gone], weight[~gone])
    assert weight[gone].abs().max() < weight[~gone].abs().min() if 0 < count < 36 else count in (0, 36)


def test_pruning_equal_weights_removes_its_share() -> None:
    assert (prune(torch.ones(4, 5), 0.25) == 0).sum() == 5


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("perturbation", ["int8", "prune:0.3"])
def test_only_matrices_of_linear_layers_are_changed(
    kind: str, perturbation: str, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    before, after = perturbed(model, perturbation)
    chosen = matrices(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(chosen)
    for name, turned in chosen.items():
        matrix = before[name].T if turned else before[name]
        made = quantize_rows(matrix) if perturbation == "int8" else prune(matrix, 0.3)
        assert torch.equal(after[name].T if turned else after[name], made), name


@pytest.mark.parametrize("perturbation", ["int8", "prune:0.4"])
def test_conv1d_of_gpt2_is_perturbed_as_the_transposed_linear_layer(perturbation: str) -> None:
    class Holder(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def get_output_embeddings(self) -> None:
            return None

    torch.manual_seed(3)
    turned, plain = Conv1D(12, 8), torch.nn.Linear(8, 12)
    with torch.no_grad():
        plain.weight.copy_(turned.weight.T)
        plain.bias.copy_(turned.bias.normal_())
    given = torch.randn(5, 8)
    before = turned(given)
    for layer in (turned, plain):
        perturb(Holder(layer), perturbation)
    assert torch.equal(turned.weight.T, plain.weight)
    torch.testing.assert_close(turned(given), plain(given))
    assert not torch.allclose(turned(given), before, atol=1e-5)


def test_bf16_rounds_every_weight_to_nearest_even(small_llama: Model) -> None:
    """Literal: the upper 16 bits, after half a unit of the last one is added."""
    before, after = perturbed(small_llama, "bf16")
    for name, weight in before.items():
        bits = weight.view(torch.int32).long()
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
        assert torch.equal(after[name].view(torch.int32).long() & 0xFFFFFFFF, upper & 0xFFFFFFFF), name
        assert after[name].dtype == torch.float32
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


@pytest.mark.parametrize(
    "perturbation",
    [
        "int4",
        "prune",
        "prune:0",
        "prune:0.0",
        "prune:1.0",
        "prune:-0.3",
        "prune:30",
        "prune:nan",
        "",
        "int8 bf16",
        "INT8",
    ],
)
def test_other_forms_are_refused(perturbation: str, small_llama: Model) -> None:
    with pytest.raises(ModelError, match=r"is unknown; use int8, bf16 or prune:0.3") as caught:
        perturb(small_llama.hf, perturbation)
    assert "\n" not in str(caught.value)


def test_known_forms_are_parsed() -> None:
    assert [parse_perturbation(form) for form in ("int8", " bf16 ", "prune:0.3", "prune:.05")] == [
        ("int8", 0.0),
        ("bf16", 0.0),
        ("prune", 0.3),
        ("prune", 0.05),
    ]
