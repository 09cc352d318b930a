"""Processes forked from that of the tests, which has torch loaded: another start of it would take seconds."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager


@contextmanager
def forked(work):
    """A process that does `work` and ends with its exit code; gives its id."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = work() or 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    yield child


def ended(child):
    """The exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
