"""How the benchmarks measure time."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def seconds(f: Callable[[], object], repeat: int = 7) -> float:
    """Median of `repeat` runs after one to warm up."""
    f()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return median(times)
