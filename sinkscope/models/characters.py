"""Characters that a tokenizer splits into several tokens, as byte-level BPE does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"
"""What tokenizers decode an incomplete character to."""
MAX_CHARACTER_TOKENS = 8
"""Tokens of one character, or of several characters that share tokens."""


def end_of_character(tokens: list[int], position: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """`position`, or the next one that is not between two tokens of one character."""

    def is_inside(border: int) -> bool:
        before = tokens[max(0, border - MAX_CHARACTER_TOKENS) : border]
        return tokenizer.decode(before, clean_up_tokenization_spaces=False).endswith(REPLACEMENT)

    for border in range(position, min(position + MAX_CHARACTER_TOKENS, len(tokens)) + 1):
        if border == len(tokens) or not is_inside(border):
            return border
    return position
