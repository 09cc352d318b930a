"""What the controls of the page do; errors reach the visitor as short messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from icgn.app import masks, text
from icgn.app.pictures import photograph, photographs, read_upload
from icgn.app.restore import Order, Result, restore_photograph, restore_upload
from icgn.app.sessions import Sessions
from icgn.app.tasks import TASKS, Damage
from icgn.app.watch import StoppedError, TooLongError, Watch
from icgn.datasets import Picture
from icgn.pictures import known_pixels, load_kernel, read_kernel

OWN = "my own picture"
"""The choice, beside the photographs, of the uploaded picture."""
_NOTHING = (text.IDLE, "", "", "", "")
"""Shown where there is no result for the picture in view."""
SECONDS = 120.0
"""Time after which a computation ends with the pictures reached so far, and what is proved of them."""


class Actions:
    """The functions behind the controls, for all visitors; `sessions` holds the pictures of each visitor."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def preview(self, name: str) -> str:
        """The HTML of a bundled photograph."""
        return text.preview(photograph(name), name, clean=True)

    def upload(self, path: str, request: gr.Request) -> list[Any]:
        """Hold an uploaded picture and show it."""
        with _refusals_shown():
            picture = read_upload(path)
            self.sessions.keep(_session(request), picture, Path(path).name)
            return [OWN, text.preview(picture, Path(path).name, clean=False), _canvas(picture), *_NOTHING]

    def upload_kernel(self, path: str, request: gr.Request) -> str:
        """Hold an uploaded blur kernel and choose it."""
        with _refusals_shown():
            if Path(path).suffix.lower() != ".npy":
                read_upload(path)  # refuses pictures that are too large
            kernel = load_kernel(path)
            for words in kernel.warnings:
                gr.Warning(f"The kernel: {words}.")
            self.sessions.visitor(_session(request)).kernel = kernel.values
            return "own"

    def upload_mask(self, path: str, name: str, request: gr.Request) -> str:
        """Hold an uploaded mask of the chosen picture, and show the picture with what is missing."""
        with _refusals_shown():
            (picture, title), known = self._picture(name, request), known_pixels(read_upload(path))
            _check_size(known, picture)
            self.sessions.visitor(_session(request)).mask = ~known
            shown = masks.painted(picture.pixels, ~known)
            return text.preview(picture, f"{title}, masked", clean=name != OWN, shown=shown)

    def choose(self, name: str, task: str, request: gr.Request) -> list[Any]:
        """Show the chosen picture, also in the editor of masks if that is open."""
        with _refusals_shown():
            picture, title = self._picture(name, request)
            self.sessions.visitor(_session(request)).mask = None
            shown = _canvas(picture) if task == "inpaint" else gr.skip()
            return [text.preview(picture, title, clean=name != OWN), shown, *_NOTHING]

    def choose_task(self, name: str, task: str, request: gr.Request) -> list[Any]:
        """The default noise of a task, the picture to draw on, and the options that are shown."""
        with _refusals_shown():
            shown = _canvas(self._picture(name, request)[0]) if task == "inpaint" else gr.skip()
            groups = [gr.update(visible=key == task) for key in ("deblur", "inpaint", "enlarge")]
            return [TASKS[task].noise, shown, *groups, *_NOTHING]

    def ask(self, request: gr.Request) -> None:
        """Record that a visitor has pressed the button, before the computation waits in the queue."""
        self.sessions.ask(_session(request))

    def restore(
        self,
        name: str,
        task: str,
        model: str,
        noise: float,
        estimate: bool,
        weight: float,
        precision: float,
        kernel: str,
        width: float,
        length: float,
        angle: float,
        factor: int,
        editor: dict[str, Any] | None,
        rectangle: str,
        percent: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        """Restore the chosen picture and say what is proved; the arguments are the controls of the page."""
        session = _session(request)
        stop = self.sessions.begin(session)
        watch = Watch(stop, lambda done, words: progress(done, desc=words), SECONDS)
        if stop.is_set():
            return [text.STOPPED, *[gr.skip()] * 4]
        with _refusals_shown():
            picture, title = self._picture(name, request)
            damage = Damage(factor=factor)
            if task == "deblur":
                damage = Damage(kernel=self._kernel(session, kernel, width, length, angle))
            elif task == "inpaint":
                missing = _missing(picture, editor, rectangle, percent)
                uploaded = self.sessions.visitor(session).mask
                if uploaded is not None:
                    missing |= _check_size(uploaded, picture)
                damage = Damage(missing=missing)
            order = Order(task, model, None if estimate and name == OWN else noise, weight, precision, damage)
            try:
                result = (
                    restore_upload(order, picture, title, watch)
                    if name == OWN
                    else restore_photograph(order, title, watch)
                )
            except StoppedError:
                return [text.STOPPED, *[gr.skip()] * 4]
            return _shown(result)

    def stop(self, request: gr.Request) -> str:
        """Stop the computation of a visitor."""
        self.sessions.stop(_session(request))
        return text.STOPPED

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor whose page was closed, and stop what still runs for it."""
        self.sessions.leave(_session(request))

    def _picture(self, name: str, request: gr.Request) -> tuple[Picture, str]:
        if name == OWN:
            return self.sessions.uploaded(_session(request))
        if name not in photographs():
            raise ValueError(f"photograph: got {name!r}, expected one of {', '.join(photographs())}")
        return photograph(name), name

    def _kernel(self, session: str, kind: str, width: float, length: float, angle: float) -> torch.Tensor | None:
        if kind == "own":
            kernel = self.sessions.visitor(session).kernel
            if kernel is None:
                raise ValueError("There is no kernel of yours here: upload one first (idle pages lose theirs).")
            return kernel
        return read_kernel(f"gaussian:{width}" if kind == "gaussian" else f"motion:{length},{angle}")


def _shown(result: Result) -> list[str]:
    difference = text.difference_picture(result) + text.errors_picture(result)
    return [text.report(result), text.slider(result), text.download(result), difference, text.plot(result)]


def _missing(picture: Picture, editor: dict[str, Any] | None, rectangle: str, percent: float) -> torch.Tensor:
    size = picture.pixels.shape[1], picture.pixels.shape[2]
    layers = [] if editor is None else editor["layers"]
    return masks.drawn(layers, *size) | masks.rectangle(rectangle, *size) | masks.scattered(percent, *size)


def _check_size(mask: torch.Tensor, picture: Picture) -> torch.Tensor:
    if mask.shape[1:] != picture.pixels.shape[1:]:
        (height, width), (rows, cols) = picture.pixels.shape[1:], mask.shape[1:]
        raise ValueError(f"mask: got {cols} x {rows} pixels, expected those of the picture, {width} x {height}")
    return mask


def _canvas(picture: Picture) -> dict[str, Any]:
    """A picture to draw on, (H, W, 3)."""
    levels = (picture.pixels.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
    return {"background": levels.permute(1, 2, 0).contiguous().numpy(), "layers": [], "composite": None}


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


@contextmanager
def _refusals_shown() -> Iterator[None]:
    """Show the visitor what was wrong, in the words of the package and without a traceback."""
    try:
        yield
    except TooLongError:
        message = f"Nothing could be proved within {SECONDS:g} s: try a smaller picture or the fast model."
        raise gr.Error(message, print_exception=False) from None
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise gr.Error(str(error) or type(error).__name__, print_exception=False) from None
