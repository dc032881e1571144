"""BOS: the token that a tokenizer puts before every text, or none.

Many tokenizers declare a BOS token and do not use it (GPT-2, Pythia, SmolLM2). So whether a text gets one is
read from what the tokenizer does, and changed there: a model that is saved keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sinkscope.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Bos = Literal["auto", "always", "never"]
PROBE = "a"


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the one token that the tokenizer puts before a text; None if it puts none."""
    text = tokenizer.encode(PROBE, add_special_tokens=False)
    ids = tokenizer.encode(PROBE)
    return ids[0] if len(ids) > len(text) and ids[1 : 1 + len(text)] == text else None


def leading_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What each text begins with: BOS, or nothing."""
    bos = bos_id(tokenizer)
    return [] if bos is None else [bos]


def set_bos(name: str, tokenizer: PreTrainedTokenizerBase, bos: Bos) -> None:
    """Make a tokenizer put BOS before every text (`always`), or nothing (`never`); `auto` changes nothing.

    Raises:
        ModelError: it declares no BOS token that could be put there, or cannot be changed.
    """
    if bos not in ("auto", "always", "never"):
        raise ModelError(f"`bos` {bos!r} is unknown; use auto, always or never")
    if bos == "auto" or (bos_id(tokenizer) is not None) == (bos == "always"):
        return
    if bos == "always" and tokenizer.bos_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no BOS token; leave out `bos`, or use never")
    tokenizer.add_bos_token = bos == "always"
    if (bos_id(tokenizer) is not None) != (bos == "always"):
        raise ModelError(f"model {name!r}: its tokenizer cannot be changed to `bos` {bos}; leave it out")


def describe_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """`BOS <s>` or `no BOS`, for results and below pictures."""
    bos = bos_id(tokenizer)
    return "no BOS" if bos is None else f"BOS {tokenizer.convert_ids_to_tokens(bos)}"
