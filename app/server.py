"""The server of the page: it fetches nothing, sends nothing elsewhere, and leaves no file."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from icgn.app.pictures import BYTES
from icgn.app.style import ON_LOAD, STYLE
from icgn.compat import keyword_only

PORT = 7860
"""Default port."""
AGE, EVERY = 300.0, 10.0
"""Uploaded files are read at once and deleted after so many seconds; they are looked for as often as that."""


@keyword_only
@contextmanager
def serving(*, host: str = "127.0.0.1", port: int = PORT) -> Iterator[str]:
    """Serve the page while the context lasts; gives its address.

    Uploads go to a folder of their own, which is deleted at the end; each file in it is after some minutes.

    Parameters
    ----------
    host : str
        address to listen at; ``0.0.0.0`` lets other machines in.
    port : int
        0 takes any that is free.

    Raises
    ------
    ModuleNotFoundError
        without gradio (``pip install icgn[app]``).
    ValueError
        naming host or port, if the page cannot listen there.
    """
    port = _free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="icgn-app-") as uploads, _sweeping(Path(uploads)), _environment(uploads):
        try:
            import gradio as gr
        except ImportError:
            raise ModuleNotFoundError("icgn app needs gradio, expected: pip install 'icgn[app]'") from None
        from icgn.app.page import build_page

        page = build_page()
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                mcp_server=False,
                run_history=False,
                enable_monitoring=False,
                max_file_size=BYTES,
                footer_links=[],
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=STYLE,
                js=ON_LOAD,
            )
            yield url
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(uploads: str) -> Iterator[None]:
    """What gradio reads when it is imported and when the page is built: no reports, and where uploads go."""
    wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _sweeping(folder: Path) -> Iterator[None]:
    """Delete old files while the context lasts: gradio's own deletion leaves some of the uploads."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(EVERY):
            for file in [p for p in folder.rglob("*") if p.is_file()]:
                with suppress(OSError):
                    if time.time() - file.stat().st_ctime > AGE:
                        file.unlink()

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0."""
    try:
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"--port {port}: cannot listen at {host} ({reason.lower()}), expected a free port (0 takes any)"
        ) from error
