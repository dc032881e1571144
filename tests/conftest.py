"""Small random checkpoints of several families, each with a tokenizer of its own, made once a session."""

from __future__ import annotations

import os
import string

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sinkscope.models import Model, load

torch.set_num_threads(2)

TEXT = (
    "The harbour was quiet, and the old captain walked along the wall with a lamp. In the year 1987 a letter came from the north; "
    "nobody read it. Question: who owns the brass lantern?\nAnswer: Mira Holt\n\nThe door of the mill stayed open all night, "
    "while rain fell on the garden and the road beyond the bridge. Let us think it through step by step, said the doctor. "
) * 6
FAMILIES = ("llama", "gpt2", "neox", "qwen2")
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 400, "max_position_embeddings": 128}


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """llama: SentencePiece-like with a BOS of its own; gpt2, neox: byte-level, BOS = EOS; qwen2: byte-level, no BOS."""
    specials = {"llama": ["<unk>", "<s>", "</s>"], "gpt2": ["<|endoftext|>"], "neox": ["<|endoftext|>", "<|padding|>"], "qwen2": ["<|endoftext|>"]}[kind]
    if kind == "llama":
        raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        raw.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=list(string.printable[:95]), show_progress=False)
        raw.train_from_iterator([TEXT], trainer)
        return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    raw.train_from_iterator([TEXT], trainer)
    if kind == "qwen2":
        return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    pad = {"pad_token": "<|padding|>"} if kind == "neox" else {}
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|endoftext|>", **pad)


def _network(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, initializer_range=0.2, bos_token_id=1, eos_token_id=2))
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=400, n_positions=128, initializer_range=0.2, bos_token_id=0, eos_token_id=0)
        )
    if kind == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, intermediate_size=48, initializer_range=0.2, bos_token_id=0, eos_token_id=0))
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, intermediate_size=48, num_key_value_heads=2, initializer_range=0.2, eos_token_id=0, bos_token_id=0))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """family -> directory with safetensors weights, configuration and tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    for kind in FAMILIES:
        _network(kind).save_pretrained(root / kind)
        _tokenizer(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in FAMILIES}


@pytest.fixture(scope="session")
def small_models(checkpoints: dict[str, Path]) -> dict[str, Model]:
    return {kind: load(str(path), device="cpu") for kind, path in checkpoints.items()}


@pytest.fixture(scope="session")
def small_llama(small_models: dict[str, Model]) -> Model:
    return small_models["llama"]
