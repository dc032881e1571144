"""Where a model lies, and whether its files may be loaded: no pickle, no code, nothing that was changed, no sizes out of the air."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sinkscope.errors import ModelError, first_line
from sinkscope.io.run_directory import MANIFEST, read_manifest, sha256, verify

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LOGGER = logging.getLogger("sinkscope")
BUILT_IN = {
    "tiny": ("tiny", "target"),
    "tiny-retrained": ("tiny", "retrained"),
    "tiny-wmdp": ("tiny-wmdp", "target"),
}
"""Built-in models by name: the benchmark that each belongs to, and its folder there."""
NON_WEIGHT_FILES = ("*.json", "*.txt", "*.model", "*.py")
"""What decides how weights are read: configuration, tokenizer, code."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"
MAX_NON_WEIGHT_BYTES = 128 * 2**20
"""Bytes of the largest file beside the weights; a tokenizer's JSON has up to 40 MB."""
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim")
"""Sizes in a configuration that no model can have beyond the numbers in its weights."""
MAX_POSITIONS = 10**8


def data_directory(benchmark: str = "tiny") -> Path:
    """Where a built-in benchmark lies: in the installed package, or in the checkout of an editable install.

    Raises:
        ModelError: neither place holds it.
    """
    here = Path(__file__).resolve().parents[1]
    for candidate in (here / "data" / benchmark, here.parent / "data" / benchmark):
        if candidate.is_dir():
            return candidate
    raise ModelError(
        f"the built-in benchmark is missing from {here.parent / 'data' / benchmark}; reinstall sinkscope, or {_remake(benchmark)}"
    )


def _remake(benchmark: str) -> str:
    return f"run `sinkscope tiny {'build' if benchmark == 'tiny' else 'build-wmdp'} --out data/{benchmark}` in a checkout"


@dataclass(frozen=True)
class ModelFiles:
    """What transformers loads for a name: `place`, a directory or a hub id; `reading`, a hash of all beside the weights that decides how they are read (empty
    of a built-in model, of one on the hub the commit); `numbers`, how many the weights hold, None where that is not known."""

    place: str
    reading: str
    numbers: int | None


def resolve_model(name: str, trust_remote_code: bool = False) -> ModelFiles:
    """What stands for a model, once nothing speaks against loading it.

    Raises:
        ModelError: there is no model, or none that can be served.
        OutputError: a file of a run directory was changed.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers import AutoConfig
    from transformers.utils import logging

    hub_logging.set_verbosity_error()  # else it tells of every try
    logging.disable_progress_bar()
    source = _source(name)
    path = Path(source)
    if path.exists() or (os.sep in name and name.count("/") != 1):
        _check_files(name, path)
    if trust_remote_code:
        LOGGER.warning("model %s: Python code that comes with it may run now (--trust-remote-code)", name)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (
        Exception
    ) as error:  # files from anywhere, and libraries that say what is wrong with them in many types
        raise load_error(name, source, error) from error
    if not trust_remote_code:
        _check_causal(name, config)
    if not path.is_dir():
        return ModelFiles(source, str(getattr(config, "_commit_hash", None)), None)
    return ModelFiles(
        source,
        "" if name in BUILT_IN else hash_of_files(path, NON_WEIGHT_FILES),
        _checked_numbers(name, path, config),
    )


def load_error(name: str, place: str, error: Exception) -> ModelError:
    """What a library said of a model, as one line."""
    reason = first_line(error)
    if "tokenizer" in reason and Path(place).is_dir() and not (Path(place) / "tokenizer.json").exists():
        reason = "it holds no tokenizer that can be read; save one beside its weights (tokenizer.json, tokenizer_config.json)"
    if not Path(place).exists():
        reason = f"there is no such directory here, and the hub did not give it ({reason}); check the name"
    return ModelError(f"model {name!r} cannot be loaded: {reason}")


def is_incomplete_run(path: Path) -> bool:
    """Whether a run was begun there that is not done."""
    return not path.exists() and any(path.parent.glob(f".{glob.escape(path.name)}.*"))


def hash_of_files(directory: Path, patterns: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the files in a directory that match one of `patterns`."""
    hashes = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in directory.glob(pattern)):
        hashes.update(os.fsencode(path.name) + bytes.fromhex(sha256(path)))
    return hashes.hexdigest()


def verify_built_in(root: Path, folders: Iterable[str]) -> None:
    """Compare the files in some folders of a built-in benchmark with the hashes in SHA256SUMS.json.

    Raises:
        ModelError: one is missing or was changed.
    """
    try:
        sums = json.loads((root / "SHA256SUMS.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{root / 'SHA256SUMS.json'} is missing or damaged; reinstall, or {_remake(root.name)}"
        ) from error
    for name, digest in sums.items():
        if name.split("/")[0] in folders:
            path = root / name
            if not path.is_file() or sha256(path) != digest:
                raise ModelError(
                    f"{path} is missing or was changed; restore it, reinstall, or {_remake(root.name)}"
                )


def _source(name: str) -> str:
    if name in BUILT_IN:
        benchmark, folder = BUILT_IN[name]
        root = data_directory(benchmark)
        verify_built_in(root, [folder])
        return str(root / folder)
    path = Path(name)
    if (path / "config.json").exists():
        return name
    if (path / MANIFEST).is_file():
        return _source_in_run(path)
    if (path / "model").is_dir():
        raise ModelError(
            f"{path / MANIFEST} is missing, so {name} is no finished run; make it again, or give {path / 'model'} for the model as it is"
        )
    if is_incomplete_run(path):
        raise ModelError(f"run {name} is not finished; start it again, and it goes on where it was")
    return name


def _source_in_run(path: Path) -> str:
    """The model in a finished run directory, whose files are all as they were written."""
    manifest = read_manifest(path)
    assert manifest is not None
    verify(path, manifest)
    if not any(file.startswith("model/") for file in manifest["files"]):
        raise ModelError(
            f"{path} is a run of kind {manifest.get('kind')}, which holds no model; give the directory of an unlearning run or a checkpoint"
        )
    for file in sorted((path / "model").rglob("*")):
        if (
            file.is_file()
            and file.suffix != ".md"
            and file.relative_to(path).as_posix() not in manifest["files"]
        ):
            raise ModelError(f"{file} was not written by the run {path}; remove it")
    return str(path / "model")


def _check_files(name: str, path: Path) -> None:
    if not path.is_dir():
        raise ModelError(
            f"model {name!r} is {'a file' if path.exists() else 'not there'}; give a directory, a hub id or `tiny`"
        )
    for file in sorted(path.iterdir()):
        if not file.is_dir() and not file.is_file():
            raise ModelError(f"model {name!r}: {file.name} is no file that can be read to its end; remove it")
        if any(map(file.match, NON_WEIGHT_FILES)) and file.stat().st_size > MAX_NON_WEIGHT_BYTES:
            raise ModelError(
                f"model {name!r}: {file.name} has {file.stat().st_size:,} bytes, more than {MAX_NON_WEIGHT_BYTES:,}; remove it, or give another checkpoint"
            )
    if not (path / "config.json").is_file():
        raise ModelError(f"directory {name} holds no model (no config.json); give a transformers checkpoint")
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"directory {name} holds an adapter (adapter_config.json), which would bring another model with it; merge and save the two together"
        )
    weights = {file.name for file in path.glob("*.safetensors")}
    if not weights:
        pickled = sorted(file.name for pattern in PICKLED for file in path.glob(pattern))
        if pickled:
            raise ModelError(
                f"directory {name} holds pickled weights only ({pickled[0]}), which can run code when loaded; convert them with save_pretrained to safetensors"
            )
        raise ModelError(
            f"directory {name} holds no weights (*.safetensors); save the model with save_pretrained"
        )
    if (path / INDEX).is_file():
        try:
            named = set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"model {name!r}: {INDEX} is damaged; restore it") from error
        if absent := sorted(map(str, named - weights)):
            raise ModelError(
                f"model {name!r}: {INDEX} names the file {absent[0]}, which is not in {path}; restore it"
            )


def _check_causal(name: str, config: PreTrainedConfig) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    declared = config.architectures or []
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if not causal or (declared and not any(_is_causal(str(each)) for each in declared)):
        what = declared[0] if declared else type(config).__name__
        raise ModelError(
            f"model {name!r} is a {what}, not a causal language model; give one that AutoModelForCausalLM can load"
        )


def _is_causal(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def _checked_numbers(name: str, path: Path, config: PreTrainedConfig) -> int | None:
    """How many numbers the weights hold; None of quantised ones, which pack several in one.

    Modules are built from the configuration before a weight is looked at: sizes out of the air would take all memory and time.
    """
    from safetensors import SafetensorError, safe_open

    tensors = numbers = 0
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                shapes = [opened.get_slice(key).get_shape() for key in opened.keys()]  # noqa: SIM118  # it is no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"model {name!r} cannot be loaded: {file.name}: {first_line(error)}") from error
        tensors, numbers = tensors + len(shapes), numbers + sum(map(math.prod, shapes))
    described = config.get_text_config()
    limits = dict.fromkeys(SIZES, numbers) | {
        "num_hidden_layers": tensors,
        "max_position_embeddings": MAX_POSITIONS,
    }
    for key, limit in limits.items():
        value = getattr(described, key, None)
        if value is None or isinstance(value, (list, tuple)):  # a size for each layer
            continue
        if not isinstance(value, int) or not 0 < value <= limit:
            had = f"weights of {numbers:,} numbers in {tensors} tensors"
            raise ModelError(
                f"model {name!r}: config.json gives {key} as {str(value)[:40]}, which does not fit its {had}; restore it"
            )
    return None if getattr(config, "quantization_config", None) else numbers
