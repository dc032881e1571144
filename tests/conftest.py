"""Small random checkpoints of several model families with tokenizers, created once per session."""

from __future__ import annotations

import os
import string
import tempfile

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# threads that spin at barriers are ten times slower if other processes use the same cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["SINKSCOPE_CACHE"] = tempfile.mkdtemp(prefix="sinkscope-tests-")

import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sinkscope.models.model import Model, load
from tests.sinks.families import network

torch.set_num_threads(2)

TEXT = (
    "The harbour was quiet, and the old captain walked along the wall with a lamp. In the year 1987 a letter "
    "came from the north; nobody read it. Question: who owns the brass lantern?\nAnswer: Mira Holt\n\n"
    "The door of the mill stayed open all night, while rain fell on the garden and the road beyond the "
    "bridge. Let us think it through step by step, said the doctor. "
) * 6
FAMILIES = ("llama", "gpt2", "neox", "qwen2")


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """llama: like SentencePiece, puts BOS before texts; gpt2, neox: byte-level, BOS = EOS, which is not put
    there; qwen2: no BOS."""
    specials = {
        "llama": ["<unk>", "<s>", "</s>"],
        "gpt2": ["<|endoftext|>"],
        "neox": ["<|endoftext|>", "<|padding|>"],
        "qwen2": ["<|endoftext|>"],
    }[kind]
    if kind == "llama":
        raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        raw.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            initial_alphabet=list(string.printable[:95]),
            show_progress=False,
        )
        raw.train_from_iterator([TEXT], trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
        )
        tokenizer.add_bos_token = True
        return tokenizer
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([TEXT], trainer)
    if kind == "qwen2":
        return PreTrainedTokenizerFast(
            tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )
    pad = {"pad_token": "<|padding|>"} if kind == "neox" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|endoftext|>", **pad
    )


def saved_tokenizer(kind: str, directory: Path) -> PreTrainedTokenizerFast:
    """A tokenizer that was saved and loaded: TransformerLens needs its path."""
    _tokenizer(kind).save_pretrained(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model family -> directory with safetensors weights, configuration and tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    for kind in FAMILIES:
        network(kind).save_pretrained(root / kind)
        saved_tokenizer(kind, root / kind)
    return {kind: root / kind for kind in FAMILIES}


@pytest.fixture(scope="session")
def small_models(checkpoints: dict[str, Path]) -> dict[str, Model]:
    return {kind: load(str(path), device="cpu") for kind, path in checkpoints.items()}


@pytest.fixture(scope="session")
def small_llama(small_models: dict[str, Model]) -> Model:
    return small_models["llama"]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def strict_plots() -> Iterator[None]:
    """Warnings during plotting are errors; all figures are closed after the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")
