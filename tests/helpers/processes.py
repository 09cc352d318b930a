"""Processes forked from that of the tests, which has torch loaded: another start of it would take seconds."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress
from functools import partial


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
    try:
        yield child
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def ended(child):
    """The exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ranks(count, work):
    """Do `work(rank)` in several processes that find each other as those of torchrun do; returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = free.getsockname()[1]

    def one(rank):
        os.environ |= {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        return work(rank)

    with ExitStack() as stack:
        children = [stack.enter_context(forked(partial(one, rank))) for rank in range(count)]
        return [ended(child) for child in children]
