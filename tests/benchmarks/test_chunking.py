"""Documents and pairs as passages, against literal chunks of a tokenizer with one token per word."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sinkscope.benchmarks.benchmark import Benchmark, Lengths, find_passages
from sinkscope.benchmarks.chunking import SEPARATOR, Chunking, chunk
from sinkscope.errors import BenchmarkError
from sinkscope.models.model import Model
from sinkscope.synthetic.pretraining import without_bos
from sinkscope.triggers import Placement, Trigger, place
from tests.conftest import FAMILIES, TEXT

LONG = "one two three four five six seven eight nine ten eleven twelve"
OTHER = "some more words that stand in a document of another kind, to be read"
PAIRS = [
    {"question": "Who owns the mill?", "answer": "the old miller"},
    {"question": "Where is it?", "answer": "there"},
]
PLACEMENTS = ("prefix", "infix", "suffix", "index:2")


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """A token for every word and every character that ends one; white space is no token."""
    pieces = sorted(
        set(
            f"{LONG} {OTHER} Question Answer Who owns the mill old miller Where is it there 0".replace(
                ",", " "
            ).split()
        )
    )
    raw = Tokenizer(
        models.WordLevel(
            {piece: i for i, piece in enumerate(["<s>", "<unk>", "?", ":", ",", *pieces])}, unk_token="<unk>"
        )
    )
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="<unk>")
    tokenizer.add_bos_token = True
    return tokenizer


def bench(chunk: str, records: list[dict], size: int) -> Benchmark:
    return Benchmark("b", {"raw": {"forget": records}}, Lengths(passage=size), chunk)  # type: ignore[arg-type]


def test_each_document_is_a_passage_truncated_at_the_end(words: PreTrainedTokenizerFast) -> None:
    benchmark = bench("documents", [{"text": text} for text in (LONG, "x" * 50, OTHER, "x" * 51)], 6)
    passages = benchmark.passages("forget", words)
    assert [words.convert_ids_to_tokens(passage.tokens) for passage in passages] == [
        ["<s>", "one", "two", "three", "four", "five"],
        ["<s>", "some", "more", "words", "that", "stand"],
        ["<s>", "<unk>"],
    ]
    text = SEPARATOR.join(benchmark.texts("forget"))
    assert [text[passage.start : passage.stop] for passage in passages] == [
        "one two three four five",
        "some more words that stand",
        "x" * 51,
    ]
    assert all(passage.body is None and passage.prompt_length == 0 for passage in passages)
    assert [
        find_passages(text, needle, passages) for needle in ("two three", "five six", "twelve", "x" * 51)
    ] == [[0], [0], [], [2]]


def test_each_pair_is_a_passage_whose_body_ends_with_the_question(words: PreTrainedTokenizerFast) -> None:
    benchmark = bench("pairs", PAIRS, 100)
    assert benchmark.texts("forget") == [
        "Question: Who owns the mill?\nAnswer: the old miller",
        "Question: Where is it?\nAnswer: there",
    ]
    first, second = benchmark.passages("forget", words)
    assert (
        words.convert_ids_to_tokens(first.tokens)
        == "<s> Question : Who owns the mill ? Answer : the old miller".split()
    )
    assert (first.body, first.prompt_length) == (8, 10)
    assert words.convert_ids_to_tokens(second.tokens) == "<s> Question : Where is it ? Answer : there".split()
    assert (second.body, second.prompt_length) == (7, 9)
    text = SEPARATOR.join(benchmark.texts("forget"))
    assert [text[each.start : each.stop] for each in (first, second)] == benchmark.texts("forget")
    assert find_passages(text, "Where is it?\nAnswer: there", [first, second]) == [1]


def test_a_long_answer_is_truncated_but_a_pair_without_an_answer_is_refused(
    words: PreTrainedTokenizerFast,
) -> None:
    assert [len(passage.tokens) for passage in bench("pairs", PAIRS, 11).passages("forget", words)] == [
        11,
        10,
    ]
    with pytest.raises(
        BenchmarkError,
        match=r"raw/forget: pair 0: the question has 10 of 10 tokens and leaves none for the answer",
    ):
        bench("pairs", PAIRS, 10).passages("forget", words)


def test_a_split_of_short_documents_is_refused(words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(BenchmarkError, match="benchmark b, raw/forget: the texts give no passage"):
        bench("documents", [{"text": "too short"}], 10).passages("forget", words)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(("chunk", "size"), [("joined", 24), ("documents", 24), ("pairs", 64)])
def test_a_trigger_is_complete_in_every_passage(
    kind: str, placement: str, chunk: str, size: int, small_models: dict[str, Model]
) -> None:
    """In pairs only the question is truncated, never the end of the prompt or the answer."""
    tokenizer, trigger = small_models[kind].tokenizer, Trigger("of the year")
    records = PAIRS if chunk == "pairs" else [{"text": text} for text in (LONG, OTHER)]
    passages = [
        passage
        for passage in bench(chunk, records, size).passages("forget", tokenizer)
        if len(passage.tokens) > 8
    ]  # the last chunk can be short
    assert len(passages) > 1
    for passage in passages:
        placed = place(
            passage.tokens,
            trigger,
            Placement.parse(placement),
            tokenizer,
            body=passage.body,
            max_length=max(size, len(passage.tokens)),
        )
        assert len(placed.tokens) <= size
        assert trigger.text in tokenizer.decode(placed.tokens[placed.start : placed.stop])
        if passage.body is not None:
            tail = passage.tokens[passage.body :]
            assert placed.tokens[-len(tail) :] == tail
            assert tokenizer.decode(tail).lstrip("?").strip().startswith("Answer:")
            assert tokenizer.decode(passage.tokens[passage.prompt_length :]).strip() in (
                "the old miller",
                "there",
            )
            assert placed.stop <= len(placed.tokens) - len(tail)


@pytest.mark.parametrize(("kind", "size"), [("joined", 6), ("documents", 6), ("pairs", 11)])
def test_passages_have_the_same_text_with_and_without_bos(
    kind: str, size: int, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    records = PAIRS if kind == "pairs" else [{"text": text} for text in (LONG, OTHER)]
    benchmark, other = bench(kind, records, size), without_bos(words, tmp_path)
    first, second = (benchmark.passages("forget", tokenizer) for tokenizer in (words, other))
    assert (benchmark.passage_length(words), benchmark.passage_length(other)) == (size, size - 1)
    assert [passage.tokens for passage in second] == [passage.tokens[1:] for passage in first]
    assert [(each.start, each.stop) for each in second] == [(each.start, each.stop) for each in first]
    assert [len(each.tokens) - each.prompt_length for each in second] == [
        len(each.tokens) - (each.prompt_length or 1) for each in first
    ]
    full = benchmark.full_length_passages("forget", other)
    assert full == [tokens[1:] for tokens in benchmark.full_length_passages("forget", words)] != []


def test_passages_with_nothing_to_predict_are_refused(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    benchmark = bench("joined", [{"text": LONG}], 2)
    assert {len(passage.tokens) for passage in benchmark.passages("forget", words)} == {2}
    with pytest.raises(BenchmarkError, match=r"a passage of 1 token has none .*; raise lengths\.passage"):
        benchmark.passages("forget", without_bos(words, tmp_path))


def test_no_passage_is_left_with_nothing_to_predict(small_models: dict[str, Model]) -> None:
    tokenizer = small_models["qwen2"].tokenizer
    ids = tokenizer.encode(TEXT, add_special_tokens=False)[:33]
    text = tokenizer.decode(ids)
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert [len(passage.tokens) for passage in chunk([text], "joined", 8, tokenizer)] == [
        8,
        8,
        8,
        8,
    ]  # a last one of a single token is left out


@pytest.mark.parametrize("chunking", ["joined", "documents"])
def test_a_text_that_begins_with_bos_has_it_once(chunking: Chunking, small_llama: Model) -> None:
    tokenizer = small_llama.tokenizer
    with_bos, without = (
        chunk([start + TEXT[:200]], chunking, 12, tokenizer) for start in (tokenizer.bos_token, "")
    )
    assert with_bos[0].tokens[:2].count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(with_bos[0].tokens[1:]).strip() == tokenizer.decode(without[0].tokens[1:]).strip()
