"""Passages as `locate` is given them: checked, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sinkscope.errors import PlacementError, TextError
from sinkscope.models.model import Model
from sinkscope.text import TokenSequences
from sinkscope.triggers import token_ids


def check_passages(model: Model, passages: Sequence[Sequence[int]]) -> Sequence[list[int]]:
    """The passages, as lists of token ids.

    Raises:
        TextError: no passage, one with fewer than two tokens or with padding, or other values.
    """
    if len(passages) and isinstance(passages[0], str):
        raise TextError(
            "`passages` must be lists of token ids, not text; tokenize first, "
            "as in locate(model, tokenize_passages(texts, model, 64))"
        )
    if not isinstance(passages, TokenSequences):
        passages = _as_lists(model, passages)
    if not passages:
        raise TextError("no passages to locate sinks in; give at least one")
    if min(map(len, passages)) < 2:
        raise TextError("a passage has fewer than two tokens; give passages of at least two")
    return passages


def _as_lists(model: Model, passages: Sequence[Sequence[int]]) -> list[list[int]]:
    """The passages as lists; TextError if one of them is not a sequence of token ids, or is padded."""
    try:
        lists = [token_ids(passage) for passage in passages]
    except PlacementError as error:
        raise TextError(f"`passages` must be a list of passages, even of one: {error}") from error
    tokenizer = model.tokenizer
    has_meaning = tokenizer.pad_token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    padding = [tokenizer.pad_token_id] * (2 if has_meaning else 1)  # one can be BOS or the end of text
    for number, tokens in enumerate(lists):
        for side, outer in (("begins", tokens[: len(padding)]), ("ends", tokens[-len(padding) :])):
            if outer == padding:
                raise TextError(
                    f"passage {number} {side} with padding, which would be measured as text; give each "
                    "passage without it (lengths may differ)"
                )
    return lists


def hash_passages(passages: Sequence[list[int]]) -> str:
    """SHA-256 of the passages as a JSON list, without holding the list in memory."""
    digest = hashlib.sha256()
    for index, passage in enumerate(passages):
        digest.update(f"{', ' if index else '['}{json.dumps(passage)}".encode())
    digest.update(b"]")
    return digest.hexdigest()
