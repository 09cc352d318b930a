"""How far a restoration is: a callback of the solver that reports the part done."""

from __future__ import annotations

import math
from collections.abc import Callable

from icgn.solvers import Event

# Ends of the stages of a solution on the way, as parts of what is left before them: a rule that finds the weight solves
# five to ten times, and the first solution of a conditional regularizer is a third of the work. Of the strength of a
# scanner's data, four to eight rough solutions take about as long as the final one; each has a part of what is left.
_ENDS = {"weight": 0.85, "first": 0.3, "strength": 0.5}
_EACH = 0.25


class Progress:
    r"""A callback of :func:`icgn.solve` that reports the part done, measured by what is proved.

    Bounds fall about geometrically: of the multiple m of the tolerance at which a stage began, and the present one k,
    the part done is :math:`\log(m / k) / \log m`.

    Parameters
    ----------
    report : callable
        ``report(done, event)`` is called at every event with the part done, in [0, 1] and never falling; returning True
        stops the solution.
    """

    def __init__(self, report: Callable[[float, Event], bool | None]) -> None:
        self._report = report
        self._stage, self._begin, self._end = "", 0.0, 0.0
        self._limit, self._last = 0.0, -1
        self._most, self.done = 0.0, 0.0

    def __call__(self, event: Event) -> bool | None:
        """Take one event of the solver."""
        # Loops inside an iteration have measures of their own.
        if "/" not in event.stage:
            self._enter(event)
            self._advance(float(event.measure.max()))
        return self._report(self.done, event)

    def _enter(self, event: Event) -> None:
        stage, again = event.stage, event.iteration <= self._last
        self._last = event.iteration
        if stage == self._stage and not again:
            return
        self._most = 0.0
        if stage != self._stage:
            self._stage, self._begin = stage, self._limit
            self._limit += (1 - self._limit) * _ENDS.get(stage, 1.0)
        else:
            self._begin = self._end
        several = stage == "strength"
        self._end = self._begin + (self._limit - self._begin) * (_EACH if several else 1.0)

    def _advance(self, measure: float) -> None:
        self._most = max(self._most, measure)
        if 1 < self._most < math.inf and measure > 0:
            part = min(1.0, math.log(self._most / measure) / math.log(self._most))
            self.done = max(self.done, self._begin + part * (self._end - self._begin))
