"""Write a Llama with random weights in bf16: `python analyses/random_model.py 7b DIR`.

It has the shape of a large model, for measurements, and the tokenizer of the built-in benchmark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sinkscope.models.loading import data_directory

SHAPES = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
"""Of TinyLlama-1.1B and of Llama-2-7B."""
VOCABULARY, POSITIONS = 32_000, 32_768
BLOCK = 1 << 22
"""Random numbers that are repeated, since drawing all of them takes minutes."""


def write(shape: str, directory: Path) -> None:
    config = LlamaConfig(**SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=POSITIONS)
    with torch.device("meta"):
        network = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    network.to_empty(device="cpu")
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            flat = parameter.view(-1)
            for number, part in enumerate(flat.split(BLOCK)):
                part.copy_(block[: len(part)].roll(number) * config.initializer_range)
    network.model.rotary_emb = type(network.model.rotary_emb)(config)  # its buffer was empty too
    network.save_pretrained(directory, max_shard_size="2GB")
    PreTrainedTokenizerFast.from_pretrained(data_directory() / "target").save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    write(options.shape, options.directory)


if __name__ == "__main__":
    main()
