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
    for final, label, color in ((False, "first solution, not certified", _ORANGE), (True, "certified problem", _BLUE)):
        points = [p for p in result.history if p.final == final and 0 < p.bound < math.inf]
        if points:
            axes.semilogy([p.iteration for p in points], [scale * p.bound for p in points], color=color, label=label)
    done = result.restored
    proved = scale * (done.rms_distance if distance else done.relative_gap)
    if 0 < proved < math.inf:
        axes.semilogy([len(result.history)], [proved], "o", color=_BLUE, label=f"proved at the end: {proved:.2g}")
    axes.axhline(result.order.tol if distance else 100 * GAP, color="0.4", linestyle="--", linewidth=1, label="asked")
    axes.set_xlabel("iteration")
    axes.set_ylabel("distance at most, gray levels" if distance else "objective gap at most, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def proves_distance(result: Result) -> bool:
    """Whether the certificate bounds a distance: pictures in [0, 1] are never farther apart than 1."""
    return result.restored.rms_distance <= 1
