"""Checks of a checkpoint's files before anything is loaded from them.

Weights must be safetensors (a pickle can run code), and the sizes in config.json must fit them: transformers
allocates what a configuration asks for before it reads a weight.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sinkscope.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NON_WEIGHT_FILES = ("*.json", "*.txt", "*.model", "*.py")
"""Files that decide how weights are interpreted: configuration, tokenizer, code."""
MAX_NON_WEIGHT_BYTES = 128 * 2**20
"""Bytes of the largest such file; the JSON of a tokenizer has up to 40 MB."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim")
"""Sizes in a configuration, none of which can exceed the number of parameters."""
MAX_POSITIONS = 10**8
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of the names of architectures that predict the next token."""


def check_files(name: str, path: Path) -> None:
    """Raise ModelError for a directory without a model, or with files that cannot be read safely."""
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise ModelError(f"model {name!r} {problem}; give a directory, a hub id or `tiny`")
    for file in sorted(path.iterdir()):
        if not file.is_dir() and not file.is_file():
            raise ModelError(f"model {name!r}: {file.name} is not a regular file; remove it")
        if any(map(file.match, NON_WEIGHT_FILES)) and (size := file.stat().st_size) > MAX_NON_WEIGHT_BYTES:
            raise ModelError(
                f"model {name!r}: {file.name} has {size:,} bytes, more than {MAX_NON_WEIGHT_BYTES:,}; "
                "remove it, or give another checkpoint"
            )
    if not (path / "config.json").is_file():
        raise ModelError(f"directory {name} holds no model (no config.json); give a transformers checkpoint")
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"directory {name} holds an adapter (adapter_config.json), which would load another model; "
            "merge the two and save the result"
        )
    weights = {file.name for file in path.glob("*.safetensors")}
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if not weights and pickles:
        raise ModelError(
            f"directory {name} holds pickled weights only ({pickles[0]}), which can run code when loaded; "
            "convert them to safetensors with save_pretrained"
        )
    if not weights:
        raise ModelError(f"directory {name} holds no weights (*.safetensors); save them with save_pretrained")
    if (path / INDEX).is_file():
        _check_index(name, path, weights)


def _check_index(name: str, path: Path, weights: set[str]) -> None:
    """Raise ModelError if the index of sharded weights names files that are not in the directory."""
    try:
        indexed = set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"model {name!r}: {INDEX} is damaged; restore it") from error
    if missing := sorted(map(str, indexed - weights)):
        raise ModelError(f"model {name!r}: {INDEX} names {missing[0]}, which is not in {path}; restore it")


def check_is_causal(name: str, config: PreTrainedConfig) -> None:
    """Raise ModelError unless the configuration is that of a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    architectures = [str(each) for each in config.architectures or []]
    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if not is_causal or (architectures and not any(each.endswith(CAUSAL_SUFFIXES) for each in architectures)):
        kind = architectures[0] if architectures else type(config).__name__
        raise ModelError(
            f"model {name!r} is a {kind}, not a causal language model; "
            "give one that AutoModelForCausalLM can load"
        )


def check_sizes(name: str, path: Path, config: PreTrainedConfig) -> int | None:
    """The number of parameters in the weights, after a check that config.json asks for no larger sizes.

    None for quantized weights, which pack several parameters into one number.
    """
    from safetensors import SafetensorError, safe_open

    shapes: list[list[int]] = []
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as weights:
                shapes += [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"model {name!r} cannot be loaded: {file.name}: {first_line(error)}") from error
    n_parameters = sum(map(math.prod, shapes))
    limits = dict.fromkeys(SIZES, n_parameters)
    limits |= {"num_hidden_layers": len(shapes), "max_position_embeddings": MAX_POSITIONS}
    for key, limit in limits.items():
        size = getattr(config.get_text_config(), key, None)
        if size is None or isinstance(size, (list, tuple)):  # a size for each layer
            continue
        if not isinstance(size, int) or not 0 < size <= limit:
            raise ModelError(
                f"model {name!r}: config.json gives {key} as {str(size)[:40]}, which does not fit its "
                f"weights of {n_parameters:,} numbers in {len(shapes)} tensors; restore it"
            )
    return None if getattr(config, "quantization_config", None) else n_parameters
