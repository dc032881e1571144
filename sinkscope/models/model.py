"""The one door to Hugging Face and TransformerLens: load, save, tokenizer, device, dtype."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sinkscope.errors import ModelError, first_line
from sinkscope.models.batches import PaddedBatch, Side, padded_batches
from sinkscope.models.loading import (
    BUILT_IN,
    NON_WEIGHT_FILES,
    ModelFiles,
    data_directory,
    hash_of_files,
    load_error,
    resolve_model,
)

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BUILT_IN", "DTYPES", "Model", "content_hash", "data_directory", "load", "load_meta_model"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Model:
    """A causal language model with its tokenizer and, on demand, its TransformerLens bridge.

    `hf` stays an ordinary, saveable transformers model: the bridge is booted on a copy of its own.
    """

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    reading: str = ""
    """A hash of configuration and tokenizer as they were loaded; empty of a built-in model, whose files are those shipped."""

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def n_layers(self) -> int:
        return self.hf.config.get_text_config().num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.hf.config.get_text_config().num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads; fewer than query heads where keys are grouped."""
        return getattr(self.hf.config.get_text_config(), "num_key_value_heads", None) or self.n_heads

    @property
    def max_positions(self) -> int | None:
        """How many tokens it can read; None where its configuration does not say."""
        return getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)

    @property
    def windows(self) -> list[int | None]:
        """How many keys, its own among them, a query of each layer sees at most; None where it sees all before it."""
        config = self.hf.config.get_text_config()
        size, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        return (
            [size if kind == "sliding_attention" else None for kind in kinds]
            if kinds
            else [size] * self.n_layers
        )

    @property
    def has_learned_sinks(self) -> bool:
        """Whether a parameter takes part in the softmax of attention, as in gpt-oss."""
        return any(name.endswith(".sinks") for name, _ in self.hf.named_parameters())

    @cached_property
    def bridge(self) -> TransformerBridge:
        """The model behind TransformerLens hooks, on a copy of the weights (booting changes a model in place)."""
        from transformer_lens.model_bridge import TransformerBridge

        network, tokenizer = copy.deepcopy(self.hf), copy.deepcopy(self.tokenizer)
        bridge = TransformerBridge.boot_transformers(
            self.name, hf_model=network, tokenizer=tokenizer, device=str(self.device)
        )
        bridge.eval()
        return bridge

    def reset_bridge(self) -> None:
        """Drop the bridge, so that the next use boots one on the present weights."""
        self.__dict__.pop("bridge", None)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` with BOS first (no BOS where the tokenizer has none)."""
        return self.with_bos(self.tokenizer.encode(text, add_special_tokens=False))

    def with_bos(self, ids: list[int]) -> list[int]:
        """`ids` with BOS in front, once; unchanged where the tokenizer has none."""
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def batches(
        self, passages: Sequence[Sequence[int]], batch_size: int, side: Side = "right"
    ) -> Iterator[PaddedBatch]:
        """The passages (token ids) in order, `batch_size` at a time, padded on `side`, on the model's device."""
        return padded_batches(passages, batch_size, self.tokenizer.pad_token_id or 0, self.device, side)

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all weights, and what they are read by."""
        content_hash = hashlib.sha256(self.reading.encode())
        for name, tensor in sorted(self.hf.state_dict().items()):
            content_hash.update(name.encode())
            content_hash.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return content_hash.hexdigest()

    def save(self, directory: Path) -> None:
        """Write safetensors weights, configuration and tokenizer."""
        self.hf.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def load(
    name: str, device: str | None = None, dtype: str | None = None, trust_remote_code: bool = False
) -> Model:
    """Load a causal language model: a built-in one (`tiny`, `tiny-retrained`, `tiny-wmdp`), a local directory, a run directory of sinkscope, or a hub id.

    Args:
        device: as torch names it; by default the GPU if there is one.
        dtype: `float32`, `bfloat16` or `float16`; by default the checkpoint's own.
        trust_remote_code: run Python code that comes with the checkpoint, of which the log of `sinkscope` tells.

    Raises:
        ModelError: nothing loadable there, not a causal language model, weights only as pickle or not all of them, or a changed built-in file.
        OutputError: a file of a run directory was changed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = resolve_model(name, trust_remote_code)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {place!r} cannot be used here ({first_line(error)[:120]}); use cpu, or leave --device out"
        ) from error
    options = {"use_safetensors": True, "output_loading_info": True}
    if source.numbers is not None and not trust_remote_code:
        _modules(name, source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, trust_remote_code=trust_remote_code)
        hf, info = AutoModelForCausalLM.from_pretrained(
            source.place,
            dtype=DTYPES[dtype] if dtype else "auto",
            trust_remote_code=trust_remote_code,
            **options,
        )
        hf.to(place)
    except (
        Exception
    ) as error:  # files from anywhere, and libraries that say what is wrong with them in many types
        raise load_error(name, source.place, error) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"model {name!r} lacks {len(missing)} of the weights that its config.json asks for, first {missing[0]}; mend one or the other"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"model {name!r} has no fast tokenizer (tokenizer.json), which sinkscope needs; save one beside it"
        )
    if not hf.config.architectures:
        hf.config.architectures = [type(hf).__name__]
    hf.eval()
    return Model(name, hf, tokenizer, source.reading)


def content_hash(name: str) -> str:
    """SHA-256 of the files that make up a model, without loading it; of a model on the hub, which commit its name stands for now. Names as for `load`.

    Raises:
        ModelError: nothing loadable there.
    """
    source = resolve_model(name)
    place = Path(source.place)
    return (
        hash_of_files(place, ("*.safetensors", *NON_WEIGHT_FILES))
        if place.is_dir()
        else f"{name}@{source.reading}"
    )


def load_meta_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model's modules without weights (on torch's meta device), and its tokenizer; names as for `load`.

    Raises:
        ModelError: nothing loadable there.
    """
    from transformers import AutoTokenizer

    source = resolve_model(name)
    model = _modules(name, source)
    try:
        return model, AutoTokenizer.from_pretrained(source.place, trust_remote_code=False)
    except Exception as error:  # as in `load`
        raise load_error(name, source.place, error) from error


def _modules(name: str, source: ModelFiles) -> PreTrainedModel:
    """A model without weights, which asks for no more of them than there are: transformers makes room for all that are missing before it tells of them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(source.place, trust_remote_code=False), trust_remote_code=False
            )
    except Exception as error:  # as in `load`
        raise load_error(name, source.place, error) from error
    if source.numbers is not None and model.num_parameters(only_trainable=True) > source.numbers:
        raise ModelError(
            f"model {name!r} has {source.numbers:,} weights, and its config.json asks for {model.num_parameters():,}; mend one or the other"
        )
    return model
