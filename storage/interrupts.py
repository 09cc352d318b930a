"""Ctrl-C waits until what is half done can be written: half a step of a training cannot be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Whether Ctrl-C was pressed."""

    asked = False

    @contextmanager
    def at_once(self, active: bool = True) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` at once inside, also for an earlier Ctrl-C, if `active`."""
        if not active:
            yield
            return
        if self.asked:
            raise KeyboardInterrupt
        if signal.getsignal(signal.SIGINT) != self.note:
            yield  # nothing is deferred
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: the second signal has its usual effect again."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts_deferred() -> Iterator[Interrupts]:
    """Note the first Ctrl-C in the object that is given; a second one raises ``KeyboardInterrupt`` at once."""
    noted = Interrupts()
    # Signals reach the main thread only, and a handler of the caller's own is respected.
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield noted
        return

    signal.signal(signal.SIGINT, noted.note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
