"""Small random networks of many families, and an oracle that reads their tensors number by number."""

from __future__ import annotations

import copy

import numpy as np
import torch
import transformers as t

BASIC = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 400,
    "max_position_embeddings": 128,
}
SPECIALS = {"bos_token_id": 0, "eos_token_id": 0}
GATED = {"intermediate_size": 48, "initializer_range": 0.2, **SPECIALS}
GROUPED = {"num_key_value_heads": 2, **GATED}
WINDOW = {
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "head_dim": 8,
}

CONFIGS = {
    "llama": lambda: t.LlamaConfig(**BASIC, **GROUPED | {"bos_token_id": 1, "eos_token_id": 2}),
    "mistral": lambda: t.MistralConfig(**BASIC, **GROUPED, sliding_window=9),
    "qwen2": lambda: t.Qwen2Config(**BASIC, **GROUPED),
    "qwen3": lambda: t.Qwen3Config(**BASIC, **GROUPED, head_dim=16),
    "gemma2": lambda: t.Gemma2Config(
        **BASIC, **GROUPED, **WINDOW, attn_logit_softcapping=2.0, query_pre_attn_scalar=8
    ),
    "gemma3": lambda: t.Gemma3TextConfig(**BASIC, **GROUPED, **WINDOW),
    "gpt2": lambda: t.GPT2Config(
        n_embd=32, n_layer=3, n_head=4, vocab_size=400, n_positions=128, initializer_range=0.2, **SPECIALS
    ),
    "neox": lambda: t.GPTNeoXConfig(**BASIC, **GATED),
    "opt": lambda: t.OPTConfig(**BASIC, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2, **SPECIALS),
    "phi": lambda: t.PhiConfig(**BASIC, **GATED),
    "gpt_oss": lambda: t.GptOssConfig(
        **BASIC, **GROUPED, **WINDOW, num_local_experts=2, num_experts_per_tok=1
    ),
    "bloom": lambda: t.BloomConfig(
        hidden_size=32, n_layer=3, n_head=4, vocab_size=400, initializer_range=0.2, **SPECIALS
    ),
}
"""Bloom biases its scores by distance and attends in its own code: the tiled backend does not support it."""
TILED = tuple(kind for kind in CONFIGS if kind != "bloom")


def network(kind: str) -> t.PreTrainedModel:
    torch.manual_seed(0)
    made = t.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    if kind == "gpt_oss":  # its learned sinks start at zero-like values, all the same
        for layer in made.model.layers:
            torch.nn.init.normal_(layer.self_attn.sinks)
    made.config.architectures = [type(made).__name__]
    return made


def value_source(plain: t.PreTrainedModel, kind: str, layer: int) -> tuple[torch.nn.Module, object]:
    """The module whose output holds the layer's values, and a function to [position, kv_head, d_head]."""
    if kind == "gpt2":
        return plain.transformer.h[layer].attn.c_attn, lambda out: out[0, :, 64:].view(out.shape[1], 4, 8)
    if kind == "neox":
        return plain.gpt_neox.layers[layer].attention.query_key_value, lambda out: out[0].view(
            out.shape[1], 4, 24
        )[..., 16:]
    if kind == "bloom":
        return plain.transformer.h[layer].self_attention.query_key_value, lambda out: out[0].view(
            out.shape[1], 4, 3, 8
        )[:, :, 2]
    layers = plain.model.decoder.layers if kind == "opt" else plain.model.layers
    kv_heads = 4 if kind in ("opt", "phi") else 2
    return layers[layer].self_attn.v_proj, lambda out: out[0].view(out.shape[1], kv_heads, -1)


def naive(
    model: t.PreTrainedModel, kind: str, passages: list[list[int]], epsilon: float
) -> dict[str, np.ndarray]:
    """Every statistic, one passage, one layer, one head, one position at a time."""
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    length = max(map(len, passages))
    shape = (3, 4, length)
    sums = {
        name: np.zeros(shape)
        for name in (
            *("alpha", "sink_rate", "value_norm", "weighted_norm"),
            *("entropy", "learned_sink", "attention_distance"),
        )
    }
    maps = np.zeros((*shape, length))
    count = np.zeros(length)
    for passage in passages:
        attentions, values = _tensors(plain, kind, passage)
        size = len(passage)
        count[:size] += 1
        for layer in range(3):
            for head in range(4):
                pattern = attentions[layer][head]
                maps[layer, head, :size, :size] += pattern
                for k in range(size):
                    alpha = sum(pattern[i, k] for i in range(k, size)) / (size - k)
                    vector = values[layer][k, head // (4 // values[layer].shape[1])]
                    norm = sum(x * x for x in vector) ** 0.5
                    row = [x for x in pattern[k] if x > 0]
                    sums["alpha"][layer, head, k] += alpha
                    sums["sink_rate"][layer, head, k] += alpha > epsilon
                    sums["value_norm"][layer, head, k] += norm
                    sums["weighted_norm"][layer, head, k] += alpha * norm
                    sums["entropy"][layer, head, k] -= sum(x * np.log(x) for x in row)
                    sums["learned_sink"][layer, head, k] += 1 - sum(row)
                    distance = sum(pattern[k, j] * (k - j) for j in range(k))
                    sums["attention_distance"][layer, head, k] += distance / sum(row)
    return {name: total / count for name, total in sums.items()} | {"pattern": maps / count[:, None]}


def _tensors(
    plain: t.PreTrainedModel, kind: str, passage: list[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    values: dict[int, np.ndarray] = {}
    handles = []
    for layer in range(3):
        module, read = value_source(plain, kind, layer)
        handles.append(
            module.register_forward_hook(
                lambda m, i, out, layer=layer, read=read: values.__setitem__(
                    layer, read(out.detach()).double().numpy()
                )
            )
        )
    with torch.no_grad():
        out = plain(torch.tensor([passage]), output_attentions=True)
    for handle in handles:
        handle.remove()
    # a learned sink's column comes last, if the model returns it
    return [a[0, ..., : len(passage)].double().numpy() for a in out.attentions], [
        values[layer] for layer in range(3)
    ]
