"""Sinks beyond the first token: which tokens hold them, of what kind they are, and how small their values are."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from sinkscope.sinks.blocks import AttentionBlock
from sinkscope.sinks.statistics import AttentionReceived

KINDS = ("first", "newline", "punctuation", "number", "word start", "word part", "other")
MIN_QUERIES = 8
"""The last positions of a passage hold no sinks: α there is a mean over fewer queries, mostly of a token's attention to itself."""


@dataclass(slots=True)
class _Seen:
    """What was seen of one token at one position: in which passages it was a sink (ascending, four bytes each), and in heads, summed over passages."""

    passages: array[int] = field(default_factory=lambda: array("i"))
    layers: set[int] = field(default_factory=set)
    heads: int = 0
    alpha: float = 0.0
    drain: float = 0.0


class SinkTokens(AttentionReceived):
    """Where a passage's heads have their sinks: positions with α > epsilon, and each head's strongest position.

    Args:
        passages: the token ids captured, in their order.
        kinds: for each token id that occurs, one of `KINDS` (see `token_kind`); position 0 is `first` whatever stands there.
    """

    def __init__(
        self, passages: Sequence[Sequence[int]], kinds: dict[int, str], n_heads: int, epsilon: float
    ) -> None:
        super().__init__(n_heads)
        self._arguments = (passages, kinds, n_heads, epsilon)
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._strongest = dict.fromkeys(KINDS, 0)
        self._tokens = dict.fromkeys(KINDS, 0)
        self._heads = 0

    def add(
        self,
        block: AttentionBlock,
        alpha: Float[Tensor, "head position"],
        norms: Float[Tensor, "head position"],
    ) -> None:
        passages, _, n_heads, epsilon = self._arguments
        tokens, last = passages[block.passage], max(1, block.length - MIN_QUERIES + 1)
        alpha, drain = alpha[:, :last].cpu(), (norms / norms.median(-1, keepdim=True).values)[:, :last].cpu()
        self._heads += n_heads
        for position in alpha.argmax(-1).tolist():
            self._strongest[self._kind(tokens, position)] += 1
        if block.layer == 0:
            for position in range(last):
                self._tokens[self._kind(tokens, position)] += 1
        for head, position in (alpha > epsilon).nonzero().tolist():
            seen = self._seen.setdefault((position, tokens[position]), _Seen())
            place = bisect_left(seen.passages, block.passage)
            if block.passage not in seen.passages[place : place + 1]:
                seen.passages.insert(place, block.passage)
            seen.layers.add(block.layer)
            seen.heads += 1
            seen.alpha += float(alpha[head, position])
            seen.drain += float(drain[head, position])

    def _kind(self, tokens: Sequence[int], position: int) -> str:
        return "first" if position == 0 else self._arguments[1][tokens[position]]

    def __add__(self, other: SinkTokens) -> SinkTokens:
        passages, kinds, n_heads, epsilon = self._arguments
        if (n_heads, epsilon) != other._arguments[2:]:
            raise ValueError(
                f"shards with (heads, threshold) {(n_heads, epsilon)} and {other._arguments[2:]} do not add up"
            )
        both = SinkTokens([*passages, *other._arguments[0]], kinds | other._arguments[1], n_heads, epsilon)
        both._heads = self._heads + other._heads
        for shard, shift in ((self, 0), (other, len(passages))):
            for kind in KINDS:
                both._strongest[kind] += shard._strongest[kind]
                both._tokens[kind] += shard._tokens[kind]
            for key, seen in shard._seen.items():
                mine = both._seen.setdefault(key, _Seen())
                mine.passages.extend(passage + shift for passage in seen.passages)
                mine.layers |= seen.layers
                mine.heads, mine.alpha, mine.drain = (
                    mine.heads + seen.heads,
                    mine.alpha + seen.alpha,
                    mine.drain + seen.drain,
                )
        return both

    def sinks(self) -> pd.DataFrame:
        """One row per position and token that was a sink (α > epsilon) in some head, most heads first.

        Columns: position, token (id), kind, passages (in how many), heads (head × passage pairs), layers (as text), alpha and
        value_drain (‖v‖ over the passage's median ‖v‖ in that head; below 1 means drained), both mean over those pairs.
        """
        rows = [
            {
                "position": position,
                "token": token,
                "kind": "first" if position == 0 else self._arguments[1][token],
                "passages": len(seen.passages),
                "heads": seen.heads,
                "layers": ",".join(map(str, sorted(seen.layers))),
                "alpha": seen.alpha / seen.heads,
                "value_drain": seen.drain / seen.heads,
            }
            for (position, token), seen in self._seen.items()
        ]
        columns = ["position", "token", "kind", "passages", "heads", "layers", "alpha", "value_drain"]
        return pd.DataFrame(rows, columns=columns).sort_values(
            ["heads", "position", "token"], ascending=[False, True, True], ignore_index=True
        )

    def kinds(self) -> pd.DataFrame:
        """Where the sink is: per kind of token, its share of all tokens and the probability that a head's strongest position is of it.

        Columns: kind, tokens, share_of_tokens, probability.
        """
        total = max(1, sum(self._tokens.values()))
        rows = [
            (kind, n, n / total, self._strongest[kind] / max(1, self._heads))
            for kind, n in self._tokens.items()
        ]
        return pd.DataFrame(rows, columns=["kind", "tokens", "share_of_tokens", "probability"])


def token_kind(token: str, text: str) -> str:
    """The kind of a token by its form in the vocabulary (`Ġriver`, `▁river`) and its text."""
    bare = text.strip()
    if "\n" in text and not bare:
        return "newline"
    if bare and all(not character.isalnum() for character in bare):
        return "punctuation"
    if bare.isdigit():
        return "number"
    if any(character.isalpha() for character in bare):
        return "word start" if token[:1] in ("Ġ", "▁", " ") else "word part"
    return "other"
