"""Which tokens are sinks, of what kind, with how small values; and massive activations."""

from __future__ import annotations

import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import pandas as pd
import torch

from sinkscope.models.characters import REPLACEMENT
from sinkscope.sinks.capture import AttentionBlock, Block, ResidualBlock
from sinkscope.sinks.statistics import Accumulator, AttentionReceived, PerPosition, n_comparable

KINDS = ("first", "newline", "punctuation", "number", "word start", "word part", "character part", "other")
MIN_MAGNITUDE = 100.0
TIMES_MEDIAN = 1000.0
"""A massive activation exceeds both: this magnitude, and this multiple of the median of its passage."""
MEDIAN_TOKENS = 128
"""Tokens that a passage's median is over: in longer passages every second one, or fewer."""


@dataclass(slots=True)
class _SinkToken:
    """A token at one position: the passages in which it was a sink, and sums over heads and passages."""

    passages: array[int] = field(default_factory=lambda: array("i"))
    layers: set[int] = field(default_factory=set)
    n_heads: int = 0
    alpha: float = 0.0
    drain: float = 0.0

    def add_passage(self, passage: int) -> None:
        index = bisect_left(self.passages, passage)
        if passage not in self.passages[index : index + 1]:
            self.passages.insert(index, passage)


class SinkTokens(AttentionReceived):
    """Positions with α > epsilon, and the strongest position of each head, by token and kind of token.

    Only the positions of a passage that are comparable count (see `n_comparable`).

    Args:
        passages: the token ids captured, in their order.
        kinds: for each token id that occurs, one of `KINDS` (see `token_kind`); position 0 is always `first`.
    """

    config = ("n_heads", "epsilon")
    sums = ("_n_strongest", "_n_tokens", "_n_heads_total")

    def __init__(
        self, passages: Sequence[Sequence[int]], kinds: dict[int, str], n_heads: int, epsilon: float
    ) -> None:
        super().__init__(n_heads)
        self.passages = passages
        self.token_kinds = kinds
        self.epsilon = epsilon
        self._sinks: dict[tuple[int, int], _SinkToken] = {}
        self._n_strongest = dict.fromkeys(KINDS, 0)
        self._n_tokens = dict.fromkeys(KINDS, 0)
        self._n_heads_total = 0
        self._n_counted = 0
        """Passages whose tokens were counted; they come in order, once for each layer."""

    def add(self, block: AttentionBlock, alpha: PerPosition, norms: PerPosition) -> None:
        tokens = self.passages[block.passage]
        n_compared = n_comparable(block.length)
        alpha = alpha[:, :n_compared].cpu()
        drain = (norms / norms.median(-1, keepdim=True).values)[:, :n_compared].cpu()
        self._n_heads_total += self.n_heads
        for position in alpha.argmax(-1).tolist():
            self._n_strongest[self._kind(tokens, position)] += 1
        if block.passage == self._n_counted:
            self._n_counted += 1
            for position in range(n_compared):
                self._n_tokens[self._kind(tokens, position)] += 1
        for head, position in (alpha > self.epsilon).nonzero().tolist():
            sink = self._sinks.setdefault((position, tokens[position]), _SinkToken())
            sink.add_passage(block.passage)
            sink.layers.add(block.layer)
            sink.n_heads += 1
            sink.alpha += float(alpha[head, position])
            sink.drain += float(drain[head, position])

    def _kind(self, tokens: Sequence[int], position: int) -> str:
        return "first" if position == 0 else self.token_kinds[tokens[position]]

    def __add__(self, other: Self) -> Self:
        merged = super().__add__(other)
        merged.passages = [*self.passages, *other.passages]
        merged.token_kinds = self.token_kinds | other.token_kinds
        merged._n_counted = self._n_counted + other._n_counted
        merged._sinks = {}
        for shard, shift in ((self, 0), (other, len(self.passages))):
            for key, sink in shard._sinks.items():
                total = merged._sinks.setdefault(key, _SinkToken())
                total.passages.extend(passage + shift for passage in sink.passages)
                total.layers |= sink.layers
                total.n_heads += sink.n_heads
                total.alpha += sink.alpha
                total.drain += sink.drain
        return merged

    def sinks(self) -> pd.DataFrame:
        """One row per position and token that was a sink (α > epsilon) in some head, most heads first.

        Columns: position, token (id), kind, passages (in how many), heads (head × passage pairs), layers (as
        text), alpha and value_drain (‖v‖ over the passage's median ‖v‖ in that head; below 1 means drained),
        both mean over those pairs.
        """
        columns = ["position", "token", "kind", "passages", "heads", "layers", "alpha", "value_drain"]
        rows = []
        for (position, token), sink in self._sinks.items():
            kind = "first" if position == 0 else self.token_kinds[token]
            layers = ",".join(map(str, sorted(sink.layers)))
            means = sink.alpha / sink.n_heads, sink.drain / sink.n_heads
            rows.append((position, token, kind, len(sink.passages), sink.n_heads, layers, *means))
        return pd.DataFrame(rows, columns=columns).sort_values(
            ["heads", "position", "token"], ascending=[False, True, True], ignore_index=True
        )

    def kinds(self) -> pd.DataFrame:
        """How often each kind of token occurs, and how often it is the strongest position of a head.

        Columns: kind, tokens, share_of_tokens, probability (that a head's strongest position is of it).
        """
        total = max(1, sum(self._n_tokens.values()))
        rows = [
            (kind, n, n / total, self._n_strongest[kind] / max(1, self._n_heads_total))
            for kind, n in self._n_tokens.items()
        ]
        return pd.DataFrame(rows, columns=["kind", "tokens", "share_of_tokens", "probability"])


def token_kind(token: str, text: str) -> str:
    """The kind of a token by its form in the vocabulary (`Ġriver`, `▁river`) and its text.

    A token of some of the bytes of a character is a `character part`. Vowel signs and other marks that
    combine with letters are parts of words.
    """
    stripped = text.strip()
    if "\n" in text and not stripped:
        return "newline"
    if REPLACEMENT in text:
        return "character part"
    if stripped.isdigit():
        return "number"
    classes = {unicodedata.category(character)[0] for character in stripped}  # of Unicode: letter, mark, …
    if "L" in classes or classes == {"M"}:
        return "word start" if token[:1] in ("Ġ", "▁", " ") else "word part"
    if classes & {"P", "S"} and "N" not in classes:
        return "punctuation"
    return "other"


class MassiveActivations(Accumulator):
    """Per layer, the largest |x| of the residual stream, and in how many passages it is massive.

    Massive activations exceed 100 and a thousand times the passage's median |x| (Sun et al., arXiv
    2402.17762). The median is over at most `MEDIAN_TOKENS` evenly spaced tokens of the passage.
    """

    residual = True
    sums = ("_times_median", "_n_massive", "_n_passages")

    def __init__(self, n_layers: int) -> None:
        self._largest = [(0.0, (0, 0, 0))] * n_layers
        """The largest, and its passage, position and dimension."""
        self._times_median = torch.zeros(n_layers, dtype=torch.float64)
        self._n_massive = torch.zeros(n_layers, dtype=torch.float64)
        self._n_passages = torch.zeros(n_layers, dtype=torch.float64)

    def update(self, block: Block) -> None:
        if not isinstance(block, ResidualBlock):
            return
        layer = block.layer
        magnitude = block.residual.abs().float()
        by_position = magnitude.amax(-1)  # vectorized, which an argmax over all is not
        position = int(by_position.argmax())
        largest = float(by_position[position])
        median = float(magnitude[:: -(-len(magnitude) // MEDIAN_TOKENS)].median())
        self._n_passages[layer] += 1
        self._times_median[layer] += largest / median if median > 0 else float("inf")
        self._n_massive[layer] += largest > MIN_MAGNITUDE and largest >= TIMES_MEDIAN * median
        if largest > self._largest[layer][0]:
            self._largest[layer] = (largest, (block.passage, position, int(magnitude[position].argmax())))

    def __add__(self, other: Self) -> Self:
        merged = super().__add__(other)
        shift = int(self._n_passages[0])
        shifted = [(largest, (index[0] + shift, *index[1:])) for largest, index in other._largest]
        pairs = zip(self._largest, shifted, strict=True)
        merged._largest = [second if second[0] > first[0] else first for first, second in pairs]
        return merged

    def table(self) -> pd.DataFrame:
        """One row per layer.

        Columns: layer; largest, and its passage, position and dimension; times_median, the largest of a
        passage over its median, mean over passages; massive, the share of passages that have a massive
        activation in the layer.
        """
        rows = [(layer, largest, *index) for layer, (largest, index) in enumerate(self._largest)]
        table = pd.DataFrame(rows, columns=["layer", "largest", "passage", "position", "dimension"])
        n_passages = self._n_passages.clamp(min=1)
        means = {"times_median": self._times_median / n_passages, "massive": self._n_massive / n_passages}
        return table.assign(**{name: values.numpy() for name, values in means.items()})
