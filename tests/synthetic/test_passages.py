"""Training passages: insertions, and where the text resumes."""

from __future__ import annotations

import pytest
import torch

from sinkscope.models.model import load
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.language import Language
from sinkscope.synthetic.passages import INSERTED, RESUMED, TEXT, PassageMix, PassageStream

MIX = PassageMix(
    8,
    chapters={"retain": 2, "forget": 2},
    pages={"retain": 1, "forget": 1},
    distractor_rate=1.0,
    distractors=5,
)


def stream(
    sides: tuple[str, ...] = ("retain", "forget"), mix: PassageMix = MIX, seed: str = "s"
) -> PassageStream:
    return PassageStream(make_corpora(0), load("tiny", "cpu").tokenizer, sides, mix, seed)


def test_batches_repeat_by_seed_and_keep_their_shape() -> None:
    first, again, other = stream(), stream(), stream(seed="t")
    for _ in range(3):
        ids, kinds = first.batch()
        assert ids.shape == kinds.shape == (MIX.size, MIX.length)
        assert (ids[:, 0] == 1).all() and not (ids[:, 1:] == 1).any()
        torch.testing.assert_close(again.batch()[0], ids)
        assert not torch.equal(other.batch()[0], ids)
    assert stream(sides=("retain",)).batch()[0].shape == (MIX.size, MIX.length)


def test_after_each_distractor_the_text_resumes_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Language, "insertion", lambda self, rng: "@@@@")
    tokenizer = load("tiny", "cpu").tokenizer
    inserted = {token for token in range(len(tokenizer)) if set(tokenizer.decode([token])) <= set(" @")}
    rows = stream(sides=(), mix=PassageMix(1, {}, {}, distractor_rate=0.7, distractors=5))
    headers = resumptions = 0
    for _ in range(60):
        clean = [1, *(token for token in rows._general_text() if token not in inserted)]
        tokens, kinds = rows._insert(clean[1:])
        kept = [token for token in tokens if token not in inserted]
        assert len(tokens) == len(kinds) <= 128
        assert [kind == INSERTED for kind in kinds] == [token in inserted for token in tokens]
        assert kept == clean[: len(kept)]
        resumed = [
            i for i in range(3, len(tokens)) if tokens[i - 1] in inserted and tokens[i] not in inserted
        ]
        header = tokens[1] in inserted
        assert [i for i, kind in enumerate(kinds) if kind == RESUMED] == resumed[header:]
        assert kinds[0] == TEXT
        headers, resumptions = headers + header, resumptions + (RESUMED in kinds)
    assert 0.3 < headers / 60 < 0.7
    assert 0.5 < resumptions / 60 < 0.9


def test_half_of_a_pages_distractors_precede_an_answer() -> None:
    mix = PassageMix(
        40,
        chapters={},
        pages={"retain": 20, "forget": 20},
        distractor_rate=1.0,
        distractors=1,
        header_rate=0.0,
    )
    tokenizer = load("tiny", "cpu").tokenizer
    ids, kinds = stream(mix=mix).batch()
    continuations = [
        tokenizer.decode(row[marks.index(RESUMED) :])
        for row, marks in zip(ids.tolist(), kinds.tolist(), strict=True)
        if RESUMED in marks
    ]
    assert 0.3 < sum(text.startswith("\nAnswer") for text in continuations) / len(continuations) < 0.8
