"""Serving the page until it is ended."""

from __future__ import annotations

import signal
import threading
import webbrowser
from collections.abc import Callable


def serve(host: str, port: int, *, browser: bool, threads: int | None, ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or a request to terminate.

    Parameters
    ----------
    host, port : str, int
        where to listen; port 0 takes any that is free.
    browser : bool
        whether to open the page in the browser of this machine.
    threads : int or None
        CPU threads of a computation; None for all cores.
    ready : callable
        called with the address of the page when it can be visited.

    Raises
    ------
    ImportError
        if gradio is missing.
    ValueError, OSError
        if the page cannot listen there.
    """
    import torch

    from icgn.app.server import serving

    if threads is not None:
        torch.set_num_threads(threads)
    ended = threading.Event()
    # Terminated like by Ctrl-C: the uploads must not outlive the page.
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    try:
        with serving(host=host, port=port) as url:
            ready(url)
            if browser:
                webbrowser.open(url)
            ended.wait()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
