"""What the guarantees are measured with notices what it is there for."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.guarantees import reading, soak_log
from tests.guarantees.reading import MEMORY, at_most, check_refused, sinkscope


@pytest.mark.parametrize("caught", [OSError, Exception, BaseException])
def test_a_wait_that_is_taken_for_bad_input_is_noticed(caught: type[BaseException]) -> None:
    with pytest.raises(AssertionError, match=r"not back after 0\.05 s"), at_most(0.05):
        try:
            time.sleep(20)
        except caught as error:
            raise SystemExit(2) from error


def test_a_refusal_that_takes_much_memory_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy() -> None:
        print("sinkscope: file", len(b"x" * (MEMORY + 2**26)), "is too large", file=sys.stderr)
        raise SystemExit(2)

    monkeypatch.setattr(reading, "main", greedy)
    outcome = sinkscope("locate")
    check_refused(outcome, tmp_path / "out", "file", limit=2 * MEMORY)
    with pytest.raises(AssertionError, match=f"memory={outcome.memory}"):
        check_refused(outcome, tmp_path / "out", "file")


def test_what_fails_is_counted_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_log, "TALLIES", type(soak_log.TALLIES)(soak_log.Tally))
    for way_out in (None, AssertionError, None, KeyboardInterrupt):
        try:
            with soak_log.attempt("crash", "kills") as tally:
                if way_out:
                    raise way_out
        except (AssertionError, KeyboardInterrupt):
            pass
    with soak_log.attempt("load", "passages", 100) as tally:
        tally.seen = "flat"
    monkeypatch.setattr(soak_log, "BEGUN", time.monotonic() - 180)
    soak_log.write(tmp_path / "log.tsv")
    about, columns, *rows = (tmp_path / "log.tsv").read_text().splitlines()
    assert re.fullmatch(r"# commit ([0-9a-f]{12}(-dirty)?|unknown), \d{4}-\d\d-\d\d, 3 minutes", about)
    assert columns.split("\t") == [*soak_log.COLUMNS]
    assert rows == ["crash\tkills\t4\t2\t0.0\t", "load\tpassages\t100\t0\t0.0\tflat"]
