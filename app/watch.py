"""A computation that somebody waits for: how far it is, the order to stop, and the limit of time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from icgn.pictures.progress import Progress
from icgn.solvers import Event


class StoppedError(Exception):
    """The work was told to stop."""


class TooLongError(Exception):
    """The time was over before the problem was posed that is certified."""


@dataclass
class Watch:
    """What a visitor sees of a computation, and may do to it.

    Attributes
    ----------
    stop : threading.Event
        set by whoever wants it to stop.
    tell : callable
        ``tell(fraction, words)`` is called with the part done, 0 to 1, at every iteration.
    seconds : float
        after which it is to end with what it has.
    history : dict of str to list
        of each stage of the solver, (iteration, distance, measure) of the slowest channel: the bound of the RMS
        distance in intensities, inf where unknown, and the multiple of the tolerance.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[float, str], None] = lambda fraction, words: None
    seconds: float = math.inf
    history: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def callback(self) -> Progress:
        """For :func:`icgn.pictures.restore_picture`: notes where it stands, and stops it."""
        return Progress(self._take)

    def check(self) -> None:
        """Raise :class:`StoppedError` if it was told to stop."""
        if self.stop.is_set():
            raise StoppedError

    def _take(self, done: float, event: Event) -> bool:
        if "/" not in event.stage:
            bounds = float(event.distance.max()), float(event.measure.max())
            self.history.setdefault(event.stage, []).append((event.iteration, *bounds))
            self.tell(done, f"step {event.iteration + 1}")
        return self.stop.is_set() or time.perf_counter() - self._began > self.seconds
