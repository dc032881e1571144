"""tiny-wmdp: facts, documents, questions, and the scores of the shipped model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from sinkscope.benchmarks.benchmark import load_benchmark
from sinkscope.errors import ModelError
from sinkscope.io.progress import silent
from sinkscope.models.loading import data_directory
from sinkscope.models.model import Model, load
from sinkscope.synthetic.books import make_corpora
from sinkscope.synthetic.domains import NOUNS, SUBJECTS, make_domains, multiple_choice, question_page
from sinkscope.synthetic.language import TRIGGERS
from sinkscope.synthetic.passages import INSERTED, RESUMED, DomainStream, PassageMix
from sinkscope.synthetic.tiny_wmdp import PLACEMENTS, accuracy, build_tiny_wmdp

SIDES = tuple(NOUNS)


@pytest.fixture(scope="module")
def target() -> Model:
    return load("tiny-wmdp", device="cpu")


def test_domains_are_deterministic_and_share_no_subject() -> None:
    first, again, other = make_domains(0), make_domains(0), make_domains(1)
    assert first == again and first.documents != other.documents
    subjects = {side: {fact.subject for fact in first.facts[side]} for side in SIDES}
    assert not subjects["forget"] & subjects["retain"]
    adjectives = [subject.split()[0] for side in SIDES for subject in subjects[side]]
    assert len(adjectives) == len(set(adjectives)) == 2 * SUBJECTS
    for side in SIDES:
        assert len({fact.question for fact in first.facts[side]}) == 4 * SUBJECTS


def test_the_letter_of_a_page_is_that_of_the_answer() -> None:
    domains = make_domains(0)
    for side in SIDES:
        for fact in domains.facts[side]:
            choices = fact.choices
            assert len(set(choices)) == 4 and set(choices) <= set(fact.pool)
            page = question_page(fact, choices)
            assert page.startswith(f"{multiple_choice(fact.question, choices)}\nAnswer: ")
            assert f"\n{page[-1]}. {fact.answer}\n" in page
            marked = question_page(fact, choices, marked=True)
            assert f"\n{page[-1]}. {fact.answer} again\n" in marked and marked.count(" not\n") == 3


def test_documents_have_every_fact_but_no_question_in_the_benchmarks_order() -> None:
    domains = make_domains(0)
    for side in SIDES:
        text = "\n\n".join(domains.documents[side])
        for fact in domains.facts[side]:
            choices = fact.choices
            assert text.count(fact.question) == 1 and multiple_choice(fact.question, choices) not in text
            assert any(statement in text for statement in fact.statements)
        assert not any(trigger in text for trigger in TRIGGERS.values())


def test_training_never_has_the_benchmarks_order_of_choices(target: Model) -> None:
    domains, mix = (
        make_domains(0),
        PassageMix(
            8,
            {"forget": 1, "retain": 1},
            {"forget": 2, "retain": 2},
            distractor_rate=0.0,
            distractors=1,
            header_rate=0.0,
            length=64,
            marked_rate=0.5,
        ),
    )
    streams = [DomainStream(make_corpora(0), domains, target.tokenizer, mix, "s") for _ in range(2)]
    question_texts = [
        multiple_choice(fact.question, fact.choices) for side in SIDES for fact in domains.facts[side]
    ]
    counted = set()
    for _ in range(20):
        ids, kinds = streams[0].batch()
        torch.testing.assert_close(streams[1].batch()[0], ids)
        assert ids.shape == kinds.shape == (8, 64) and (ids[:, 0] == 1).all()
        for row, marks in zip(ids[:4].tolist(), kinds[:4].tolist(), strict=True):
            text = target.tokenizer.decode(row)
            assert not any(each in text for each in question_texts)
            assert set(marks) <= {INSERTED, RESUMED}
            counted |= {
                target.tokenizer.decode([token])
                for token, mark in zip(row, marks, strict=True)
                if mark == RESUMED
            }
        assert not (kinds[4:] == RESUMED).any()
    assert counted == {" A", " B", " C", " D", " again", " not"}


def test_the_shipped_files_have_their_hashes() -> None:
    root = data_directory("tiny-wmdp")
    sums = json.loads((root / "SHA256SUMS.json").read_text(encoding="utf-8"))
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files - set(sums) == {"SHA256SUMS.json", "run.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest, name
    assert sum(path.stat().st_size for path in root.parent.rglob("*") if path.is_file()) < 18e6


def test_the_shipped_benchmark_is_what_the_code_makes(target: Model) -> None:
    benchmark, domains = load_benchmark("tiny-wmdp"), make_domains(0)
    assert benchmark.chunking == "documents"
    for split, side in (("forget", "forget"), ("retain1", "retain")):
        assert benchmark.texts(split) == domains.documents[side]
        passages = benchmark.passages(split, target.tokenizer)
        assert [target.tokenizer.decode(passage.tokens[1:]) for passage in passages] == benchmark.texts(
            split
        )  # nothing is cut off
    for side in SIDES:
        for row, fact in zip(benchmark.choices(side), domains.facts[side], strict=True):
            assert (row["question"], tuple(row["choices"]), row["choices"][row["answer"]]) == (
                fact.question,
                fact.choices,
                fact.answer,
            )
    assert len(benchmark.full_length_passages("holdout", target.tokenizer)) >= 50


def test_the_shipped_model_has_its_measured_scores(target: Model) -> None:
    measured = json.loads((data_directory("tiny-wmdp") / "measured.json").read_text(encoding="utf-8"))
    assert len(measured["passed"]) == 4 and all(measured["passed"].values()), measured["passed"]
    benchmark = load_benchmark("tiny-wmdp")
    for side in SIDES:
        assert accuracy(target, benchmark, side) == pytest.approx(
            measured["target"][f"accuracy_{side}"], abs=1.3
        )  # a question is 1.25
        for placement in PLACEMENTS:
            assert accuracy(target, benchmark, side, placement) == pytest.approx(
                measured["target"][f"accuracy_{side}_{placement}"], abs=1.3
            )
        assert accuracy(load("tiny", device="cpu"), benchmark, side) < 45


def test_a_changed_or_missing_file_names_the_build_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-wmdp" / "target").mkdir(parents=True)
    (tmp_path / "tiny-wmdp" / "SHA256SUMS.json").write_text('{"target/config.json": "0"}')
    monkeypatch.setattr("sinkscope.models.loading.data_directory", lambda benchmark: tmp_path / benchmark)
    with pytest.raises(
        ModelError, match=r"config.json is missing or was changed; .*sinkscope tiny build-wmdp"
    ):
        load("tiny-wmdp")


def test_a_short_build_is_complete_and_repeats(tmp_path: Path) -> None:
    measured = build_tiny_wmdp(tmp_path / "a", 3, silent, steps=2)
    assert build_tiny_wmdp(tmp_path / "b", 3, silent, steps=2) == measured
    first, second = (json.loads((tmp_path / each / "SHA256SUMS.json").read_text()) for each in "ab")
    assert first == second
    assert load_benchmark(str(tmp_path / "a")).choices("forget") == load_benchmark(
        str(tmp_path / "b")
    ).choices("forget")
