"""The reference cache: reuse, damaged files, numerical environment, subsets of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sinkscope.models.model import Model
from sinkscope.unlearning.batch import Batch
from sinkscope.unlearning.reference_model import ReferenceCache, ReferenceConfig
from sinkscope.unlearning.reference_model import _compute as original
from tests.unlearning.short_runs import as_passages


def test_references_are_reused_and_computed_again_if_damaged(
    small_llama: Model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = as_passages([[1, *range(5, 5 + n)] for n in (9, 14, 5)])
    first = ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "model a"))
    calls = []
    monkeypatch.setattr(
        "sinkscope.unlearning.reference_model._compute",
        lambda *arguments: calls.append(1) or original(*arguments),
    )
    again = ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "model a"))
    assert not calls
    batch = Batch.of(passages, [2, 0])
    assert torch.equal(first.logits(batch), again.logits(batch)) and torch.equal(
        first.log_probs, again.log_probs
    )
    ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "model b"))
    ReferenceCache(
        small_llama.hf,
        as_passages([each.tokens for each in passages], [3, 0, 0]),
        ReferenceConfig(("log_probs", "logits"), "model a"),
    )
    assert len(calls) == 2, "another model, another prompt that is given"
    for path in (tmp_path / "references").glob("*/00000000.safetensors"):
        path.write_bytes(path.read_bytes()[:-8])
    recomputed = ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "model a"))
    assert len(calls) == 3 and torch.equal(recomputed.log_probs, again.log_probs)


def test_references_of_another_number_of_threads_are_not_reused(
    small_llama: Model, tmp_path: Path, monkeypatch
) -> None:
    """A number's last bits depend on the threads that added it up, and a run's bytes must not depend on what
    lies in the cache."""
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages, threads = as_passages([[1, *range(5, 12)]]), torch.get_num_threads()
    ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "sums"))
    monkeypatch.setattr("torch.get_num_threads", lambda: threads + 1)
    ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "sums"))
    assert len(list((tmp_path / "references").iterdir())) == 2


def test_damaged_references_stay_until_they_are_replaced(
    small_llama: Model, tmp_path: Path, monkeypatch
) -> None:
    """Another run may read them."""
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = as_passages([[1, *range(5, 12)]])
    ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "read"))
    (file,) = (tmp_path / "references").glob("*/00000000.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])

    def watched(*arguments):  # type: ignore[no-untyped-def]
        assert file.is_file()
        yield from original(*arguments)

    monkeypatch.setattr("sinkscope.unlearning.reference_model._compute", watched)
    ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "read"))
    assert file.read_bytes() == whole and len(list((tmp_path / "references").iterdir())) == 1


def test_references_of_some_rows_equal_those_of_all(small_llama: Model) -> None:
    """More rows than a file or a batch takes."""
    passages = as_passages([[1, 5 + n % 7, *range(5, 9 + n % 5)] for n in range(600)])
    every = ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "rows"))
    rows = [599, 3, *range(7, 300)]
    some = ReferenceCache(
        small_llama.hf, passages, ReferenceConfig(("log_probs", "logits"), "rows"), rows=rows
    )
    torch.testing.assert_close(some.log_probs[rows], every.log_probs[rows])
    for chosen in ([3, 8], [299, 599]):
        torch.testing.assert_close(
            some.logits(Batch.of(passages, chosen)), every.logits(Batch.of(passages, chosen))
        )
    with pytest.raises(KeyError):
        some.logits(Batch.of(passages, [4]))


def test_references_that_another_run_writes_at_the_same_time_are_used(
    small_llama: Model, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("SINKSCOPE_CACHE", str(tmp_path))
    passages = as_passages([[1, *range(5, 12)]])

    def slower(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr("sinkscope.unlearning.reference_model._compute", original)
        ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "race"))
        yield from original(*arguments)

    monkeypatch.setattr("sinkscope.unlearning.reference_model._compute", slower)
    assert ReferenceCache(small_llama.hf, passages, ReferenceConfig(("log_probs",), "race")).log_probs[0] < 0
