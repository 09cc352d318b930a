"""Compiled loops over responses: each reads them once. Imported at first use, for numba takes half a second.

All but the last have the same arguments: responses u and q (P, N) of one image, bounds `knee` (P, N), or (1, N) for all
positions, steps or weights t (T,), and what is written. Sums are added to what `total`, in float64, already has, row by
row; a row is summed in the precision of u, in whatever order is fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

# Sums may be reordered and products fused; NaN and inf keep their meaning, for a diverged picture has to be noticed.
_FAST = {"reassoc", "nsz", "contract"}


def compiled(function: F) -> F:
    """The function as machine code, kept on disk: beside this file, else where NUMBA_CACHE_DIR says, else at home."""
    options: Any = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        done: Any = numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # No folder can be written: compiled anew by every process.
        done = numba.njit(**options)(function)
    return cast(F, done)


@compiled
def slopes4(u: Any, q: Any, knee: Any, t: Any, total: Any) -> None:
    """Add the sums of q clip(u + t q) for four steps t to `total`, (4,)."""
    t0, t1, t2, t3 = t[0], t[1], t[2], t[3]
    zero = u.dtype.type(0)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for i in range(u.shape[1]):
            v, w, k = u[p, i], q[p, i], bound[i]
            a, b, c, d = v + t0 * w, v + t1 * w, v + t2 * w, v + t3 * w
            s0 += w * (k if a > k else (-k if a < -k else a))
            s1 += w * (k if b > k else (-k if b < -k else b))
            s2 += w * (k if c > k else (-k if c < -k else c))
            s3 += w * (k if d > k else (-k if d < -k else d))
        total[0] += s0
        total[1] += s1
        total[2] += s2
        total[3] += s3


@compiled
def slope1(u: Any, q: Any, knee: Any, t: Any, total: Any) -> None:
    """Add the sum of q clip(u + t q) for one step t to `total`, (1,)."""
    step, zero = t[0], u.dtype.type(0)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        s = zero
        for i in range(u.shape[1]):
            w, k = q[p, i], bound[i]
            v = u[p, i] + step * w
            s += w * (k if v > k else (-k if v < -k else v))
        total[0] += s


@compiled
def curvature(u: Any, q: Any, knee: Any, t: Any, total: Any) -> None:
    """Add the sum of q^2 where |u| is below its knee to `total`, (1,)."""
    zero = u.dtype.type(0)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        s = zero
        for i in range(u.shape[1]):
            w = q[p, i]
            s += w * w if abs(u[p, i]) < bound[i] else zero
        total[0] += s


@compiled
def value(u: Any, q: Any, knee: Any, t: Any, total: Any) -> None:
    """Add the sum of the Huber functions c (u - c / 2), c = clip(u), to `total`, (1,)."""
    zero, half = u.dtype.type(0), u.dtype.type(0.5)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        s = zero
        for i in range(u.shape[1]):
            v, k = u[p, i], bound[i]
            c = k if v > k else (-k if v < -k else v)
            s += c * (v - half * c)
        total[0] += s


@compiled
def inside(u: Any, q: Any, knee: Any, t: Any, total: Any) -> None:
    """Add to each entry of `total`, (N,), how often |u| is below its knee."""
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        for i in range(u.shape[1]):
            total[i] += 1.0 if abs(u[p, i]) < bound[i] else 0.0


@compiled
def mixed(u: Any, q: Any, knee: Any, t: Any, out: Any) -> None:
    """Write to `out`, (P, C S), the sums of weights t where |u| is below its knee, over the filters.

    Here t has C weights for each response, (C N,), and the N responses are those of filters at S phases side by side.
    """
    columns, zero = u.shape[1], u.dtype.type(0)
    colours = t.shape[0] // columns
    phases = out.shape[1] // colours
    own = np.empty(columns, u.dtype)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        for c in range(colours):
            weights, sums = t[c * columns : (c + 1) * columns], out[p, c * phases : (c + 1) * phases]
            for i in range(columns):
                own[i] = weights[i] if abs(u[p, i]) < bound[i] else zero
            sums[:] = zero
            for first in range(0, columns, phases):
                for s in range(phases):
                    sums[s] += own[first + s]


@compiled
def clip(u: Any, q: Any, knee: Any, t: Any, out: Any) -> None:
    """Write clip(u) to `out`."""
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        for i in range(u.shape[1]):
            v, k = u[p, i], bound[i]
            out[p, i] = k if v > k else (-k if v < -k else v)


@compiled
def step(u: Any, q: Any, knee: Any, t: Any, out: Any) -> None:
    """Write u + t q to u, and its clip to `out`."""
    along = t[0]
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        for i in range(u.shape[1]):
            v, k = u[p, i] + along * q[p, i], bound[i]
            u[p, i] = v
            out[p, i] = k if v > k else (-k if v < -k else v)


@compiled
def product(u: Any, q: Any, knee: Any, t: Any, out: Any) -> None:
    """Write q where |u| is below its knee to `out`, else 0."""
    zero = u.dtype.type(0)
    for p in range(u.shape[0]):
        bound = knee[min(p, knee.shape[0] - 1)]
        for i in range(u.shape[1]):
            out[p, i] = q[p, i] if abs(u[p, i]) < bound[i] else zero


@compiled
def overlap(patches: Any, cols: int, stride: int, columns: tuple[int, ...], out: Any) -> None:
    """Add square patches (P, side^2) to a picture, `cols` of them in a row, each `stride` pixels after the last one.

    `columns` are as many numbers as a patch has columns: the length of a tuple is known when the loop is compiled.
    """
    side = len(columns)
    for p in range(patches.shape[0]):
        top, left = p // cols * stride, p % cols * stride
        for a in range(side):
            row, own = out[top + a, left : left + side], patches[p, a * side : (a + 1) * side]
            for b in range(side):
                row[b] += own[b]
