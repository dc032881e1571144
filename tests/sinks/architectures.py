"""Small random networks of every architecture that transformers builds from sizes alone, and an oracle.

The oracle reads the pattern that eager attention returns, and the values that it is called with, one passage
at a time.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sinkscope.errors import ModelError
from sinkscope.models.model import Model
from sinkscope.sinks.backends import BACKENDS
from sinkscope.sinks.locate import CaptureConfig, locate

EPSILON = 0.1
TOLERANCE = 1e-4
EQUAL = "as eager attention"
RUNS = "runs; its eager attention is not returned"
NO_PATTERN = {"falcon", "granite_swa", "granitemoe_swa"}
"""Their eager attention returns scores, or a pattern without the learned sinks."""
N_LAYERS, N_HEADS, WINDOW = 3, 4, 9
MAX_WEIGHTS = 20_000_000
HIDDEN = (
    "hidden_size n_embd d_model word_embed_proj_dim embedding_dim lru_width attention_hidden_size".split()
)
LAYERS = "num_hidden_layers n_layer num_layers decoder_layers encoder_layers".split()
HEADS = "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads".split()
INNER = "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner mlp_hidden_size".split()
POSITIONS = "max_position_embeddings n_positions n_ctx".split()
EXPERTS = "num_experts num_local_experts moe_num_experts".split()
EXPERT_SIZES = "moe_intermediate_size shared_expert_intermediate_size expert_dim".split()
WINDOWS = "sliding_window attention_window window_size".split()
LINEAR = "linear_num_value_heads linear_num_key_heads".split()
SIZES: dict[str, Any] = {
    **dict.fromkeys(HIDDEN, 32),
    **dict.fromkeys(LAYERS, N_LAYERS),
    **dict.fromkeys(HEADS, N_HEADS),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(POSITIONS, 128),
    **dict.fromkeys(EXPERTS, 2),
    **dict.fromkeys(EXPERT_SIZES, 16),
    **dict.fromkeys(WINDOWS, WINDOW),
    **dict.fromkeys(LINEAR, 2),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    **{"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    **{"num_experts_per_tok": 1, "num_experts_per_token": 1, "n_group": 1, "topk_group": 1},
    **{"head_dim": 8, "rotary_dim": 4, "is_decoder": True, "intermediate_size_mlp": 48},
    **{"attention_chunk_size": 16, "mamba_d_state": 8, "state_size": 8, "use_mamba_kernels": False},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
"""What a configuration is given of these, if it has a parameter of the name."""
LATENT = {
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
    **{"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4},
}
"""Multi-head latent attention, whose values have another size than its keys."""
HYBRID = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
WINDOWED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
PER_LAYER = {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8}
WINDOW_HEADS = {"swa_num_attention_heads": N_HEADS, "swa_num_key_value_heads": 2, "swa_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16}
WITH_LATENT = (
    "deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3 sarvam_mla youtu axk1 axk2"
)
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(WITH_LATENT.split(), LATENT | {"head_dim": None}),
    **dict.fromkeys("qwen3_next qwen3_5_text qwen3_5_moe_text".split(), HYBRID),
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "ernie4_5_moe": {"moe_k": 1, "moe_num_experts": 4},
    "falcon": {"multi_query": True, "new_decoder_architecture": False},
    "gemma3n_text": PER_LAYER | WINDOWED | {"num_kv_shared_layers": 0},
    "gemma4_text": PER_LAYER,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention", "mamba"]},
    **dict.fromkeys("inkling_text inkling2_text inkling2_loop_text".split(), WINDOW_HEADS),
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "minimax": {"layer_types": ["full_attention"] * N_LAYERS},
    "reformer": {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 16]},
    "zamba2": {"layers_block_type": ["hybrid", "mamba", "hybrid"], "layer_types": None},
}
"""What an architecture needs besides."""


def names() -> list[str]:
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def make_config(name: str) -> transformers.PreTrainedConfig:
    config_class = CONFIG_MAPPING[name]
    known = {*inspect.signature(config_class.__init__).parameters, *config_class.__dataclass_fields__}
    values = {key: value for key, value in SIZES.items() if key in known} | OWN.get(name, {})
    return config_class(**{key: value for key, value in values.items() if value is not None})


def make_network(name: str) -> transformers.PreTrainedModel:
    """Raises what the architecture does where sizes do not describe it; MemoryError for a large one."""
    config = make_config(name)
    with torch.device("meta"):
        if transformers.AutoModelForCausalLM.from_config(config).num_parameters() > MAX_WEIGHTS:
            raise MemoryError(name)
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    network.config.architectures = [type(network).__name__]
    return network


@contextmanager
def recorded_values(
    network: transformers.PreTrainedModel, records_keys: bool = False
) -> Iterator[dict[int, torch.Tensor]]:
    """Within the context: layer -> the values (or keys) that its eager attention was called with last.

    A module that several layers share has no number of a layer; its calls are those of the hybrid layers.
    """
    values: dict[int, torch.Tensor] = {}
    hybrid = [
        i for i, kind in enumerate(getattr(network.config, "layer_types", None) or []) if kind == "hybrid"
    ]
    modules = {sys.modules[type(module).__module__] for module in network.modules()}
    patched = [
        (each, each.eager_attention_forward) for each in modules if hasattr(each, "eager_attention_forward")
    ]

    def record(original):
        def attend(module, query, key, value, *args, **options):
            layer = module.layer_idx if module.layer_idx >= 0 else hybrid[len(values)]
            values[layer] = (key if records_keys else value).detach()
            return original(module, query, key, value, *args, **options)

        return attend

    for module, original in patched:
        module.eager_attention_forward = record(original)
    try:
        yield values
    finally:
        for module, original in patched:
            module.eager_attention_forward = original


@torch.no_grad()
def _pattern(network: PreTrainedModel, passage: list[int]) -> torch.Tensor:
    """[layer, head, query, key], of the layers that attend"""
    attentions = network(torch.tensor([passage]), output_attentions=True).attentions
    return torch.stack([each[0, :, :, : len(passage)].double() for each in attentions if each is not None])


def expected(
    network: transformers.PreTrainedModel, passages: list[list[int]], epsilon: float
) -> dict[str, np.ndarray]:
    """alpha and sink_rate (layer, head, position), uniform (layer, position), and value_norm where values are
    recorded; mean over passages. The sink rate is NaN where some α is too near to the threshold, everything
    in layers that do not call eager attention."""
    plain = copy.deepcopy(network)
    plain.set_attn_implementation("eager")
    flat = copy.deepcopy(plain)  # attends to all keys that it can, where sharp attention can be 0 in fp32
    for parameter in flat.parameters():
        parameter.data.mul_(0.01)
    rows: dict[str, list[np.ndarray]] = {}
    for passage in passages:
        size = len(passage)
        n_queries = torch.arange(size, 0, -1)
        with recorded_values(plain) as values:
            pattern = _pattern(plain, passage)
        visible = (_pattern(flat, passage) > 0).any(1).double()
        alpha = pattern.sum(2) / n_queries
        found = {
            "alpha": alpha,
            "sink_rate": (alpha > epsilon).double(),
            "is_near": ((alpha - epsilon).abs() < TOLERANCE).double(),
            "uniform": (visible / visible.sum(-1, keepdim=True)).sum(1) / n_queries,
        }
        if values:
            norms = [values[layer][0].double().norm(dim=-1) for layer in sorted(values)]
            heads = pattern.shape[1]
            found["value_norm"] = torch.stack(
                [each.repeat_interleave(heads // len(each), 0) for each in norms]
            )
        n_layers = len(pattern)
        layers = list(range(n_layers))
        if len(values) == n_layers:
            layers, n_layers = sorted(values), network.config.get_text_config().num_hidden_layers
        for name, array in found.items():
            padded = np.full((n_layers, *array.shape[1:-1], max(map(len, passages))), np.nan)
            padded[layers, ..., :size] = array.numpy()
            rows.setdefault(name, []).append(padded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing
        means = {name: np.nanmean(arrays, axis=0) for name, arrays in rows.items()}
    means["sink_rate"][means.pop("is_near") > 0] = np.nan
    return means


class NotBuiltError(Exception):
    """An architecture that needs more than sizes."""


def passages() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [[3, *torch.randint(5, 390, (n - 1,), generator=generator).tolist()] for n in (40, 23, 31, 17)]


def build(name: str) -> PreTrainedModel:
    """A network that attends differently from position to position."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            network = make_network(name)
            network(torch.tensor([passages()[0]]))
    except Exception as error:  # of any type
        raise NotBuiltError(f"cannot be built from sizes alone ({type(error).__name__})") from error
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


def examine(name: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """What each backend makes of an architecture, and `class`: EQUAL, RUNS, or the reason why it is refused.

    Raises:
        NotBuiltError: it needs more than sizes.
        AssertionError: a backend gives other numbers than eager attention.
    """
    network = build(name)
    try:
        oracle = {} if name in NO_PATTERN else expected(network, passages(), EPSILON)
    except Exception:  # attention that is not returned
        oracle = {}
    outcomes = {"class": type(network).__name__}
    for backend in ("tiled", "hooks"):
        model = Model(name, copy.deepcopy(network), tokenizer)
        config = CaptureConfig(EPSILON, backend=backend, batch_size=3)
        try:
            if reason := BACKENDS[backend].unsupported_reason(model, passages()[0]):
                raise ModelError(reason)
            sinks = locate(model, passages(), config).data
        except ModelError as error:
            outcomes[backend] = str(error)
            continue
        if oracle:
            measured = np.isfinite(sinks["alpha"][:, 0, 0])
            np.testing.assert_array_equal(
                measured, np.isfinite(oracle["alpha"][:, 0, 0]), "layers that attend"
            )
        for statistic, array in oracle.items():
            tolerance = TOLERANCE * max(1.0, np.nanmax(np.abs(array)))
            array = np.where(np.isnan(array), sinks[statistic], array)
            np.testing.assert_allclose(
                sinks[statistic], array, atol=tolerance, err_msg=f"{backend} {statistic}"
            )
        outcomes[backend] = EQUAL if oracle else RUNS
    return outcomes
