"""What the guarantees are measured with notices what it is there for."""

from __future__ import annotations

import time

import pytest

from tests.guarantees.reading import at_most


@pytest.mark.parametrize("caught", [OSError, Exception, BaseException])
def test_a_wait_that_is_taken_for_bad_input_is_noticed(caught: type[BaseException]) -> None:
    with pytest.raises(AssertionError, match=r"not back after 0\.05 s"), at_most(0.05):
        try:
            time.sleep(20)
        except caught as error:
            raise SystemExit(2) from error
