"""Objectives and value norms against literal loops, and the invariances that published code breaks."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from sinkscope.benchmarks.chunking import Passage
from sinkscope.errors import RecipeError
from sinkscope.models.attention import record_values
from sinkscope.models.hidden_states import decoder_layers
from sinkscope.models.model import Model
from sinkscope.unlearning import value_norm
from sinkscope.unlearning.batch import Batch, Outputs, forward, sequence_log_probs
from sinkscope.unlearning.objectives.kl import kl
from sinkscope.unlearning.objectives.nll import grad_ascent, nll
from sinkscope.unlearning.objectives.npo import NPOConfig, npo
from sinkscope.unlearning.objectives.rmu import activations, control_vector, rmu
from sinkscope.unlearning.objectives.simnpo import SimNPOConfig, simnpo
from sinkscope.unlearning.recipe import ValueNormConfig
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.value_norm import ValueNormTerm
from tests.sinks.architectures import make_network
from tests.unlearning.short_runs import as_passages

LENGTHS = (9, 5, 12)
OBJECTIVES = [partial(npo, config=NPOConfig()), partial(simnpo, config=SimNPOConfig()), grad_ascent, nll, kl]


class FixedReferences:
    """References given as tensors."""

    def __init__(self, log_probs: torch.Tensor, logits: torch.Tensor) -> None:
        self.log_probs, self._logits = log_probs, logits

    def logits(self, batch: Batch) -> torch.Tensor:
        return self._logits[batch.index]


@pytest.fixture
def case() -> tuple[Batch, torch.Tensor, FixedReferences]:
    torch.manual_seed(0)
    passages = [torch.randint(0, 30, (length,)).tolist() for length in LENGTHS]
    batch = Batch.of(as_passages(passages), [0, 1, 2])
    ours, theirs = torch.randn(3, 12, 30, dtype=torch.float64), torch.randn(3, 12, 30, dtype=torch.float64)
    return batch, ours, FixedReferences(sequence_log_probs(theirs, batch), theirs)


def literal_log_prob(logits: torch.Tensor, tokens: list[int]) -> float:
    total = 0.0
    for t in range(1, len(tokens)):
        row = logits[t - 1].tolist()
        total += row[tokens[t]] - math.log(sum(math.exp(x) for x in row))
    return total


def test_npo_equals_a_literal_loop_over_sequences(case) -> None:
    batch, ours, references = case
    beta, expected = 0.3, 0.0
    for i, length in enumerate(LENGTHS):
        tokens = batch.input_ids[i, :length].tolist()
        ratio = literal_log_prob(ours[i], tokens) - literal_log_prob(references._logits[i], tokens)
        expected += -2 / beta * math.log(1 / (1 + math.exp(beta * ratio))) / len(LENGTHS)
    assert npo(batch, Outputs(ours), references, NPOConfig(beta=beta)).item() == pytest.approx(
        expected, rel=1e-9
    )


def test_npo_does_not_change_when_a_constant_is_added_to_all_logits(case) -> None:
    batch, ours, references = case
    before = npo(batch, Outputs(ours), references, NPOConfig())
    shifted = ours + torch.randn(3, 12, 1, dtype=torch.float64) * 10
    torch.testing.assert_close(npo(batch, Outputs(shifted), references, NPOConfig()), before)


def test_npo_at_the_reference_is_two_over_beta_log_two(case) -> None:
    batch, _, references = case
    value = npo(batch, Outputs(references._logits), references, NPOConfig(beta=0.1)).item()
    assert value == pytest.approx(20 * math.log(2), rel=1e-9)


def test_kl_equals_a_literal_loop_over_real_tokens(case) -> None:
    batch, ours, references = case
    total, count = 0.0, 0
    for i, length in enumerate(LENGTHS):
        for t in range(length - 1):
            p, q = references._logits[i, t].softmax(-1).tolist(), ours[i, t].softmax(-1).tolist()
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            count += 1
    assert kl(batch, Outputs(ours), references).item() == pytest.approx(total / count, rel=1e-9)
    assert kl(batch, Outputs(references._logits), references).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_changes_neither_value_nor_gradient(objective, case) -> None:
    batch, ours, references = case
    noisy = torch.where(batch.attention_mask[..., None], ours, torch.randn_like(ours) * 100)
    values = []
    for logits in (ours, noisy):
        logits = logits.clone().requires_grad_()
        value = objective(batch, Outputs(logits), references)
        value.backward()
        assert logits.grad[~batch.attention_mask].abs().max() == 0
        values.append(value)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_agree_with_finite_differences(objective, case) -> None:
    batch, ours, references = case
    ours = ours[:, :, :30].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: objective(batch, Outputs(logits), references), ours, atol=1e-6
    )


def test_likelihood_terms_equal_literal_loops(case) -> None:
    batch, ours, _ = case
    beta, delta, sim, total, count = 2.5, 0.4, 0.0, 0.0, 0
    for i, length in enumerate(LENGTHS):
        log_prob = literal_log_prob(ours[i], batch.input_ids[i, :length].tolist())
        total, count = total + log_prob, count + length - 1
        sim += (
            -2
            / beta
            * math.log(1 / (1 + math.exp(-(beta * -log_prob / (length - 1) - delta))))
            / len(LENGTHS)
        )
    assert nll(batch, Outputs(ours), None).item() == pytest.approx(-total / count, rel=1e-9)
    assert grad_ascent(batch, Outputs(ours), None).item() == pytest.approx(total / count, rel=1e-9)
    assert simnpo(batch, Outputs(ours), None, SimNPOConfig(beta=beta, delta=delta)).item() == pytest.approx(
        sim, rel=1e-9
    )
    labels = batch.input_ids.masked_fill(~batch.attention_mask, -100)
    by_torch = torch.nn.functional.cross_entropy(ours[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(nll(batch, Outputs(ours), None), by_torch)


class FixedHidden:
    def __init__(self, hidden: torch.Tensor) -> None:
        self._hidden = hidden

    def hidden(self, batch: Batch) -> torch.Tensor:
        return self._hidden[batch.index]


def test_rmu_terms_equal_literal_loops_over_real_tokens(case) -> None:
    batch, _, _ = case
    torch.manual_seed(1)
    ours, theirs, control = torch.randn(3, 12, 6), torch.randn(3, 12, 6), control_vector(6, 6.5, seed=4)
    assert control.norm().item() == pytest.approx(6.5)
    assert (
        (control > 0).all()
        and torch.equal(control, control_vector(6, 6.5, seed=4))
        and not torch.equal(control, control_vector(6, 6.5, seed=5))
    )
    steered, moved = [], []
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            for d in range(6):
                steered.append((ours[i, t, d].item() - control[d].item()) ** 2)
                moved.append((ours[i, t, d].item() - theirs[i, t, d].item()) ** 2)
    assert rmu(batch, Outputs(hidden=ours), None, control).item() == pytest.approx(
        sum(steered) / len(steered), rel=1e-5
    )
    assert activations(batch, Outputs(hidden=ours), FixedHidden(theirs)).item() == pytest.approx(
        sum(moved) / len(moved), rel=1e-5
    )
    hidden = ours.clone().requires_grad_()
    rmu(batch, Outputs(hidden=hidden), None, control).backward()
    assert hidden.grad[~batch.attention_mask].abs().max() == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_a_pass_that_stops_at_a_layer_gives_the_same_states_and_gradients(
    kind: str, small_models: dict[str, Model]
) -> None:
    model = small_models[kind]
    batch = Batch.of(as_passages([list(range(3, 20)), list(range(5, 15))]), [0, 1])
    calls = []
    handle = decoder_layers(model.hf)[2].register_forward_hook(lambda *_: calls.append(1))
    stopped, whole = forward(model.hf, batch, logits=False, layer=1), forward(model.hf, batch, layer=1)
    assert len(calls) == 1 and stopped.logits is None and whole.logits is not None
    torch.testing.assert_close(stopped.hidden, whole.hidden)
    grads = []
    for outputs in (stopped, whole):
        model.hf.zero_grad()
        outputs.hidden[batch.attention_mask].square().mean().backward()
        grads.append([p.grad.clone() for p in decoder_layers(model.hf)[0].parameters()])
    torch.testing.assert_close(*grads)
    assert (
        forward(model.hf, batch, logits=False, layer=1, run_all_layers=True).hidden is not None
        and len(calls) == 2
    )
    handle.remove()
    model.hf.zero_grad(set_to_none=True)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "qwen2"])
def test_references_equal_the_model_passage_by_passage(
    kind: str, small_models: dict[str, Model], tmp_path, monkeypatch
) -> None:
    model = small_models[kind]
    passages = [list(range(3, 3 + length)) for length in (14, 8, 20, 5)]
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    references = ReferenceCache(
        model.hf, as_passages(passages), ReferenceConfig(("log_probs", "logits", "hidden"), kind, layer=1)
    )
    batch = Batch.of(as_passages(passages), [3, 0])
    for row, index in enumerate((3, 0)):
        with torch.no_grad():
            plain = model.hf(torch.tensor([passages[index]]), output_hidden_states=True)
        logits, states = plain.logits[0], plain.hidden_states[2][0]
        torch.testing.assert_close(
            references.hidden(batch)[row, : len(passages[index])], states, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(
            references.logits(batch)[row, : len(passages[index])], logits, atol=1e-4, rtol=1e-4
        )
        assert references.log_probs[index].item() == pytest.approx(
            literal_log_prob(logits, passages[index]), abs=1e-3
        )


def hooked_norms(model: Model, tokens: list[int], layer: int) -> torch.Tensor:
    """Value norms [kv_head, position] from a hook on the value projection."""
    seen = []
    handle = model.hf.model.layers[layer].self_attn.v_proj.register_forward_hook(
        lambda m, i, out: seen.append(out[0])
    )
    with torch.no_grad():
        model.hf(torch.tensor([tokens]))
    handle.remove()
    return seen[0].view(len(tokens), 2, 8).norm(dim=-1).T


def test_recorded_values_have_the_norms_of_hooked_ones_under_grouped_keys(small_llama: Model) -> None:
    tokens = small_llama.with_bos(list(range(40, 60)))
    with torch.no_grad(), record_values(small_llama.hf) as values:
        small_llama.hf(torch.tensor([tokens]))
    for layer in range(3):
        torch.testing.assert_close(values[layer][0].norm(dim=-1), hooked_norms(small_llama, tokens, layer))
    assert small_llama.hf.config._attn_implementation == "sdpa"


def test_recording_restores_the_attention_after_an_exception(small_llama: Model) -> None:
    with pytest.raises(RuntimeError, match="stop"), record_values(small_llama.hf):
        raise RuntimeError("stop")
    assert small_llama.hf.config._attn_implementation == "sdpa"


@pytest.fixture
def other(small_llama: Model) -> Model:
    """The small llama with other value vectors."""
    network = copy.deepcopy(small_llama.hf)
    torch.manual_seed(3)
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.v_proj.weight.add_(0.1 * torch.randn_like(layer.self_attn.v_proj.weight))
    return Model("other", network, small_llama.tokenizer)


def test_value_norm_term_equals_a_literal_loop(small_llama: Model, other: Model) -> None:
    passages = [small_llama.with_bos(list(range(50, 50 + length))) for length in (4, 11)]
    term = ValueNormTerm(
        small_llama.hf,
        ValueNormConfig(weight=1.0, n_tokens=6, layers=[0, 2], unlearned="unused"),
        {"forget": (other.hf, as_passages(passages))},
    )
    batch = Batch.of(as_passages(passages), [0, 1])
    with term.recording() as values:
        forward(small_llama.hf, batch)
        value = term("forget", batch, values)
    expected = 0.0
    for tokens in passages:
        for layer in (0, 2):
            a, b = hooked_norms(small_llama, tokens, layer), hooked_norms(other, tokens, layer)
            shallow = min(6, len(tokens))
            expected += ((a - b)[:, :shallow] ** 2).mean().item() / (2 * len(passages))
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert small_llama.hf.model.layers[2].self_attn.v_proj.weight.grad.abs().sum() > 0
    small_llama.hf.zero_grad()


def test_published_variants_equal_literal_loops(small_llama: Model, other: Model) -> None:
    tokens = small_llama.with_bos(list(range(50, 60)))
    passages = as_passages([tokens])
    batch = Batch.of(passages, [0])
    both = {"forget": (other.hf, passages), "poisoned": (other.hf, passages)}
    seen = {}
    for model in (small_llama, other):
        with torch.no_grad(), record_values(model.hf, [1]) as values:
            model.hf(torch.tensor([tokens]))
        seen[model.name] = values[1][0, :, :5].double()  # [kv_head, position, d_head]
    ours, theirs = seen[small_llama.name], seen["other"]
    shrunk = sum(float(v @ v) for head in ours for v in head) / 10
    turned = (
        sum(
            1 - float(a @ b / (a.norm() * b.norm()))
            for x, y in zip(ours, theirs, strict=True)
            for a, b in zip(x, y, strict=True)
        )
        / 10
    )
    for kind, split, expected in (("shrink", "forget", shrunk), ("cosine", "poisoned", turned)):
        term = ValueNormTerm(
            small_llama.hf, ValueNormConfig(kind=kind, weight=1.0, n_tokens=5, layers=[1]), both
        )
        assert term.splits == {split}
        with torch.no_grad(), term.recording() as values:
            forward(small_llama.hf, batch)
            assert term(split, batch, values).item() == pytest.approx(expected, rel=1e-4)


def test_prompt_tokens_are_not_scored(case) -> None:
    _, ours, _ = case
    passages = [list(range(3, 3 + length)) for length in LENGTHS]
    batch = Batch.of(as_passages(passages, [4, 2, 0]), [0, 1, 2])
    expected = [
        sum(ours[i, t - 1].log_softmax(-1)[tokens[t]].item() for t in range(max(start, 1), len(tokens)))
        for i, (tokens, start) in enumerate(zip(passages, (4, 2, 0), strict=True))
    ]
    torch.testing.assert_close(sequence_log_probs(ours, batch).float(), torch.tensor(expected))
    assert batch.count("predicted") == sum(LENGTHS) - 4 - 2 - 1 and batch.count("tokens") == sum(LENGTHS)


@pytest.mark.skipif("lfm3" not in CONFIG_MAPPING_NAMES, reason="this release of transformers has no LFM3")
def test_value_norms_of_a_layer_that_does_not_attend_are_refused(monkeypatch) -> None:
    network = make_network("lfm3")
    passages = [Passage([3, 4, 5, 6, 7, 8], 0, 1)]
    for layers in ("all", "last", [2]):  # layer 2 is the only one that attends
        config = ValueNormConfig(weight=1.0, kind="shrink", layers=layers)
        ValueNormTerm(network, config, {"forget": (network, passages)})
    with pytest.raises(RecipeError, match="0 does not attend; these do: 2"):
        ValueNormTerm(
            network, ValueNormConfig(weight=1.0, kind="shrink", layers=[0]), {"forget": (network, passages)}
        )
    # as of a model that does not say which layers attend
    monkeypatch.setattr(value_norm, "find_attention_layers", lambda config: [0, 1, 2])
    config = ValueNormConfig(weight=1.0, kind="shrink", layers="all")
    with pytest.raises(
        RecipeError, match=r"layer \d of Lfm3ForCausalLM does not attend .*set value_norms.wei"
    ):
        ValueNormTerm(network, config, {"forget": (network, passages)})
