"""The checks of the other tests detect what they are made for."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.guarantees import reading, soak_log
from tests.guarantees.reading import MEMORY, check_refused, sinkscope, time_limit


@pytest.mark.parametrize("caught", [OSError, Exception, BaseException])
def test_a_timeout_that_is_reported_as_bad_input_is_detected(caught: type[BaseException]) -> None:
    with pytest.raises(AssertionError, match=r"not finished after 0\.05 s"), time_limit(0.05):
        try:
            time.sleep(20)
        except caught as error:
            raise SystemExit(2) from error


def test_a_refusal_that_uses_much_memory_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use_memory() -> None:
        print("sinkscope: file", len(b"x" * (MEMORY + 2**26)), "is too large", file=sys.stderr)
        raise SystemExit(2)

    monkeypatch.setattr(reading, "main", use_memory)
    outcome = sinkscope("locate")
    check_refused(outcome, tmp_path / "out", "file", limit=2 * MEMORY)
    with pytest.raises(AssertionError, match=f"memory={outcome.memory}"):
        check_refused(outcome, tmp_path / "out", "file")


def test_failures_are_counted_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_log, "TALLIES", type(soak_log.TALLIES)(soak_log.Tally))
    for error in (None, AssertionError, None, KeyboardInterrupt):
        try:
            with soak_log.attempt("crash", "kills") as tally:
                if error:
                    raise error
        except (AssertionError, KeyboardInterrupt):
            pass
    with soak_log.attempt("load", "passages", 100) as tally:
        tally.seen = "flat"
    monkeypatch.setattr(soak_log, "STARTED", time.monotonic() - 180)
    soak_log.write(tmp_path / "log.tsv")
    header, columns, *rows = (tmp_path / "log.tsv").read_text().splitlines()
    assert re.fullmatch(r"# commit ([0-9a-f]{12}(-dirty)?|unknown), \d{4}-\d\d-\d\d, 3 minutes", header)
    assert columns.split("\t") == [*soak_log.COLUMNS]
    assert rows == ["crash\tkills\t4\t2\t0.0\t", "load\tpassages\t100\t0\t0.0\tflat"]
