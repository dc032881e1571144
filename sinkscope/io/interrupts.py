"""Ctrl-C that a library replaces by an error of its own, or ignores."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def keep_interrupts() -> Iterator[None]:
    """Within the context no Ctrl-C is lost: at the latest when it ends, a KeyboardInterrupt is raised.

    Python raises it wherever the main thread is. Extension modules may replace it by another exception
    (PyTorch: "could not determine the shape of object type UntypedStorage"), and destructors ignore it.

    Does nothing outside the main thread, or where SIGINT is ignored.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    is_interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if is_interrupted:
            raise KeyboardInterrupt from error
        raise
    else:
        if is_interrupted:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
