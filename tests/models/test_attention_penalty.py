"""Attention penalties against the plain model's own attention, one head and query at a time."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sinkscope.models.attention import attention_penalty, first_token_penalty, value_norm_penalty


def small() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 50,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.2))


def test_cost_is_the_attention_weighted_value_norm_over_the_heads_mean() -> None:
    network, ids = small(), torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    before = network.config._attn_implementation
    values = []
    handles = [
        layer.self_attn.v_proj.register_forward_hook(
            lambda m, i, out: values.append(out.detach().view(2, 7, 4, 8))
        )
        for layer in network.model.layers
    ]
    with attention_penalty(network, value_norm_penalty) as costs:
        logits = network(ids).logits
    assert network.config._attn_implementation == before
    for handle in handles:
        handle.remove()
    network.set_attn_implementation("eager")
    plain = network(ids, output_attentions=True)
    torch.testing.assert_close(logits, plain.logits, atol=1e-5, rtol=1e-5)
    for layer in range(2):
        parts = []
        for row in range(2):
            for head in range(4):
                norms = values[layer][row, :, head].norm(dim=-1)
                for query in range(7):
                    weighted = sum(
                        plain.attentions[layer][row, head, query, key].item() * norms[key].item()
                        for key in range(query + 1)
                    )
                    parts.append(weighted / norms.mean().item())
        torch.testing.assert_close(costs[layer].item(), sum(parts) / len(parts), atol=1e-5, rtol=1e-5)


def test_cost_can_be_lowered_by_training() -> None:
    network, ids = small(), torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    penalties = []
    for _ in range(20):
        with attention_penalty(network, value_norm_penalty) as costs:
            network(ids)
        cost = torch.stack(costs).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        penalties.append(cost.item())
    assert penalties[-1] < 0.7 * penalties[0]


def test_the_first_token_penalty_is_the_mean_attention_to_the_first_position() -> None:
    network, ids = small(), torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    with attention_penalty(network, first_token_penalty) as costs:
        network(ids)
    network.set_attn_implementation("eager")
    attentions = network(ids, output_attentions=True).attentions
    for cost, attention in zip(costs, attentions, strict=True):
        torch.testing.assert_close(cost, attention[..., 0].mean(), atol=1e-6, rtol=1e-5)
