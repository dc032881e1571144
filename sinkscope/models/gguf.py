"""GGUF files, as llama.cpp writes them: configuration, tokenizer and quantized weights in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sinkscope.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUFFIX = ".gguf"
PART = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf")
"""The end of the name of a file of several."""


def find_gguf(name: str) -> Path | None:
    """The GGUF file that a name stands for: the file, or the only one in a directory without config.json.

    Raises:
        ModelError: the directory holds several, the file is a part of a model, or the package is missing.
    """
    path = Path(name)
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if len(files) > 1 and not PART.search(files[0].name):
            raise ModelError(f"directory {name} holds {len(files)} GGUF files; give one, as in {files[0]}")
        path = files[0] if files else path
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return None
    if PART.search(path.name):
        raise ModelError(
            f"model {name!r}: {path.name} is a part of a model, and transformers reads only whole ones; "
            "merge the parts with `llama-gguf-split --merge`"
        )
    if find_spec("gguf") is None:
        raise ModelError(f"model {name!r} is a GGUF file; install the package that reads it, sinkscope[gguf]")
    return path


def read_shapes(name: str, path: Path) -> list[list[int]]:
    """The shapes of all weights.

    Raises:
        ModelError: the file cannot be read, is damaged or ends too early.
    """
    from gguf import GGUFReader

    try:
        return [[int(size) for size in tensor.shape] for tensor in GGUFReader(path).tensors]
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error.strerror}; check its permissions") from error
    except Exception as error:  # of many types, from unchecked indices
        reason = first_line(error)[:120]
        raise ModelError(
            f"model {name!r}: {path.name} is not a complete GGUF file ({reason}); copy it again"
        ) from error


@contextmanager
def without_bar() -> Iterator[None]:
    """Within the context the progress bar of transformers for GGUF files, which nothing switches off, is not
    printed, nor is anything else on standard error."""
    with redirect_stderr(StringIO()):
        yield


@contextmanager
def alone(path: Path) -> Iterator[str]:
    """A directory with nothing but the file: transformers reads other files beside it too."""
    with TemporaryDirectory() as directory:
        Path(directory, path.name).symlink_to(path.resolve())
        yield directory


def dequantizing_options(path: Path) -> dict[str, Any]:
    """Options of `from_pretrained` that make ordinary weights of a GGUF file."""
    try:
        from transformers import GgufConfig
    except ImportError:  # older versions always do
        return {"gguf_file": path.name}
    return {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True)}


def forget_quantization(network: PreTrainedModel) -> None:
    """Remove what says that a network is quantized, with which transformers would not save it."""
    for owner, name in (
        (network, "hf_quantizer"),
        (network, "quantization_method"),
        (network.config, "quantization_config"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    if "is_quantized" in vars(network):
        network.is_quantized = False
