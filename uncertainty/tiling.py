"""Functionals of tiles: what a block of pixels changes in the value of a functional, for many blocks at once.

A pixel changes the terms of a local functional in a neighbourhood only. Blocks that are far apart change different
terms, so that one set of responses holds what all of them change: it is cut into tiles, which take the place of the
images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.data import GaussianData, WeightedGaussianData
from icgn.functionals.functional import ConvexFunctional, Responses, tensor
from icgn.functionals.physics import is_identity
from icgn.functionals.scaled import ScaledFunctional
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.ridge_head import RidgeHead
from icgn.regularizers.tv import TotalVariationFunctional


@dataclass(frozen=True)
class Tiles:
    """Square tiles side by side, the first one beginning at a pixel that may be outside the picture.

    Attributes
    ----------
    side : int
        of a tile.
    origin : (int, int)
        row and column of the first pixel of the first tile.
    count : (int, int)
        tiles along the rows and columns.
    """

    side: int
    origin: tuple[int, int]
    count: tuple[int, int]

    def cut(self, pictures: Tensor, *, cell: int = 1, outside: float = 0.0) -> Tensor:
        """Pictures (1, C, h, w) as tiles (n, C, side / cell, side / cell), row by row.

        Parameters
        ----------
        pictures : Tensor
            one number for each pixel, or for each cell of pixels.
        cell : int
            side of a cell in pixels, a divisor of the side and of the origin.
        outside : float
            what stands in the tiles beyond the picture.
        """
        side, edges = self.side // cell, []
        for origin, count, size in zip(self.origin, self.count, pictures.shape[-2:], strict=True):
            first = origin // cell
            edges += [(-first, first + side * count - size)]
        (top, bottom), (left, right) = edges
        whole = F.pad(pictures, (left, right, top, bottom), value=outside)
        parts = whole[0].unflatten(-1, (-1, side)).unflatten(-3, (-1, side))
        return parts.permute(1, 3, 0, 2, 4).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Tiled:
    """A functional whose images are tiles, and how responses of a picture become theirs.

    Attributes
    ----------
    functional : ConvexFunctional
        of responses of tiles, summed over each.
    points, directions : callable
        responses of a picture, or of a change of it, cut into tiles.
    """

    functional: ConvexFunctional
    points: Callable[[Responses], Responses]
    directions: Callable[[Responses], Responses]


@singledispatch
def reach(functional: ConvexFunctional) -> int | None:
    """How many pixels away a pixel changes terms of a functional; None where it is all, or not known."""
    return None


@singledispatch
def cell(functional: ConvexFunctional) -> int:
    """Side of the cells of pixels whose responses stand together."""
    return 1


@singledispatch
def tiled(functional: ConvexFunctional, tiles: Tiles, shape: torch.Size) -> Tiled:
    """The functional of tiles, of one that has a :func:`reach`.

    Parameters
    ----------
    functional : ConvexFunctional
        of one picture.
    tiles : Tiles
        sides and origins are multiples of its cells.
    shape : torch.Size
        of the picture, (1, C, H, W).
    """
    raise NotImplementedError(f"{type(functional).__name__} has no tiles")


@reach.register
def _(functional: GaussianData) -> int | None:
    pointwise = is_identity(functional.physics) or isinstance(functional.physics, deepinv.physics.Inpainting)
    return 0 if pointwise and functional.y.ndim == 4 else None


@tiled.register
def _(functional: GaussianData, tiles: Tiles, shape: torch.Size) -> Tiled:
    cut = replace(functional, y=tiles.cut(functional.y))
    if isinstance(cut, WeightedGaussianData):
        weights = functional.weights.expand(functional.y.shape)  # type: ignore[attr-defined]
        cut = replace(cut, weights=tiles.cut(weights, outside=1.0))
    return _same(cut, lambda u: tiles.cut(tensor(u)))


@reach.register
def _(functional: TotalVariationFunctional) -> int | None:
    return 1


@tiled.register
def _(functional: TotalVariationFunctional, tiles: Tiles, shape: torch.Size) -> Tiled:
    return _same(functional, lambda u: tiles.cut(tensor(u).flatten(1, 2)).unflatten(1, (-1, 2)))


@reach.register
def _(functional: BankFunctional) -> int | None:
    if not isinstance(functional.head, RidgeHead):
        return None
    operator = functional.bank.operator
    # Responses of whole windows begin at the first pixel of their window.
    return operator.weight.shape[-1] // 2 if operator.margin else operator.weight.shape[-1] - 1


@cell.register
def _(functional: BankFunctional) -> int:
    return functional.bank.operator.stride


@tiled.register
def _(functional: BankFunctional, tiles: Tiles, shape: torch.Size) -> Tiled:
    operator = functional.bank.operator
    grid = tuple(math.ceil(n / operator.stride) for n in operator.grid(shape))
    head = functional.head.prepared()
    assert isinstance(head, RidgeHead)

    def cut(planes: Tensor, outside: float = 0.0) -> Tensor:
        cells = planes.unflatten(1, grid).permute(0, 3, 1, 2)
        return tiles.cut(cells, cell=operator.stride, outside=outside).flatten(2).mT.contiguous()

    knee = head.knee
    if knee.shape[2] > 1:
        knee = torch.stack([cut(part, outside=1.0) for part in knee.unbind(1)], 1)
    return _same(replace(functional, head=replace(head, knee=knee)), lambda u: cut(tensor(u)))


@reach.register
def _(functional: ScaledFunctional) -> int | None:
    return reach(functional.inner)


@cell.register
def _(functional: ScaledFunctional) -> int:
    return cell(functional.inner)


@tiled.register
def _(functional: ScaledFunctional, tiles: Tiles, shape: torch.Size) -> Tiled:
    inner = tiled(functional.inner, tiles, functional.mapped(shape))
    return Tiled(
        inner.functional,
        lambda u: inner.points(functional.into(u)),
        lambda q: inner.directions(functional.along(q)),
    )


@reach.register
def _(functional: SumFunctional) -> int | None:
    found = [reach(term) for term in functional.terms]
    known = [r for r in found if r is not None]
    return max(known) if len(known) == len(found) else None


@cell.register
def _(functional: SumFunctional) -> int:
    return math.lcm(*(cell(term) for term in functional.terms))


@tiled.register
def _(functional: SumFunctional, tiles: Tiles, shape: torch.Size) -> Tiled:
    parts = [tiled(term, tiles, shape) for term in functional.terms]
    weights = tuple(w.reshape(-1)[0] for w in functional.weights)
    return Tiled(
        SumFunctional(tuple(p.functional for p in parts), weights),
        lambda u: tuple(p.points(v) for p, v in zip(parts, u, strict=True)),
        lambda q: tuple(p.directions(v) for p, v in zip(parts, q, strict=True)),
    )


def _same(functional: ConvexFunctional, cut: Callable[[Responses], Responses]) -> Tiled:
    return Tiled(functional, cut, cut)
