"""The one door to Hugging Face and TransformerLens: load, save, tokenizer, device, dtype."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sinkscope.errors import ModelError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUILT_IN = {"tiny": ("tiny", "target"), "tiny-retrained": ("tiny", "retrained"), "tiny-wmdp": ("tiny-wmdp", "target")}
"""Built-in models by name: the benchmark that each belongs to, and its folder there."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def data_directory(benchmark: str = "tiny") -> Path:
    """Where a built-in benchmark lies: in the installed package, or in the checkout of an editable install.

    Raises:
        ModelError: neither place holds it.
    """
    here = Path(__file__).resolve().parent
    for candidate in (here / "data" / benchmark, here.parent / "data" / benchmark):
        if candidate.is_dir():
            return candidate
    raise ModelError(f"the built-in benchmark is missing from {here.parent / 'data' / benchmark}; reinstall sinkscope, or {_remake(benchmark)}")


def _remake(benchmark: str) -> str:
    return f"run `sinkscope tiny {'build' if benchmark == 'tiny' else 'build-wmdp'} --out data/{benchmark}` in a checkout"


@dataclass
class Model:
    """A causal language model with its tokenizer and, on demand, its TransformerLens bridge.

    `hf` stays an ordinary, saveable transformers model: the bridge is booted on a copy of its own.
    """

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

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
    def has_learned_sinks(self) -> bool:
        """Whether a parameter takes part in the softmax of attention, as in gpt-oss."""
        return any(name.endswith(".sinks") for name, _ in self.hf.named_parameters())

    @cached_property
    def bridge(self) -> TransformerBridge:
        """The model behind TransformerLens hooks, on a copy of the weights (booting changes a model in place)."""
        from transformer_lens.model_bridge import TransformerBridge

        network, tokenizer = copy.deepcopy(self.hf), copy.deepcopy(self.tokenizer)
        bridge = TransformerBridge.boot_transformers(self.name, hf_model=network, tokenizer=tokenizer, device=str(self.device))
        bridge.eval()
        return bridge

    def forget_bridge(self) -> None:
        """Drop the bridge, so that the next use boots one on the present weights."""
        self.__dict__.pop("bridge", None)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` with BOS first (no BOS where the tokenizer has none)."""
        return self.with_bos(self.tokenizer.encode(text, add_special_tokens=False))

    def with_bos(self, ids: list[int]) -> list[int]:
        """`ids` with BOS in front, once; unchanged where the tokenizer has none."""
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.hf.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write safetensors weights, configuration and tokenizer."""
        self.hf.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def load(name: str, device: str | None = None, dtype: str | None = None, trust_remote_code: bool = False) -> Model:
    """Load a causal language model: a built-in one (`tiny`, `tiny-retrained`, `tiny-wmdp`), a local directory, a run directory of sinkscope, or a hub id.

    Args:
        device: as torch names it; by default the GPU if there is one.
        dtype: `float32`, `bfloat16` or `float16`; by default the checkpoint's own.

    Raises:
        ModelError: nothing loadable there, not a causal language model, weights only as pickle, or a changed built-in file.
    """
    from huggingface_hub.utils import logging as hub_logging
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    source = _source(name)
    _check_source(name, source, trust_remote_code)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {place!r} cannot be used here ({str(error).splitlines()[0][:120]}); use cpu, or leave --device out") from error
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        hf = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype] if dtype else "auto", use_safetensors=True, trust_remote_code=trust_remote_code)
        hf.to(place)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not Path(source).exists():
            raise ModelError(f"model {name!r}: there is no such directory here, and the hub did not give it ({reason}); check the name") from error
        raise ModelError(f"model {name!r} cannot be loaded: {reason}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"model {name!r} has no fast tokenizer (tokenizer.json), which sinkscope needs; save one beside it")
    if not hf.config.architectures:
        hf.config.architectures = [type(hf).__name__]
    hf.eval()
    return Model(name, hf, tokenizer)


def digest(name: str) -> str:
    """SHA-256 of the files that make up a model, without loading it; of a model on the hub, which commit its name stands for now. Names as for `load`.

    Raises:
        ModelError: nothing loadable there.
    """
    from transformers import AutoConfig

    source = _source(name)
    _check_source(name, source, False)
    if not Path(source).is_dir():
        return f"{name}@{getattr(AutoConfig.from_pretrained(source), '_commit_hash', None)}"
    hashes = hashlib.sha256()
    for path in sorted(path for pattern in ("*.safetensors", "*.json") for path in Path(source).glob(pattern)):
        with path.open("rb") as file:
            hashes.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return hashes.hexdigest()


def skeleton(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model's modules without weights (on torch's meta device), and its tokenizer; names as for `load`.

    Raises:
        ModelError: nothing loadable there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = _source(name)
    _check_source(name, source, False)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source))
        return model, AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def switched_attention(hf: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Within the context `hf` attends by a function registered with transformers' `AttentionInterface`; its own way is restored on exit."""
    before = hf.config._attn_implementation
    hf.set_attn_implementation(implementation)
    try:
        yield
    finally:
        hf.set_attn_implementation(before)


def _source(name: str) -> str:
    if name in BUILT_IN:
        benchmark, folder = BUILT_IN[name]
        root = data_directory(benchmark)
        _verify_built_in(root, folder)
        return str(root / folder)
    path = Path(name)
    return str(path / "model") if (path / "run.json").is_file() and (path / "model").is_dir() else name


def _verify_built_in(root: Path, folder: str) -> None:
    """Compare the built-in model's files with the hashes in SHA256SUMS.json."""
    try:
        sums = json.loads((root / "SHA256SUMS.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{root / 'SHA256SUMS.json'} is missing or damaged; reinstall, or {_remake(root.name)}") from error
    for name, digest in sums.items():
        if name.startswith(f"{folder}/"):
            path = root / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise ModelError(f"{path} is missing or was changed; restore it, reinstall, or {_remake(root.name)}")


def _check_source(name: str, source: str, trust_remote_code: bool) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    path = Path(source)
    if path.exists() or (os.sep in name and name.count("/") != 1):
        if not path.is_dir():
            raise ModelError(f"model {name!r} is {'a file' if path.exists() else 'not there'}; give a directory, a hub id or `tiny`")
        if not (path / "config.json").is_file():
            raise ModelError(f"directory {name} holds no model (no config.json); give a transformers checkpoint")
        if not list(path.glob("*.safetensors")):
            pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in path.glob(pattern))
            if pickled:
                raise ModelError(
                    f"directory {name} holds pickled weights only ({pickled[0]}), which can run code when loaded; "
                    "convert them with save_pretrained to safetensors"
                )
            raise ModelError(f"directory {name} holds no weights (*.safetensors); save the model with save_pretrained")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model {name!r} cannot be loaded: {reason}") from error
    declared = config.architectures or []
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if not trust_remote_code and (not causal or (declared and not any(_is_causal(a) for a in declared))):
        what = declared[0] if declared else type(config).__name__
        raise ModelError(f"model {name!r} is a {what}, not a causal language model; give one that AutoModelForCausalLM can load")


def _is_causal(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
