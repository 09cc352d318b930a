"""Progress of a computation, the order to stop it, and its limit of time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from icgn.pictures.progress import Progress
from icgn.solvers import Event


class StoppedError(Exception):
    """The visitor has stopped the work."""


class TooLongError(Exception):
    """The time was over before a picture could be certified."""


@dataclass
class Watch:
    """The progress of a computation, and the means to stop it.

    Attributes
    ----------
    stop : threading.Event
        set to stop the computation.
    report : callable
        ``report(fraction, words)`` is called with the part done, 0 to 1, at every iteration.
    seconds : float
        time after which it ends with the pictures reached so far.
    history : dict of str to list
        of each stage of the solver, (iteration, distance, measure) of the slowest channel: the bound of the RMS
        distance in intensities, inf where unknown, and the multiple of the tolerance.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[float, str], None] = lambda fraction, words: None
    seconds: float = math.inf
    history: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def callback(self) -> Progress:
        """A callback of :func:`icgn.pictures.restore_picture` that records progress and stops when it should."""
        return Progress(self._take)

    def check(self) -> None:
        """Raise :class:`StoppedError` if the visitor has stopped it."""
        if self.stop.is_set():
            raise StoppedError

    def _take(self, done: float, event: Event) -> bool:
        if "/" not in event.stage:
            bounds = float(event.distance.max()), float(event.measure.max())
            self.history.setdefault(event.stage, []).append((event.iteration, *bounds))
            self.report(done, f"step {event.iteration + 1}")
        return self.stop.is_set() or time.perf_counter() - self._began > self.seconds
