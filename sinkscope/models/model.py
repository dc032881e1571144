"""Load and save causal language models with tokenizer and TransformerLens bridge, and pad their input."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sinkscope.errors import ModelError, first_line
from sinkscope.io.progress import quiet_transformers
from sinkscope.models.loading import NON_WEIGHT_FILES, ModelFiles, hash_of_files, load_errors, resolve_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LOGGER = logging.getLogger("sinkscope")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Side = Literal["left", "right"]


@dataclass(frozen=True)
class PaddedBatch:
    """Passages padded to the longest: which tokens are real, their positions, and the columns of each row."""

    ids: Int[Tensor, "batch position"]
    mask: Bool[Tensor, "batch position"]
    position_ids: Int[Tensor, "batch position"]
    spans: list[range]

    @classmethod
    def pad(
        cls,
        passages: Sequence[Sequence[int]],
        pad_id: int,
        side: Side = "right",
        device: torch.device | str = "cpu",
    ) -> PaddedBatch:
        """Pad passages (token ids) on `side`."""
        rows = [torch.tensor(tokens, dtype=torch.long) for tokens in passages]
        ids = pad_sequence(rows, True, pad_id, side)
        mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], True, False, side)
        position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        starts = [0 if side == "right" else ids.shape[1] - len(row) for row in rows]
        spans = [range(start, start + len(row)) for start, row in zip(starts, rows, strict=True)]
        return cls(ids.to(device), mask.to(device), position_ids.to(device), spans)


@dataclass
class Model:
    """A causal language model with its tokenizer and, on demand, its TransformerLens bridge.

    `hf` stays an ordinary transformers model that can be trained and saved. `config_hash` covers
    configuration and tokenizer as they were loaded; it is empty for a built-in model.
    """

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config_hash: str = ""

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration of the decoder."""
        return self.hf.config.get_text_config()

    @property
    def n_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        return self.config.num_attention_heads

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads; fewer than query heads where keys are grouped."""
        return getattr(self.config, "num_key_value_heads", None) or self.n_heads

    @property
    def max_positions(self) -> int | None:
        """The longest input in tokens; None where the configuration has no limit."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def windows(self) -> list[int | None]:
        """Per layer, the keys that a query attends to at most, itself included; None without a window."""
        size = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None) or ["sliding_attention"] * self.n_layers
        return [size if kind == "sliding_attention" else None for kind in kinds]

    @property
    def has_learned_sinks(self) -> bool:
        """Whether a parameter takes part in the softmax of attention, as in gpt-oss."""
        return any(name.endswith(".sinks") for name, _ in self.hf.named_parameters())

    @cached_property
    def bridge(self) -> TransformerBridge:
        """The model with TransformerLens hooks: modules of its own on the same parameter tensors.

        Booting replaces modules and switches to eager attention, so it is done on a copy of the module tree.
        Families with fused projections (GPT-NeoX, Bloom) get separate copies of these, up to a quarter of the
        weights; call `reset_bridge` after changing them.
        """
        from transformer_lens.model_bridge import TransformerBridge

        tensors = [*self.hf.parameters(), *self.hf.buffers()]
        bridge = TransformerBridge.boot_transformers(
            self.name,
            hf_model=copy.deepcopy(self.hf, memo={id(tensor): tensor for tensor in tensors}),
            tokenizer=copy.deepcopy(self.tokenizer),
            device=str(self.device),
        )
        bridge.eval()
        shared = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        storages = [tensor.untyped_storage() for tensor in bridge.parameters()]
        copies = {each.data_ptr(): each.nbytes() for each in storages if each.data_ptr() not in shared}
        if copies:
            n_bytes = sum(copies.values())
            LOGGER.info("model %s: its TransformerLens bridge takes %.0f MB", self.name, n_bytes / 1e6)
        return bridge

    def reset_bridge(self) -> None:
        """Drop the bridge, so that the next use boots one on the current weights."""
        self.__dict__.pop("bridge", None)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS first (no BOS if the tokenizer has none).

        Raises:
            ModelError: an id has no embedding.
        """
        ids = self.with_bos(self.tokenizer.encode(text, add_special_tokens=False))
        n_embeddings = self.hf.get_input_embeddings().weight.shape[0]
        if max(ids, default=0) >= n_embeddings:
            raise ModelError(
                f"model {self.name!r}: its tokenizer gives the id {max(ids)}, but there are {n_embeddings} "
                "embeddings; save the tokenizer that it was trained with"
            )
        return ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """`ids` with BOS in front, once; unchanged if the tokenizer has none."""
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def batches(
        self, passages: Sequence[Sequence[int]], batch_size: int, side: Side = "right"
    ) -> Iterator[PaddedBatch]:
        """The passages (token ids) in order, in batches padded on `side`, on the model's device."""
        for first in range(0, len(passages), batch_size):
            batch = passages[first : first + batch_size]
            yield PaddedBatch.pad(batch, self.tokenizer.pad_token_id or 0, side, self.device)

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all weights, and over configuration and tokenizer."""
        digest = hashlib.sha256(self.config_hash.encode())
        for name, tensor in sorted(self.hf.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write safetensors weights, configuration and tokenizer."""
        with quiet_transformers():
            self.hf.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)


@quiet_transformers()
def load(
    name: str, device: str | None = None, dtype: str | None = None, trust_remote_code: bool = False
) -> Model:
    """Load a causal language model.

    Args:
        name: built in (`tiny`, `tiny-retrained`, `tiny-wmdp`), a directory, a run directory or a hub id.
        device: as torch names it; by default the GPU if there is one.
        dtype: `float32`, `bfloat16` or `float16`; by default that of the checkpoint.
        trust_remote_code: run Python code that comes with the checkpoint; logged as a warning.

    Raises:
        ModelError: there is no such model, it is not a causal language model, its weights are pickled or
            incomplete, or a built-in file was changed.
        OutputError: a file of a run directory was changed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = resolve_model(name, trust_remote_code)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {device!r} cannot be used ({first_line(error)[:120]}); use cpu, or leave out `device`"
        ) from error
    if files.n_parameters is not None and not trust_remote_code:
        _build_meta_model(name, files)
    with load_errors(name, files.path):
        tokenizer = AutoTokenizer.from_pretrained(files.path, trust_remote_code=trust_remote_code)
        network, info = AutoModelForCausalLM.from_pretrained(
            files.path,
            dtype=DTYPES[dtype] if dtype else "auto",
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
        network.to(device)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"model {name!r} lacks {len(missing)} of the weights that its config.json asks for, "
            f"first {missing[0]}; restore one or the other"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"model {name!r} has no fast tokenizer (tokenizer.json), which sinkscope needs; "
            "save one in its directory"
        )
    if not network.config.architectures:
        network.config.architectures = [type(network).__name__]
    network.eval()
    return Model(name, network, tokenizer, files.config_hash)


def content_hash(name: str) -> str:
    """SHA-256 of a model's files, without loading it (on the hub: its current commit); raises as `load`."""
    files = resolve_model(name)
    path = Path(files.path)
    if path.is_dir():
        return hash_of_files(path, ("*.safetensors", *NON_WEIGHT_FILES))
    return f"{name}@{files.config_hash}"


@quiet_transformers()
def load_meta_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model's modules without weights (on torch's meta device), and its tokenizer; raises as `load`."""
    from transformers import AutoTokenizer

    files = resolve_model(name)
    network = _build_meta_model(name, files)
    with load_errors(name, files.path):
        return network, AutoTokenizer.from_pretrained(files.path, trust_remote_code=False)


def _build_meta_model(name: str, files: ModelFiles) -> PreTrainedModel:
    """A model without weights, after a check that it asks for no more of them than its files hold.

    transformers allocates missing weights before it reports them, so this comes before a real model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with load_errors(name, files.path), torch.device("meta"):
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=False)
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if files.n_parameters is not None and network.num_parameters(only_trainable=True) > files.n_parameters:
        raise ModelError(
            f"model {name!r} has {files.n_parameters:,} weights, and its config.json asks for "
            f"{network.num_parameters():,}; restore one or the other"
        )
    return network
