"""A Ctrl-C that a library replaces or ignores still ends the program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from sinkscope.io.interrupts import keep_interrupts


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _restores_the_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_becomes_another_error() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, keep_interrupts():
        try:
            press_ctrl_c()
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type 'UntypedStorage'") from None
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_interrupt_that_is_ignored() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), keep_interrupts(), keep_interrupts():
        try:
            press_ctrl_c()
        except KeyboardInterrupt:
            steps.append("ignored")
        steps.append("ends")
    assert steps == ["ignored", "ends"]


def test_an_interrupt_that_passes_keeps_its_message() -> None:
    with pytest.raises(KeyboardInterrupt, match="kept in run"), keep_interrupts():
        try:
            press_ctrl_c()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("kept in run") from None


def test_errors_without_an_interrupt_pass() -> None:
    with pytest.raises(ValueError, match="seven"), keep_interrupts():
        raise ValueError("seven")
    with pytest.raises(SystemExit), keep_interrupts():
        raise SystemExit(3)


def test_other_threads_and_ignored_signals_are_left_alone() -> None:
    handlers = []

    def work() -> None:
        with keep_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with keep_interrupts():
        press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
