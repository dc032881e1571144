"""A file with any content is read, or refused with one error message that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinkscope.errors import UserError
from tests.guarantees.readers import READERS
from tests.guarantees.reading import time_limit
from tests.guarantees.soak_log import attempt

PIECES = [
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{",
    b"[" * 400,
    b"&a ",
    b"*a",
    b"!!",
    b"<<: ",
    b"9" * 5000,
    b"\\ud800",
    b"\n\n",
]
JUNK = st.one_of(st.binary(max_size=8), st.sampled_from(PIECES))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), JUNK), max_size=4)


def edited(good: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Replace bytes at several positions."""
    for place, removed, new in edits:
        start = int(place * len(good))
        good = good[:start] + new + good[start + removed :]
    return good


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.soak)])
def test_any_content_is_read_or_refused_with_one_line(file: str, count: int, tmp_path: Path) -> None:
    reader, good = READERS[file]
    path = tmp_path / file

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count < 1000,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.binary(max_size=200), EDITS.map(lambda edits: edited(good, edits))))
    def check_reader(data: bytes) -> None:
        path.write_bytes(data)
        with attempt("random files", file):
            try:
                with time_limit(20):
                    reader(path)
            except UserError as error:
                line = " ".join(str(error).split())
                assert str(tmp_path) in line and len(line) < 20_000, line  # the command line truncates it

    path.write_bytes(good)
    reader(path)
    check_reader()
