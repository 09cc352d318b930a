"""What the page holds of its visitors, in memory only: the picture of each, and the order to stop."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

from icgn.datasets import Picture

VISITORS = 32
"""Most visitors whose pictures are held; when there are more, the pictures of those idle longest are dropped."""


@dataclass
class Visitor:
    """One open tab.

    Attributes
    ----------
    picture : Picture or None
        uploaded.
    name : str
        of its file.
    kernel : Tensor or None
        uploaded blur kernel (1, 1, h, w).
    mask : Tensor or None
        what is missing of the chosen picture, bool (1, H, W), by an uploaded mask.
    stop : threading.Event
        of the computation that waits, runs or ran last.
    waits : bool
        whether it waits.
    """

    picture: Picture | None = None
    name: str = ""
    kernel: Tensor | None = None
    mask: Tensor | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    waits: bool = False


class Sessions:
    """Visitors by the hash of their session; any thread may ask."""

    def __init__(self, most: int = VISITORS) -> None:
        self._most = most
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visitors)

    def visitor(self, session: str) -> Visitor:
        """What is held of a visitor."""
        with self._lock:
            return self._visitor(session)

    def keep(self, session: str, picture: Picture, name: str) -> None:
        """Hold the picture of a visitor instead of the one before, whose mask is forgotten."""
        with self._lock:
            visitor = self._visitor(session)
            visitor.picture, visitor.name, visitor.mask = picture, name, None

    def uploaded(self, session: str) -> tuple[Picture, str]:
        """The picture of a visitor, and its name.

        Raises
        ------
        ValueError
            if there is none, or no longer.
        """
        visitor = self.visitor(session)
        if visitor.picture is None:
            raise ValueError("There is no picture of yours here: upload one first (idle pages lose theirs).")
        return visitor.picture, visitor.name

    def ask(self, session: str) -> None:
        """Note that a computation of a visitor is about to wait in the queue; the one before is stopped."""
        with self._lock:
            self._renew(self._visitor(session)).waits = True

    def begin(self, session: str) -> threading.Event:
        """Begin a computation; returns the event that stops it, set already if it was stopped while it waited."""
        with self._lock:
            visitor = self._visitor(session)
            if not visitor.waits:  # a program made the request, not the page
                self._renew(visitor)
            visitor.waits = False
            return visitor.stop

    def stop(self, session: str) -> None:
        """Stop the computation of a visitor."""
        with self._lock:
            if session in self._visitors:
                self._visitors[session].stop.set()

    def leave(self, session: str) -> None:
        """Forget a visitor whose page was closed."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
        if visitor is not None:
            visitor.stop.set()

    def _renew(self, visitor: Visitor) -> Visitor:
        visitor.stop.set()
        visitor.stop = threading.Event()
        return visitor

    def _visitor(self, session: str) -> Visitor:
        visitor = self._visitors.setdefault(session, Visitor())
        self._visitors.move_to_end(session)
        while len(self._visitors) > self._most:
            self._visitors.popitem(last=False)
        return visitor
