"""``icgn app``."""

from __future__ import annotations

import signal
import threading
import webbrowser

from icgn.cli.screen import console, refuse


def run_app(host: str, port: int, browser: bool, threads: int | None) -> None:
    """Serve the page until Ctrl-C or a request to terminate.

    Parameters
    ----------
    host, port : str, int
        where to listen; port 0 takes any that is free.
    browser : bool
        whether to open the page in the browser of this machine.
    threads : int, optional
        CPU threads of a computation; default all cores.

    Raises
    ------
    typer.Exit
        2 if gradio is missing or the page cannot listen there.
    """
    import torch

    from icgn.app.server import serving

    if threads is not None:
        torch.set_num_threads(threads)
    ended = threading.Event()
    # Terminated like by Ctrl-C: the uploads must not outlive the page.
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    try:
        with serving(host, port) as url:
            console().print(f"The page is at {url} (Ctrl-C ends it)", soft_wrap=True, markup=False)
            if browser:
                webbrowser.open(url)
            ended.wait()
    except KeyboardInterrupt:
        pass
    except (ImportError, ValueError, OSError) as error:
        refuse(str(error))
    finally:
        signal.signal(signal.SIGTERM, before)
