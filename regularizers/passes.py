"""Passes over responses that a clip bounds: sums and gradients read from memory once, by loops that numba compiles.

With torch a slope of a line search writes and reads several sets of as many numbers as there are responses, in strips
that fit the cache; compiled, four slopes cost less than half of one. Everything here has a counterpart in torch, in
:class:`~icgn.regularizers.ridge_head.RidgeHead`, which is what is used on a GPU, where a graph is recorded, for few
responses, and without numba.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

# Responses of one image from which loops are compiled: for fewer the half second to load numba is not made up for. It
# depends on one image, not on the batch, so that an image is computed alike whatever stands beside it.
COMPILED = 1 << 18
# Responses that a thread gets at least.
_SHARE = 1 << 17
# Steps that one pass tries.
TRIALS = 4

Loop = Callable[[Any, Any, Any, Any, Any], None]
"""A compiled loop: of responses u and q, knees, steps, and what it writes to."""


@cache
def kernels() -> Any:
    """The module of compiled loops, or None where numba does not work."""
    try:
        return importlib.import_module("icgn.regularizers.kernels")
    except (ImportError, SystemError, RuntimeError):
        return None


def usable(u: Tensor, knee: Tensor) -> bool:
    """Whether the loops take responses (B, P, N) with knees (B or 1, P or 1, N)."""
    plain = u.device.type == "cpu" and u.dtype in (torch.float32, torch.float64) and knee.dtype is u.dtype
    if torch.is_grad_enabled() or not plain or u[0].numel() < COMPILED or torch.compiler.is_compiling():
        return False
    # Tensors within the transforms of torch.func have no numbers of their own.
    return not torch._C._functorch.is_functorch_wrapped_tensor(u) and kernels() is not None


def slopes(u: Tensor, q: Tensor, knee: Tensor, t: Tensor) -> Tensor:
    r"""The derivatives :math:`\langle q, \operatorname{clip}(u + t q)\rangle` for steps t (T, B), shape of t."""
    if len(t) == 1:
        return _summed(kernels().slope1, u, q, knee, t, 1).T
    steps = torch.cat([t, t[-1:].expand(-len(t) % TRIALS, -1)])
    groups = [_summed(kernels().slopes4, u, q, knee, s, TRIALS) for s in steps.split(TRIALS)]
    return torch.cat(groups, 1)[:, : len(t)].T


def curvature(u: Tensor, q: Tensor, knee: Tensor) -> Tensor:
    """The sums of q^2 over the responses inside their knees, (B,)."""
    return _summed(kernels().curvature, u, q, knee, _nowhere(u), 1)[:, 0]


def value(u: Tensor, knee: Tensor) -> Tensor:
    """The sums of the Huber functions of u, (B,)."""
    return _summed(kernels().value, u, u, knee, _nowhere(u), 1)[:, 0]


def inside(u: Tensor, knee: Tensor) -> Tensor:
    """How many responses of each column are inside their knees, (B, N)."""
    return _summed(kernels().inside, u, u, knee, _nowhere(u), u.shape[-1])


def mixed(u: Tensor, knee: Tensor, weights: Tensor) -> Tensor:
    """Sums of the weights of the filters that are inside their knees, for each phase, (B, P, C s^2).

    `weights` are (B or 1, K, C), the responses of a filter K s^2 side by side.
    """
    phases = u.shape[-1] // weights.shape[1]
    spread = weights.mT.repeat_interleave(phases, -1).flatten(1).T
    return _written(kernels().mixed, u, u, knee, spread, weights.shape[2] * phases)


def clip(u: Tensor, knee: Tensor) -> Tensor:
    """The responses u, cut to their knees, shape of u."""
    return _written(kernels().clip, u, u, knee, _nowhere(u))


def product(u: Tensor, q: Tensor, knee: Tensor) -> Tensor:
    """The responses q where those of u are inside their knees, else 0, shape of u."""
    return _written(kernels().product, u, q, knee, _nowhere(u))


def step(u: Tensor, q: Tensor, knee: Tensor, t: Tensor) -> Tensor:
    """The responses u + t q, t (B,), cut to their knees; u + t q takes the place of u."""
    return _written(kernels().step, u, q, knee, t[None])


def overlapped(patches: Tensor, size: tuple[int, int], cols: int, stride: int) -> Tensor:
    """Pictures (B, 1, H, W) of a size, sums of square patches (B, P, side^2) at places `stride` pixels apart.

    There are `cols` places in a row: what :func:`torch.nn.functional.fold` gives.
    """
    out = patches.new_zeros(len(patches), 1, *size)
    columns = (0,) * math.isqrt(patches.shape[-1])
    for i in range(len(patches)):
        kernels().overlap(patches[i].numpy(), cols, stride, columns, out[i, 0].numpy())
    return out


def _nowhere(u: Tensor) -> Tensor:
    """Steps (1, B) for loops that take none."""
    return u.new_zeros(1, len(u))


def _summed(loop: Loop, u: Tensor, q: Tensor, knee: Tensor, t: Tensor, count: int) -> Tensor:
    """Sums of a loop over the responses of each image, (B, count)."""
    total = torch.zeros(len(u), torch.get_num_threads(), count, dtype=torch.float64)
    for i in range(len(u)):
        _shared(loop, _arrays(i, u, q, knee, t), partial(_sums_of, total[i].numpy()))
    return total.sum(1).to(u)


def _written(loop: Loop, u: Tensor, q: Tensor, knee: Tensor, t: Tensor, width: int | None = None) -> Tensor:
    """What a loop writes for the responses of each image, (B, P, width), shape of u where no width is given."""
    out = torch.empty(*u.shape[:-1], u.shape[-1] if width is None else width, dtype=u.dtype)
    for i in range(len(u)):
        _shared(loop, _arrays(i, u, q, knee, t), partial(_rows_of, out[i].numpy()))
    return out


def _arrays(i: int, u: Tensor, q: Tensor, knee: Tensor, t: Tensor) -> list[Any]:
    """What loops take of image i: u, q, knee and steps."""
    steps = t.to(u)[:, i if t.shape[1] > 1 else 0].contiguous()
    return [u[i].numpy(), q[i].numpy(), knee[i if len(knee) > 1 else 0].numpy(), steps.numpy()]


def _shared(loop: Loop, arrays: list[Any], place: Callable[[int, slice], Any]) -> None:
    """Run a loop over the rows of arrays, shared among as many threads as torch uses; `place` is where each writes."""
    u, q, knee, t = arrays
    threads = max(1, min(torch.get_num_threads(), u.size // _SHARE))

    def work(part: int) -> None:
        rows = slice(part * len(u) // threads, (part + 1) * len(u) // threads)
        loop(u[rows], q[rows], knee[rows] if len(knee) > 1 else knee, t, place(part, rows))

    others = [_pool(threads).submit(work, part) for part in range(1, threads)] if threads > 1 else []
    work(0)
    for other in others:
        other.result()


def _sums_of(total: Any, part: int, rows: slice) -> Any:
    return total[part]


def _rows_of(out: Any, part: int, rows: slice) -> Any:
    return out[rows]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="icgn-passes")


if hasattr(os, "register_at_fork"):
    # A forked process has the pools of its parent without their threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
