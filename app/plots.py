"""Figures of the page, as PNG files in memory; none uses the state that pyplot shares between threads."""

from __future__ import annotations

import io
import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icgn.app.restore import GAP, Result

_BLUE, _ORANGE = "#0f5499", "#b34700"


def convergence(result: Result) -> bytes:
    """Draw the bound of the distance, or of the gap, at every iteration, and the certificate at the end."""
    distance = proves_distance(result)
    scale = 255 if distance else 100
    figure = Figure(figsize=(5.6, 3.4), dpi=140, layout="constrained")
    axes = figure.add_subplot()
    done = result.restored
    for stage, label, color in (("first", "first solution, not certified", _ORANGE), ("final", "certified", _BLUE)):
        points = _bounds(result, stage, distance)
        if points:
            iterations, bounds = zip(*points, strict=True)
            axes.semilogy(iterations, [scale * b for b in bounds], color=color, label=label)
    proved = scale * (done.rms_distance if distance else done.relative_gap)
    if 0 < proved < math.inf:
        axes.semilogy([done.iterations], [proved], "o", color=_BLUE, label=f"proved at the end: {proved:.2g}")
    axes.axhline(result.order.tol if distance else 100 * GAP, color="0.4", linestyle="--", linewidth=1, label="asked")
    axes.set_xlabel("iteration")
    axes.set_ylabel("distance at most, gray levels" if distance else "objective gap at most, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _bounds(result: Result, stage: str, distance: bool) -> list[tuple[int, float]]:
    """Iterations of a stage with the bound of the distance, or, of the certified problem, of the gap."""
    if not distance and stage != "final":
        return []
    points = result.watch.history.get(stage, [])
    bounds = [(iteration, apart if distance else GAP * measure) for iteration, apart, measure in points]
    return [(iteration, bound) for iteration, bound in bounds if 0 < bound < math.inf]


def proves_distance(result: Result) -> bool:
    """Whether the certificate bounds a distance: pictures in [0, 1] are never farther apart than 1."""
    return result.restored.rms_distance <= 1
