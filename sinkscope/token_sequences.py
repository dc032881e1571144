"""Passages in little memory: four bytes a token, where a list of lists of ints takes forty."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


class TokenSequences(Sequence[list[int]]):
    """Token ids of many passages in one array; reads like a list of lists that grows by `append`."""

    def __init__(self, passages: Iterable[Sequence[int]] = ()) -> None:
        self._tokens, self._ends = array("i"), array("q", [0])
        for passage in passages:
            self.append(passage)

    def append(self, passage: Sequence[int]) -> None:
        self._tokens.extend(passage)
        self._ends.append(len(self._tokens))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._tokens[self._ends[number] : self._ends[number + 1]].tolist()
