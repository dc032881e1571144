"""A training step against a literal one, microbatches and recomputation, the batch plan."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from sinkscope import load
from sinkscope.models.model import Model
from sinkscope.unlearning.batch import BatchPlan, split_into_microbatches
from sinkscope.unlearning.recipe import Recipe
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.run import _recomputing
from sinkscope.unlearning.trainer import UnlearnTrainer
from sinkscope.unlearning.value_norm import ValueNormTerm
from tests.unlearning.short_runs import as_passages, train_on

NEEDS = ("log_probs", "logits", "hidden")


def test_a_step_equals_a_literal_one(small_llama: Model, tmp_path: Path) -> None:
    """NPO, KL on retain and poisoned passages, value norms: every frozen output recomputed, one loss, plain
    autograd, AdamW by hand."""
    torch.manual_seed(0)
    passages = {
        split: as_passages([[1, *torch.randint(3, 400, (n,)).tolist()] for n in (9, 14, 5)])
        for split in ("forget", "retain", "poisoned")
    }
    model, other = (load(small_llama.name, "cpu") for _ in range(2))
    with torch.no_grad():
        for weight in model.hf.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    values = {"weight": 0.5, "n_tokens": 3, "unlearned": small_llama.name}
    recipe = Recipe.parse(
        {
            "objective": {"beta": 0.3, "retain": {"kl": 2.0}},
            "value_norms": values,
            "optimizer": {"batch_size": 3, "epochs": 1},
        }
    )
    frozen = small_llama.hf
    needs = {"forget": ("log_probs",), "retain": ("logits",), "poisoned": ("logits",)}
    references = {
        split: ReferenceCache(frozen, passages[split], ReferenceConfig(needs[split], "test"))
        for split in passages
    }
    term = ValueNormTerm(
        model.hf, recipe.value_norms, {split: (frozen, passages[split]) for split in ("forget", "poisoned")}
    )
    start = {name: weight.detach().clone() for name, weight in model.hf.named_parameters()}
    log = train_on(model, recipe, passages, references, term, tmp_path)

    def log_probs(network, tokens):
        return network(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)

    def norms(network, tokens):
        seen = []
        handle = network.model.layers[-1].self_attn.v_proj.register_forward_hook(
            lambda m, i, out: seen.append(out[0, :3].view(3, 2, 8).norm(dim=-1))
        )
        network(torch.tensor([tokens]))
        handle.remove()
        return seen[0]

    literal = other.hf
    literal.load_state_dict(
        start | {"lm_head.weight": start.get("lm_head.weight", start["model.embed_tokens.weight"])}
    )
    loss = 0.0
    for tokens in (each.tokens for each in passages["forget"]):
        picked = torch.tensor(tokens[1:])[:, None]
        ratio = (
            log_probs(literal, tokens).gather(1, picked)
            - log_probs(frozen, tokens).gather(1, picked).detach()
        ).sum()
        loss = loss - 2 / 0.3 * torch.nn.functional.logsigmoid(-0.3 * ratio) / 3
        loss = loss + 0.5 * (norms(literal, tokens) - norms(frozen, tokens).detach()).square().mean() / 3
    for split in ("retain", "poisoned"):
        count = sum(len(tokens) - 1 for tokens in (each.tokens for each in passages[split]))
        for tokens in (each.tokens for each in passages[split]):
            theirs, ours = log_probs(frozen, tokens).detach(), log_probs(literal, tokens)
            loss = loss + 2.0 * (theirs.exp() * (theirs - ours)).sum() / count
    for tokens in (each.tokens for each in passages["poisoned"]):
        loss = loss + 0.5 * (norms(literal, tokens) - norms(frozen, tokens).detach()).square().mean() / 3
    loss.backward()
    gradients = {name: weight.grad for name, weight in literal.named_parameters()}
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert log[0]["grad_norm"] == pytest.approx(total.item(), rel=1e-3)
    after = dict(model.hf.named_parameters())
    for name, gradient in gradients.items():
        clipped = gradient / max(1.0, total.item())
        big = clipped.abs() > 1e-5  # AdamW's first step is lr · sign of the gradient, where that is not noise
        torch.testing.assert_close(
            (after[name] - start[name])[big], (-1.2e-4 * clipped.sign())[big], rtol=2e-3, atol=1e-7
        )


@pytest.mark.parametrize(
    "objective",
    [
        {"retain": {"kl": 1.0}},
        {"forget": "rmu", "retain": {"activations": 5.0, "kl": 0.1}},
        {"forget": "simnpo", "retain": {"nll": 1.0}},
    ],
    ids=["npo", "rmu", "simnpo"],
)
@pytest.mark.parametrize(
    "memory_option",
    [{"gradient_accumulation_steps": 5}, {"gradient_checkpointing": True}],
    ids=["accumulation", "checkpointing"],
)
def test_microbatches_and_checkpointing_give_the_same_gradients(
    objective: dict, memory_option: dict, small_llama: Model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        UnlearnTrainer,
        "get_optimizer_cls_and_kwargs",
        staticmethod(lambda args, model=None: (torch.optim.SGD, {"lr": 0.1})),
    )
    torch.manual_seed(1)
    passages = {
        split: as_passages(
            [[1, *torch.randint(3, 400, (n,)).tolist()] for n in (9, 14, 5, 22, 7, 12, 3)],
            [0, 4, 0, 0, 2, 0, 0],
        )
        for split in ("forget", "retain", "poisoned")
    }
    results = []
    for optimizer in ({}, memory_option):
        model = load(small_llama.name, "cpu")
        values = {"kind": "shrink", "weight": 0.1, "n_tokens": 4, "layers": "all"}
        recipe = Recipe.parse(
            {
                "objective": objective,
                "value_norms": values,
                "optimizer": {"batch_size": 7, "epochs": 3, **optimizer},
            }
        )
        references = {
            split: ReferenceCache(model.hf, each, ReferenceConfig(NEEDS, "test", 1))
            for split, each in passages.items()
        }
        term = ValueNormTerm(model.hf, recipe.value_norms, {"forget": (model.hf, passages["forget"])})
        with _recomputing(model.hf) if recipe.optimizer.gradient_checkpointing else nullcontext():
            result = train_on(model, recipe, passages, references, term, tmp_path)
        results.append(
            ({name: weight.detach().clone() for name, weight in model.hf.named_parameters()}, result)
        )
    (a, log_a), (b, log_b) = results
    for key, value in log_a[0].items():
        assert log_b[0][key] == pytest.approx(value, rel=1e-4, abs=1e-4), (
            key
        )  # at the reference the gradient is rounding
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=5e-6)


def test_a_batch_plan_has_all_forget_rows_and_the_others_equally_often() -> None:
    optimizer = Recipe.parse({"optimizer": {"epochs": 3, "batch_size": 4}}).optimizer
    plan = BatchPlan.of({"forget": range(10), "retain": range(7), "poisoned": ()}, optimizer, seed=0)
    rows = [plan[step] for step in range(len(plan))]
    assert len(rows) == 8 and "poisoned" not in rows[0]  # 30 passages in fours
    forget, retain = ([row for step in rows for row in step[split]] for split in ("forget", "retain"))
    assert all(sorted(forget[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    counts = [retain.count(row) for row in range(7)]
    assert max(counts) - min(counts) <= 1 and plan.epoch(8) == 3
    capped = BatchPlan.of(
        {"forget": range(10), "retain": range(7)}, optimizer.model_copy(update={"steps_per_epoch": 2}), seed=0
    )
    assert len(capped) == 6
    assert split_into_microbatches([1, 2, 3, 4, 5], 3) == [[1, 2], [3, 4], [5]] and split_into_microbatches(
        [1, 2], 4
    ) == [[1], [2], [], []]
