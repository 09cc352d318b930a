"""How an objective changes with the value of a block of pixels, for many blocks at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.data import DataFunctional
from icgn.functionals.functional import ConvexFunctional, per_image
from icgn.functionals.scaled import ScaledFunctional
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.bank import BlockFunctional
from icgn.solvers.objective import Objective
from icgn.uncertainty.tiling import Tiles, cell, reach, tiled

Values = Callable[[Tensor], Tensor]
Where = tuple[int, slice, slice]
"""Blocks: their channel, and every so many of their rows and columns."""

# Numbers of the pictures that are measured at once.
_BATCH = 1 << 20


def changes(
    objective: Objective, x: Tensor, mean: Tensor, side: int, *, keep_detail: bool
) -> Iterator[tuple[Where, Values]]:
    """For groups of blocks, where they are, and F of the picture with m + t in a block, less F of the picture.

    Parameters
    ----------
    objective : Objective
        F, of one picture.
    x : Tensor
        the picture, (1, C, H, W).
    mean : Tensor
        m, the means of the blocks, (1, C, rows, columns).
    side : int
        of a block.
    keep_detail : bool
        t is added to the pixels of the block, in place of making all m + t.

    Yields
    ------
    tuple
        the blocks, and a function of one t for each of them, row by row, (n,), float64.
    """
    start = x if keep_detail else pixels(mean, side, x.shape)
    regularizer, data = _kept(objective.regularizer), objective.data
    local = reach(regularizer)
    quadratic = reach(data) is None and Capability.QUADRATIC in data.capabilities
    if local is None or (reach(data) is None and not quadratic):
        yield from _one_by_one(objective, x, start, mean.shape, side)
        return
    terms: list[tuple[ConvexFunctional, Tensor]] = [(regularizer, objective.weight)]
    if not quadratic:
        terms.append((data, objective.data_weight))
    whole = SumFunctional(tuple(f for f, _ in terms), tuple(w for _, w in terms))
    parabolas = _parabolas(data, x, start, mean.shape, side) if quadratic else None
    grid = mean.shape[-2:]
    stride = cell(whole)
    span = side + 2 * local + stride - 1
    multiple = math.lcm(side, stride)
    tile = multiple * math.ceil(span / multiple)
    step = tile // side
    for channel in range(x.shape[1]):
        for top in range(min(step, grid[0])):
            for left in range(min(step, grid[1])):
                where = (channel, slice(top, None, step), slice(left, None, step))
                count = tuple(len(range(first, n, step)) for first, n in ((top, grid[0]), (left, grid[1])))
                origin = tuple((first * side - local) // stride * stride for first in (top, left))
                group = _Group(Tiles(tile, origin, count), where, side)  # type: ignore[arg-type]
                values = group.values(whole, x, start, mean.shape)
                if parabolas is not None:
                    values = _with_parabola(values, parabolas[:, channel][:, where[1], where[2]], objective.data_weight)
                yield where, values


@dataclass(frozen=True)
class _Group:
    """Blocks that change different terms, each inside its tile."""

    tiles: Tiles
    where: Where
    side: int

    def values(self, functional: SumFunctional, x: Tensor, start: Tensor, grid: torch.Size) -> Values:
        """How a local functional changes with steps of the blocks from a start, a picture."""
        chosen = x.new_zeros(grid)
        chosen[0][self.where] = 1
        direction = pixels(chosen, self.side, x.shape)
        begun = torch.where(direction > 0, start, x)
        cut = tiled(functional, self.tiles, x.shape)
        before = cut.functional.potential(cut.points(functional.linear(x))).double()
        u, q = cut.points(functional.linear(begun)), cut.directions(functional.linear(direction))

        def change(t: Tensor) -> Tensor:
            return cut.functional.potential(cut.functional.move(u, q, t)).double() - before

        return change


def pixels(values: Tensor, side: int, shape: torch.Size) -> Tensor:
    """Values of blocks (1, C, rows, columns) at the pixels of pictures of a shape."""
    wide = values.repeat_interleave(side, -2).repeat_interleave(side, -1)
    return wide[..., : shape[-2], : shape[-1]]


def _kept(functional: ConvexFunctional) -> ConvexFunctional:
    """The functional that keeps its responses, also where they are many."""
    if isinstance(functional, BlockFunctional) and functional.share is None:
        return functional.whole
    if isinstance(functional, SumFunctional):
        return SumFunctional(tuple(_kept(term) for term in functional.terms), functional.weights)
    if isinstance(functional, ScaledFunctional):
        return ScaledFunctional(_kept(functional.inner), functional.scale, functional.low, functional.channels)
    return functional


def _with_parabola(values: Values, parabola: Tensor, weight: Tensor) -> Values:
    """The values with c0 + c1 t + c2 t^2 times a weight added."""
    c0, c1, c2 = (float(weight) * c.flatten() for c in parabola)
    return lambda t: values(t) + c0 + c1 * t + c2 * t.square()


def _parabolas(data: DataFunctional, x: Tensor, start: Tensor, grid: torch.Size, side: int) -> Tensor:
    """c0, c1, c2 of how a quadratic data term changes with each block, float64 (3, C, rows, columns)."""
    channels, rows, columns = grid[1:]
    slope = data.grad(x)
    found = torch.zeros(3, channels * rows * columns, dtype=torch.float64, device=x.device)
    batch = max(1, _BATCH // x.numel())
    for first in range(0, found.shape[1], batch):
        places = torch.arange(first, min(first + batch, found.shape[1]), device=x.device)
        chosen = torch.zeros(len(places), channels * rows * columns, dtype=x.dtype, device=x.device)
        chosen[torch.arange(len(places)), places] = 1
        ones = pixels(chosen.reshape(-1, *grid[1:]), side, x.shape)
        flattened = ones * (start - x)
        own = data.select(torch.zeros_like(places))
        # The curvature of a quadratic function is the same at all points: q stands for one.
        q = own.linear(ones)
        along = own.curvature(q, q).double()
        found[1, places] = (slope * ones).flatten(1).sum(1).double()
        found[2, places] = along / 2
        if start is not x:
            r = own.linear(flattened)
            both = own.curvature(q, own.move(q, r, torch.ones(len(places)).to(x))).double()
            across = own.curvature(q, r).double()
            found[0, places] = (slope * flattened).flatten(1).sum(1).double() + across / 2
            found[1, places] += (both - along - across) / 2
    return found.reshape(3, channels, rows, columns)


def _one_by_one(
    objective: Objective, x: Tensor, start: Tensor, grid: torch.Size, side: int
) -> Iterator[tuple[Where, Values]]:
    """Every block by pictures as a whole, in batches."""
    batch = max(1, _BATCH // (4 * x.numel()))
    before = objective.fn(x).double()
    for channel in range(x.shape[1]):
        where = (channel, slice(None), slice(None))

        def change(t: Tensor, channel: int = channel) -> Tensor:
            parts = []
            for first in range(0, len(t), batch):
                places = torch.arange(first, min(first + batch, len(t)), device=x.device)
                chosen = torch.zeros(len(places), *grid[1:], dtype=x.dtype, device=x.device)
                chosen[:, channel].flatten(1)[torch.arange(len(places)), places] = 1
                ones = pixels(chosen, side, x.shape)
                pictures = torch.where(ones > 0, start + per_image(t[places], x), x)
                parts.append(objective.select(torch.zeros_like(places)).fn(pictures).double() - before)
            return torch.cat(parts)

        yield where, change
