"""Load and save causal language models with tokenizer and TransformerLens bridge, and pad their input."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sinkscope.errors import ModelError, first_line
from sinkscope.io.progress import quiet_transformers
from sinkscope.models import quantized
from sinkscope.models.adapters import Adapter, apply_adapter, find_adapter, is_adapter, wrong_base
from sinkscope.models.bos import Bos, bos_id, describe_bos, leading_ids, set_bos
from sinkscope.models.bridge import BootedBridge
from sinkscope.models.chat import Body, Chat, Message, render_chat
from sinkscope.models.device_map import (
    ON_DEVICES,
    DeviceMap,
    execution_device,
    is_dispatched,
    iterate_weights,
)
from sinkscope.models.gguf import dequantizing_options, find_gguf, forget_quantization, without_bar
from sinkscope.models.layers import count_layers, find_attention_layers
from sinkscope.models.loading import (
    NON_WEIGHT_FILES,
    ModelFiles,
    hash_of_files,
    is_built_in_or_run,
    load_errors,
    resolve_model,
)
from sinkscope.models.padding import PaddedBatch, Side
from sinkscope.models.smollm2 import NAME as SMOLLM2
from sinkscope.models.smollm2 import label_smollm2

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Model:
    """A causal language model with its tokenizer and, on demand, its TransformerLens bridge.

    `hf` stays an ordinary transformers model that can be trained and saved. `config_hash` covers
    configuration and tokenizer as they were loaded; it is empty for a built-in model. `chat` is how texts
    become chats, if they do. `label` is its name in results and pictures, by default the last part of a path.
    """

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config_hash: str = ""
    chat: Chat | None = None
    label: str = ""
    _bridge: BootedBridge | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        path = Path(self.name)
        self.label = self.label or (path.resolve().name if path.exists() else self.name)

    @property
    def device(self) -> torch.device:
        """The device of inputs."""
        return execution_device(self.hf)

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration of the decoder."""
        return self.hf.config.get_text_config()

    @property
    def n_layers(self) -> int:
        return count_layers(self.config)

    @property
    def attention_layers(self) -> list[int]:
        """The layers that attend, ascending; in hybrids others are recurrent or convolutions.

        Raises:
            ModelError: there is none.
        """
        layers = find_attention_layers(self.config)
        if not layers:
            raise ModelError(
                f"model {self.name!r} has no attention layers ({type(self.hf).__name__}); give another"
            )
        return layers

    def check_layer(self, layer: int, argument: str) -> None:
        """Raise ModelError, which names the argument, if there is no such layer or it does not attend."""
        if not 0 <= layer < self.n_layers:
            raise ModelError(
                f"`{argument}` {layer} does not exist in model {self.name!r}; use 0 to {self.n_layers - 1}"
            )
        if layer not in self.attention_layers:
            attending = ", ".join(map(str, self.attention_layers))
            raise ModelError(
                f"`{argument}`: layer {layer} of model {self.name!r} does not attend; use one of {attending}"
            )

    @property
    def n_heads(self) -> int:
        """Raises ModelError if the model has no attention."""
        own = getattr(self.config, "decoder_attention_heads", None)  # of an encoder-decoder
        n_heads = own or getattr(self.config, "num_attention_heads", None)
        if not isinstance(n_heads, int):
            raise ModelError(
                f"model {self.name!r} has no attention heads ({type(self.hf).__name__}); give another"
            )
        return n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads; fewer than query heads where keys are grouped."""
        return getattr(self.config, "num_key_value_heads", None) or self.n_heads

    @property
    def max_positions(self) -> int | None:
        """The longest input in tokens; None where the configuration has no limit.

        Where rotary positions are scaled (as by YaRN), their factor times the length before it, if that is
        more than `max_position_embeddings`, which checkpoints may leave as it was.
        """
        limit = getattr(self.config, "max_position_embeddings", None)
        scaling = getattr(self.config, "rope_parameters", None) or {}
        original = scaling.get("original_max_position_embeddings")
        if limit is None or original is None:
            return limit
        return max(limit, int(original * (scaling.get("factor") or 1.0)))

    @cached_property
    def has_learned_sinks(self) -> bool:
        """Whether a parameter takes part in the softmax of attention, as in gpt-oss."""
        return any(name.endswith(".sinks") for name, _ in self.hf.named_parameters())

    @property
    def bridge(self) -> TransformerBridge:
        """The model with TransformerLens hooks: modules of its own on the same parameter tensors.

        Booting replaces modules and switches to eager attention, so it is done on a copy of the module tree.
        Families with fused projections (GPT-NeoX, Bloom) get separate copies of these, up to a quarter of the
        weights. A new bridge is booted after the weights were replaced, or changed where there are copies.

        Raises:
            ModelError: the model is on several devices or on disk.
        """
        if is_dispatched(self.hf):
            raise ModelError(f"model {self.name!r} is {ON_DEVICES}; load it without `device_map`")
        if self._bridge is None or not self._bridge.is_current(self.hf, self.fingerprint):
            self._bridge = None  # frees its copies first
            self._bridge = BootedBridge.boot(self.name, self.hf, self.tokenizer, self.fingerprint)
        return self._bridge.bridge

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Within the context dropout is off; on exit modules are in training mode as before."""
        training = [module for module in self.hf.modules() if module.training]
        self.hf.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, BOS first (no BOS if the tokenizer puts none before a text).

        Raises:
            ModelError: an id has no embedding.
        """
        ids = self.with_bos(self.tokenizer.encode(text, add_special_tokens=False))
        self.check_ids(ids)
        return ids

    def with_chat(self, system: str | None = None) -> Model:
        """The same model, which reads texts as the user's turn of a chat, after a system prompt if given.

        Raises:
            ModelError: it has no chat template, or one that refuses the system prompt or changes texts.
        """
        model = replace(self, chat=Chat(system))
        model.encode_chat([{"role": "user", "content": "text"}])
        return model

    def encode_chat(self, messages: Sequence[Message]) -> tuple[list[int], Body]:
        """Token ids of messages in the model's chat template, and where the user's last turn is in them.

        Raises:
            ModelError: as `with_chat`.
        """
        rendered = render_chat(self.name, self.tokenizer, messages, self.chat or Chat())
        ids, body = rendered.encode(self.tokenizer)
        self.check_ids(ids)
        return ids, body

    @property
    def begins_with(self) -> str:
        """What texts begin with, for results and below pictures: `BOS <s>`, `no BOS` or `chat template`."""
        return "chat template" if self.chat else describe_bos(self.tokenizer)

    @property
    def prompts_begin_with(self) -> str:
        """As `begins_with`, where running text, which is no chat, is scored beside prompts."""
        return describe_bos(self.tokenizer) + (", prompts in the chat template" if self.chat else "")

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ModelError for an id without an embedding, as from the tokenizer of another model."""
        n_embeddings = self.hf.get_input_embeddings().weight.shape[0]
        if max(ids, default=0) >= n_embeddings:
            raise ModelError(
                f"model {self.name!r}: its tokenizer gives the id {max(ids)}, but there are {n_embeddings} "
                "embeddings; save the tokenizer that it was trained with"
            )

    def with_bos(self, ids: list[int]) -> list[int]:
        """`ids` with BOS in front, once; unchanged if the tokenizer puts none before a text."""
        bos = leading_ids(self.tokenizer)
        return ids if ids[: len(bos)] == bos else [*bos, *ids]

    @property
    def bos_id(self) -> int | None:
        """The id of the token that the tokenizer puts before a text; None if it puts none."""
        return bos_id(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """The id that batches are padded with; any will do, as attention leaves it out."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None or pad >= self.hf.get_input_embeddings().weight.shape[0] else pad

    def batches(
        self, passages: Sequence[Sequence[int]], batch_size: int, side: Side = "right"
    ) -> Iterator[PaddedBatch]:
        """The passages (token ids) in order, in batches padded on `side`, on the model's device.

        A batch has at most `batch_size` passages. Padding on the left moves the positions of tokens, so where
        a model does not take positions, passages of a batch have one length.

        Raises:
            ModelError: an id has no embedding.
        """
        needs_one_length = side == "left" and not self.takes_positions
        batch: list[Sequence[int]] = []
        for passage in passages:
            self.check_ids(passage)
            if batch and (len(batch) == batch_size or (needs_one_length and len(passage) != len(batch[0]))):
                yield PaddedBatch.pad(batch, self.pad_id, side, self.device)
                batch = []
            batch.append(passage)
        if batch:
            yield PaddedBatch.pad(batch, self.pad_id, side, self.device)

    @cached_property
    def takes_positions(self) -> bool:
        """Whether positions counted from 0 can be handed to the model, and outputs stay the same.

        Decoders of BART have no such argument, and RoBERTa counts in another way.
        """
        if "position_ids" not in inspect.signature(self.hf.forward).parameters:
            return False
        ids = torch.arange(3, 7, device=self.device)[None]
        with torch.no_grad(), self.eval_mode():
            plain, given = (
                self.hf(input_ids=ids, use_cache=False, **options).logits
                for options in ({}, {"position_ids": torch.arange(4, device=self.device)[None]})
            )
        return torch.allclose(plain, given, rtol=1e-3, atol=1e-3)

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all weights, over configuration and tokenizer, and BOS."""
        digest = hashlib.sha256(self.config_hash.encode())
        if self.bos_id != self.tokenizer.bos_token_id:
            digest.update(f"BOS {self.bos_id}".encode())
        if self.chat:
            digest.update(f"{self.chat} {self.tokenizer.get_chat_template()}".encode())
        for name, tensor in iterate_weights(self.hf):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, directory: Path | str) -> None:
        """Write safetensors weights, configuration and tokenizer."""
        with quiet_transformers():
            self.hf.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)


@quiet_transformers()
def load(
    name: str | Path,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    *,
    base: str | None = None,
    bos: Bos = "auto",
    device_map: DeviceMap | None = None,
) -> Model:
    """Load a causal language model.

    Args:
        name: built in (`tiny`, `tiny-retrained`, `tiny-wmdp`), `smollm2` (see `find_smollm2`), a directory, a
            run directory, a GGUF file or a quantized checkpoint (whose weights are dequantized), a directory
            with a PEFT adapter (which is merged into its base model) or a hub id.
        device: as torch names it; by default the GPU if there is one.
        dtype: `float32`, `bfloat16` or `float16`; by default that of the checkpoint.
        trust_remote_code: run Python code that comes with the checkpoint; logged as a warning.
        base: the model that an adapter was trained on; by default the one that the adapter names.
        bos: whether texts begin with a BOS token: `always`, `never`, or `auto`, as the tokenizer does by
            itself (that of GPT-2 puts none, that of Llama does).
        device_map: for a model that is larger than one device, instead of `device`.

    Raises:
        ModelError: there is no such model, it is not a causal language model, its weights are pickled,
            incomplete, infinite or NaN, or a built-in file was changed.
        OutputError: a file of a run directory was changed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = str(name)
    if device_map is not None and (problem := _find_conflict(name, device, base)):
        raise ModelError(f"model {name!r}: {problem}; leave out `device_map`")
    if adapter := find_adapter(name, base):
        with _naming_adapter(adapter):
            of_base = load(adapter.base, device, dtype, trust_remote_code)
        return _load_adapted(name, adapter, of_base, bos)
    files = resolve_model(name, trust_remote_code)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)[:120]
        reason = "torch has no such device" if "Expected one of" in reason else reason
        raise ModelError(
            f"device {device!r} cannot be used ({reason}); use cpu, or cuda or mps for a GPU, or leave out "
            "`device`"
        ) from error
    if files.n_parameters is not None and not trust_remote_code:
        _build_meta_model(name, files)
    if device_map is not None:
        placed, temporary = device_map.loading_options()
    else:  # without a second copy in the memory of the CPU
        placed, temporary = {} if device == "cpu" or files.is_gguf else {"device_map": {"": device}}, None
    trust_remote_code = trust_remote_code and not files.is_gguf
    if device_map is not None and files.quantization:
        raise ModelError(
            f"model {name!r} is quantized, and dequantized on one device; leave out `device_map`"
        )
    with (
        load_errors(name, files.path),
        files.source() as (source, options),
        quantized.quiet(),
        without_bar() if files.is_gguf else nullcontext(),
    ):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
        network, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=DTYPES[dtype] if dtype else "auto",
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **(dequantizing_options(Path(files.path)) if files.is_gguf else {"use_safetensors": True}),
            **(quantized.dequantizing_options(files.quantization) if files.quantization else {}),
            **placed,
        )
        if files.quantization:
            network = quantized.dequantize(name, network, files.quantization)
        if files.quantization or files.is_gguf:
            forget_quantization(network)
        if files.is_gguf:
            network.config.name_or_path = tokenizer.name_or_path = Path(files.path).name
        if not placed:
            network.to(device)
        if device_map is not None and device_map.offload:
            with suppress(OSError):
                device_map.offload.rmdir()  # nothing of this checkpoint had to go there
        if temporary is not None:
            network._offload_directory = temporary  # which is removed with the network
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"model {name!r} lacks {len(missing)} of the weights that its config.json asks for, "
            f"first {missing[0]}; restore one or the other"
        )
    _check_is_fast(name, tokenizer)
    set_bos(name, tokenizer, bos)
    if not network.config.architectures:
        network.config.architectures = [type(network).__name__]
    _check_weights(name, network)
    network.eval()
    label = label_smollm2(files.path) if name == SMOLLM2 else ""
    return Model(name, network, tokenizer, files.config_hash, label=label)


def _load_adapted(name: str, adapter: Adapter, base: Model, bos: Bos) -> Model:
    network = apply_adapter(adapter, base.hf)
    _check_weights(name, network)
    tokenizer = _adapter_tokenizer(adapter, base.hf, base.tokenizer)
    set_bos(name, tokenizer, bos)
    hashes = base.config_hash + hash_of_files(adapter.directory, NON_WEIGHT_FILES)
    return Model(name, network.eval(), tokenizer, hashlib.sha256(hashes.encode()).hexdigest())


def _adapter_tokenizer(
    adapter: Adapter, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """That of the adapter if it has one, else the given one of its base model."""
    from transformers import AutoTokenizer

    if not (adapter.directory / "tokenizer_config.json").is_file():
        return tokenizer
    name = str(adapter.directory)
    with load_errors(name, name):
        tokenizer = AutoTokenizer.from_pretrained(name, config=network.config, trust_remote_code=False)
    _check_is_fast(name, tokenizer)
    return tokenizer


def _check_is_fast(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ModelError(
            f"model {name!r} has no fast tokenizer (tokenizer.json), which sinkscope needs; "
            "save one in its directory"
        )


@contextmanager
def _naming_adapter(adapter: Adapter) -> Iterator[None]:
    """Within the context an error of the base model names the adapter too."""
    try:
        yield
    except ModelError as error:
        raise wrong_base(adapter, f"cannot be loaded ({error})") from error


def _check_weights(name: str, network: PreTrainedModel) -> None:
    """Raise ModelError if a weight is infinite or NaN."""
    for weight, tensor in iterate_weights(network):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"model {name!r} has infinite or NaN weights, first in {weight}; give a checkpoint from "
                "before its training diverged"
            )


def _find_conflict(name: str, device: str | None, base: str | None) -> str | None:
    """Why a model cannot be put on several devices, if it cannot."""
    if device is not None:
        return f"`device` {device} is one device"
    if base is not None or is_adapter(name):
        return "an adapter is merged on one device"
    if not is_built_in_or_run(name) and find_gguf(name):
        return "a GGUF file is dequantized on one device"
    return None


def content_hash(name: str) -> str:
    """SHA-256 of a model's files, without loading it (on the hub: its current commit); raises as `load`."""
    if adapter := find_adapter(name):
        own = hash_of_files(adapter.directory, ("*.safetensors", *NON_WEIGHT_FILES))
        with _naming_adapter(adapter):
            return hashlib.sha256((own + content_hash(adapter.base)).encode()).hexdigest()
    files = resolve_model(name)
    path = Path(files.path)
    if files.is_gguf:
        return files.config_hash
    if path.is_dir():
        return hash_of_files(path, ("*.safetensors", *NON_WEIGHT_FILES))
    return f"{name}@{files.config_hash}"


@quiet_transformers()
def load_meta_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model's modules without weights (on torch's meta device), and its tokenizer; raises as `load`."""
    from transformers import AutoTokenizer

    if adapter := find_adapter(name):
        with _naming_adapter(adapter):
            network, tokenizer = load_meta_model(adapter.base)
        return network, _adapter_tokenizer(adapter, network, tokenizer)
    files = resolve_model(name)
    network = _build_meta_model(name, files)
    with load_errors(name, files.path), files.source() as (source, options):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    return network, tokenizer


def _build_meta_model(name: str, files: ModelFiles) -> PreTrainedModel:
    """A model without weights, after a check that it asks for no more of them than its files hold.

    transformers allocates missing weights before it reports them, so this comes before a real model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with load_errors(name, files.path), files.source() as (source, options), torch.device("meta"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if files.n_parameters is not None and network.num_parameters(only_trainable=True) > files.n_parameters:
        raise ModelError(
            f"model {name!r} has {files.n_parameters:,} weights, and its config.json asks for "
            f"{network.num_parameters():,}; restore one or the other"
        )
    return network
