"""Resolve the name of a model (built in, a directory, a run directory, a hub id) to files safe to load."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sinkscope.errors import ModelError, first_line
from sinkscope.io.run_directory import MANIFEST, read_manifest, sha256, verify
from sinkscope.models.built_in import BUILT_IN, data_directory, verify_built_in
from sinkscope.models.file_checks import NON_WEIGHT_FILES, check_files, check_is_causal, check_sizes

LOGGER = logging.getLogger("sinkscope")


@dataclass(frozen=True)
class ModelFiles:
    """What transformers loads for a name.

    `path` is a directory or a hub id. `config_hash` covers all files but the weights; it is empty for a
    built-in model and the commit for a model on the hub. `n_parameters` is the size of the weights, None
    where it is not known.
    """

    path: str
    config_hash: str
    n_parameters: int | None


def resolve_model(name: str, trust_remote_code: bool = False) -> ModelFiles:
    """Find the files of a model and check that they are safe to load.

    Raises:
        ModelError: there is no such model, or it cannot be loaded safely.
        OutputError: a file of a run directory was changed.
    """
    from transformers import AutoConfig

    source = _find_source(name)
    path = Path(source)
    if path.exists() or (os.sep in name and name.count("/") != 1):
        check_files(name, path)
    if trust_remote_code:
        LOGGER.warning("model %s: Python code of the checkpoint may run now (trust_remote_code)", name)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:  # any file, and libraries that report what is wrong with it by many types
        raise load_error(name, source, error) from error
    if not trust_remote_code:
        check_is_causal(name, config)
    if not path.is_dir():
        return ModelFiles(source, str(getattr(config, "_commit_hash", None)), None)
    config_hash = "" if name in BUILT_IN else hash_of_files(path, NON_WEIGHT_FILES)
    return ModelFiles(source, config_hash, check_sizes(name, path, config))


def load_error(name: str, path: str, error: Exception) -> ModelError:
    """A library's error about a model as one line."""
    reason = first_line(error)
    if not Path(path).exists():
        reason = f"there is no such directory, and the hub did not provide it ({reason}); check the name"
    elif "tokenizer" in reason and Path(path).is_dir() and not (Path(path) / "tokenizer.json").exists():
        reason = "no tokenizer can be read; save one in its directory (tokenizer.json, tokenizer_config.json)"
    return ModelError(f"model {name!r} cannot be loaded: {reason}")


def is_incomplete_run(path: Path) -> bool:
    """Whether a run with this output directory was started and has not finished."""
    stem = f".{glob.escape(path.name)}.*"
    return not path.exists() and any(
        any(path.parent.glob(stem + suffix)) for suffix in (".partial", ".checkpoints")
    )


def hash_of_files(directory: Path, patterns: Iterable[str]) -> str:
    """SHA-256 over the names and contents of the files in a directory that match one of `patterns`."""
    hashes = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in directory.glob(pattern)):
        hashes.update(os.fsencode(path.name) + bytes.fromhex(sha256(path)))
    return hashes.hexdigest()


def _find_source(name: str) -> str:
    """The directory that a name stands for; a name that is no directory is left to the hub."""
    if name in BUILT_IN:
        benchmark, folder = BUILT_IN[name]
        root = data_directory(benchmark)
        verify_built_in(root, [folder])
        return str(root / folder)
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
    for file in sorted(
        each for each in (path / "model").rglob("*") if each.is_file() and each.suffix != ".md"
    ):
        if file.relative_to(path).as_posix() not in manifest["files"]:
            raise ModelError(f"{file} was not written by the run {path}; remove it")
    return str(path / "model")
