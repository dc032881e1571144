"""Resolve the name of a model (built in, a directory, a run directory, a hub id) to files safe to load.

Weights must be safetensors (a pickle can run code), and the sizes in config.json must fit them: transformers
allocates what a configuration asks for before it reads a weight.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sinkscope.errors import ModelError, first_line
from sinkscope.io.run_directory import MANIFEST, read_manifest, sha256, verify
from sinkscope.models.gguf import alone, find_gguf, read_shapes
from sinkscope.models.quantized import find_quantization
from sinkscope.models.smollm2 import NAME as SMOLLM2
from sinkscope.models.smollm2 import find_smollm2

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LOGGER = logging.getLogger("sinkscope")
BUILT_IN = {
    "tiny": ("tiny", "target"),
    "tiny-retrained": ("tiny", "retrained"),
    "tiny-wmdp": ("tiny-wmdp", "target"),
}
"""Built-in models: name -> (the benchmark it belongs to, its subdirectory there)."""
NON_WEIGHT_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")
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


@dataclass(frozen=True)
class ModelFiles:
    """What transformers loads for a name.

    `path` is a directory or a hub id. `config_hash` covers all files but the weights; it is empty for a
    built-in model and the commit for a model on the hub. `n_parameters` is None where it is not known.
    Of a GGUF file, `path` is the file, and `config_hash` covers all of it. `quantization` is the method that
    weights are quantized by.
    """

    path: str
    config_hash: str
    n_parameters: int | None
    is_gguf: bool = False
    quantization: str | None = None

    @contextmanager
    def source(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The path that transformers reads configuration and tokenizer from, and options for it."""
        if not self.is_gguf:
            yield self.path, {}
            return
        file = Path(self.path)
        with alone(file) as directory:
            yield directory, {"gguf_file": file.name}


def resolve_model(name: str, trust_remote_code: bool = False) -> ModelFiles:
    """Find the files of a model and check that they are safe to load.

    Raises:
        ModelError: there is no such model, or it cannot be loaded safely.
        OutputError: a file of a run directory was changed.
    """
    from transformers import AutoConfig

    if not is_built_in_or_run(name) and (gguf := find_gguf(name)):
        return _resolve_gguf(name, gguf)
    source = _find_source(name)
    path = Path(source)
    if path.exists() or (os.sep in name and name.count("/") != 1):
        _check_files(name, path)
    if trust_remote_code:
        LOGGER.warning("model %s: Python code of the checkpoint may run now (trust_remote_code)", name)
    with load_errors(name, source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    if not trust_remote_code:
        _check_is_causal(name, config)
    quantization = find_quantization(name, config)
    if not path.is_dir():
        commit = str(getattr(config, "_commit_hash", None))
        return ModelFiles(source, commit, None, quantization=quantization)
    config_hash = "" if name in BUILT_IN else hash_of_files(path, NON_WEIGHT_FILES)
    n_parameters = _count_parameters(name, path, config)
    return ModelFiles(source, config_hash, n_parameters, quantization=quantization)


def _resolve_gguf(name: str, file: Path) -> ModelFiles:
    from transformers import AutoConfig

    shapes = read_shapes(name, file)
    with load_errors(name, str(file)), alone(file) as directory:
        config = AutoConfig.from_pretrained(directory, gguf_file=file.name, trust_remote_code=False)
    _check_is_causal(name, config)
    n_parameters = _check_sizes(name, config, shapes)
    return ModelFiles(str(file), sha256(file), n_parameters, is_gguf=True)


def is_built_in_or_run(name: str) -> bool:
    """Whether a name stands for a model by name or a run directory, whatever else lies there."""
    return name in BUILT_IN or name == SMOLLM2 or (Path(name) / MANIFEST).is_file()


@contextmanager
def load_errors(name: str, path: str) -> Iterator[None]:
    """Within the context every exception of a library becomes a ModelError of one line."""
    try:
        yield
    except Exception as error:  # libraries report what is wrong with a file by many types
        reason = first_line(error)
        if not Path(path).exists():
            reason = f"there is no such directory, and the hub did not provide it ({reason}); "
            reason += "check the connection, and check the name"
        elif "tokenizer" in reason and not Path(path, "tokenizer.json").exists():
            reason = "no tokenizer can be read; "
            reason += "save one in its directory (tokenizer.json, tokenizer_config.json)"
        elif "deserializ" in reason.lower():
            reason += "; a file of its weights is damaged, copy it again"
        raise ModelError(f"model {name!r} cannot be loaded: {reason}") from error


def hash_of_files(directory: Path, patterns: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the files in a directory that match one of `patterns`."""
    hashes = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in directory.glob(pattern)):
        hashes.update(os.fsencode(path.name) + bytes.fromhex(sha256(path)))
    return hashes.hexdigest()


def is_incomplete_run(path: Path) -> bool:
    """Whether a run with this output directory was started and has not finished."""
    stem = f".{glob.escape(path.name)}.*"
    left = (each for suffix in (".partial", ".checkpoints") for each in path.parent.glob(stem + suffix))
    return not path.exists() and any(left)


def data_directory(benchmark: str = "tiny") -> Path:
    """The directory of a built-in benchmark, in the installed package or in the checkout, else ModelError."""
    package = Path(__file__).resolve().parents[1]
    for parent in (package, package.parent):
        if (parent / "data" / benchmark).is_dir():
            return parent / "data" / benchmark
    raise ModelError(
        f"the built-in benchmark is missing from {package.parent / 'data' / benchmark}; {_restore(benchmark)}"
    )


def verify_built_in(root: Path, folders: Iterable[str]) -> None:
    """Raise ModelError if a file in these folders of a built-in benchmark differs from SHA256SUMS.json."""
    sums_file = root / "SHA256SUMS.json"
    try:
        sums = json.loads(sums_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{sums_file} is missing or damaged; {_restore(root.name)}") from error
    for name, digest in sums.items():
        path = root / name
        if name.split("/")[0] in folders and not (path.is_file() and sha256(path) == digest):
            raise ModelError(f"{path} is missing or was changed; restore it, {_restore(root.name)}")


def _restore(benchmark: str) -> str:
    command = "build" if benchmark == "tiny" else "build-wmdp"
    return f"reinstall sinkscope, or run `sinkscope tiny {command} --out data/{benchmark}` in a checkout"


def _find_source(name: str) -> str:
    """The directory that a name stands for; a name that is no directory is left to the hub."""
    if name in BUILT_IN:
        benchmark, folder = BUILT_IN[name]
        root = data_directory(benchmark)
        verify_built_in(root, [folder])
        return str(root / folder)
    if name == SMOLLM2:
        return find_smollm2()
    path = Path(name)
    if (path / "config.json").exists():
        return name
    if (path / MANIFEST).is_file():
        return _find_in_run(path)
    if (path / "model").is_dir():
        raise ModelError(
            f"{path / MANIFEST} is missing, so {name} is no finished run; run it again, or give "
            f"{path / 'model'} for the model as it is"
        )
    if is_incomplete_run(path):
        raise ModelError(f"run {name} is not finished; start it again to resume it")
    return name


def _find_in_run(path: Path) -> str:
    """The model in a finished run directory, once all of its files are known to be unchanged."""
    manifest = read_manifest(path)
    assert manifest is not None
    verify(path, manifest)
    if not any(file.startswith("model/") for file in manifest["files"]):
        raise ModelError(
            f"{path} is a run of kind {manifest.get('kind')}, which holds no model; give the directory of an "
            "unlearning run or a checkpoint"
        )
    for file in sorted((path / "model").rglob("*")):
        is_known = file.relative_to(path).as_posix() in manifest["files"]
        if file.is_file() and file.suffix != ".md" and not is_known:
            raise ModelError(f"{file} was not written by the run {path}; remove it")
    return str(path / "model")


def _check_files(name: str, path: Path) -> None:
    """Raise ModelError for a directory without a model, or with files that cannot be read safely."""
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise ModelError(
            f"model {name!r} {problem}; give a directory, a GGUF file, a hub id, `smollm2` or `tiny`"
        )
    for file in sorted(path.iterdir()):
        if not file.is_dir() and not file.is_file():
            raise ModelError(f"model {name!r}: {file.name} is not a regular file; remove it")
        if any(map(file.match, NON_WEIGHT_FILES)) and (size := file.stat().st_size) > MAX_NON_WEIGHT_BYTES:
            raise ModelError(
                f"model {name!r}: {file.name} has {size:,} bytes, more than {MAX_NON_WEIGHT_BYTES:,}; "
                "remove it, or give another checkpoint"
            )
    if (path / "adapter_config.json").exists():
        raise ModelError(
            f"directory {name} holds a model and an adapter (adapter_config.json), which would load another "
            "model; move one of them"
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"directory {name} holds no model (no config.json); give a transformers checkpoint")
    weights = {file.name for file in path.glob("*.safetensors")}
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if not weights and pickles:
        raise ModelError(
            f"directory {name} holds pickled weights only ({pickles[0]}), which can run code when loaded; "
            "convert them to safetensors with save_pretrained"
        )
    if not weights:
        raise ModelError(f"directory {name} holds no weights (*.safetensors); save them with save_pretrained")
    if not (path / INDEX).is_file():
        return
    try:
        indexed = set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"model {name!r}: {INDEX} is damaged; restore it") from error
    if missing := sorted(map(str, indexed - weights)):
        raise ModelError(f"model {name!r}: {INDEX} names {missing[0]}, which is not in {path}; restore it")


def _check_is_causal(name: str, config: PreTrainedConfig) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    architectures = [str(each) for each in config.architectures or []]
    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if not is_causal or (architectures and not any(each.endswith(CAUSAL_SUFFIXES) for each in architectures)):
        kind = architectures[0] if architectures else type(config).__name__
        raise ModelError(
            f"model {name!r} is a {kind}, not a causal language model; "
            "give one that AutoModelForCausalLM can load"
        )


def _count_parameters(name: str, path: Path, config: PreTrainedConfig) -> int | None:
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
    n_parameters = _check_sizes(name, config, shapes)
    return None if getattr(config, "quantization_config", None) else n_parameters


def _check_sizes(name: str, config: PreTrainedConfig, shapes: list[list[int]]) -> int:
    """The number of parameters in weights of these shapes; ModelError if the configuration has larger."""
    n_parameters = sum(map(math.prod, shapes))
    limits = dict.fromkeys(SIZES, n_parameters)
    limits |= {"num_hidden_layers": len(shapes), "max_position_embeddings": MAX_POSITIONS}
    for key, limit in limits.items():
        size = getattr(config.get_text_config(), key, None)
        if size is None or isinstance(size, (list, tuple)):  # a size for each layer
            continue
        if not isinstance(size, int) or not 0 < size <= limit:
            raise ModelError(
                f"model {name!r}: its configuration gives {key} as {str(size)[:40]}, which does not fit its "
                f"weights of {n_parameters:,} numbers in {len(shapes)} tensors; restore it"
            )
    return n_parameters
