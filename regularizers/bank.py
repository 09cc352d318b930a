"""The frozen functional of a filter bank and a head, whole or in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.functional import (
    BlackBoxFunctional,
    ConvexFunctional,
    HessianPart,
    Responses,
    colour_basis,
    density,
    per_image,
    tensor,
)
from icgn.regularizers.filter_map import FilterMap
from icgn.regularizers.filters import PictureOperator, extend, extend_adjoint, squared_norm_bound
from icgn.regularizers.frozen import PerImage
from icgn.regularizers.head import HeadFunctional
from icgn.regularizers.share import Share

# Elements handled at once by the passes of a head on a CPU: a few such strips fit the second-level cache.
_STRIP = 1 << 17
# Pixels on each side over which the size of the Hessian is smoothed.
REACH = 2
# Largest size in bytes of the responses of all images that are kept; for larger ones the size of a block. A solver
# keeps two sets of responses.
RESPONSES_LIMIT, _BLOCK_BYTES = 1 << 29, 1 << 25
# Slopes are estimated from bands of so many rows, one in so many, if there are at least so many bands: multiples of the
# strides of operators.
_BAND, _SPACING, _FEWEST = 16, 128, 4


@dataclass(frozen=True, eq=False)
class BankFunctional(HeadFunctional):
    """h(W x) with the filter bank W and the head h, at fixed noise levels, one per image or one for all.

    The linear map and the head are two parts: any head goes with any bank. Where no graph is recorded the head works
    on strips of positions that fit the cache of a CPU.
    """

    bank: FilterMap

    def __post_init__(self) -> None:
        operator = type(self.bank.operator)
        if self.head.planes is issubclass(operator, PictureOperator):
            wanted = "planes (FilterOperator)" if self.head.planes else "pictures (PictureOperator)"
            raise TypeError(f"bank: got the responses of a {operator.__name__}, expected {wanted} for its head")

    def linear(self, x: Tensor) -> Tensor:
        return self.bank.apply(x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self.bank.adjoint(tensor(z), shape)

    def weights(self) -> Tensor:
        return self.bank.weights()

    def squared_norm(self, weight: Tensor) -> Tensor:
        return squared_norm_bound(weight, self.bank.operator.border)

    def potential_grad(self, u: Responses) -> Tensor:
        return self._map(lambda h, v: h.grad(v), u)

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return self._map(lambda h, v, w: h.hvp(v, w), u, q)

    def prox_potential(self, v: Responses, s: Tensor) -> Responses:
        return self._map(lambda h, p: h.prox(p, s), v) if self.head.proximal else super().prox_potential(v, s)

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return tensor(u).addcmul_(tensor(q), per_image(t, tensor(u)))

    def advance_grad(self, u: Responses, q: Responses, t: Tensor, shape: torch.Size) -> tuple[Responses, Tensor]:
        if torch.is_grad_enabled() or not self.ready.compiled(tensor(u)):
            return super().advance_grad(u, q, t, shape)
        # Strip by strip: responses are moved and cut while they are in the cache.
        return u, self._back(lambda h, v, w: h.step(v, w, t), (u, q), shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        return self._back(lambda h, v: h.grad(v), (u,), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        return self._back(lambda h, v, w: h.hvp(v, w), (u, q), shape)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The spectrum of the filters weighted by the mean of the head's diagonal."""
        return self.bank.spectrum(self.slopes(u, shape), shape)

    def matrix_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """As :meth:`hessian_spectrum`, a matrix of the channels at each frequency, (B, C, C, H, W // 2 + 1)."""
        return self.bank.matrix_spectrum(self.slopes(u, shape), shape)

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        r"""Roughly the diagonal :math:`\sum_k D_k |w_k|^2` of each colour, smoothed over pixels that filters see."""
        return density(at_pixels(self.diagonal(u, shape), shape), REACH)

    def diagonal(self, u: Responses, shape: torch.Size) -> Tensor:
        """The head's diagonal, summed over the filters with their squared norms in each colour, (B, C, rows, cols)."""
        operator, weights = self.bank.operator, self.weights()
        norms = torch.einsum("dc,bkcij->bkdij", colour_basis(weights[0]), weights).square().sum((3, 4))
        parts = [h.mixed_diagonal(v, norms, lambda d: operator.mixed(d, norms)) for h, v in self.strips(u)]
        return operator.as_pictures(torch.cat(parts, operator.axis), shape)

    def slopes(self, u: Responses, shape: torch.Size) -> Tensor:
        """Sums over all positions of the head's diagonal for each filter, (B, K), for images of a shape."""
        operator = self.bank.operator
        if self.ready.compiled(tensor(u)):
            total = operator.sums(self.ready.diagonal_sum(tensor(u))[:, None])
        else:
            total = torch.stack([operator.sums(h.diagonal(v)) for h, v in self.strips(u)]).sum(0)
        outside = operator.outside(shape)
        if outside:
            # Planes hold zeros at positions outside the picture, which do not count.
            cell = slice(0, 1)
            at_zero = self.ready.rows(cell, cell).diagonal(torch.zeros_like(tensor(u)[:, :1]))
            total = total - outside / operator.stride**2 * operator.sums(at_zero)
        return total

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ConvexFunctional:
        rows = block_rows(self, shape, self.bank.operator.grid(shape)[0], limit)
        return self if rows is None else BlockFunctional(self, rows)

    def strips(self, *responses: Responses) -> Iterator[tuple[Any, ...]]:
        for at, *parts in self._cut(*responses):
            yield self.ready.rows(at, at), *parts

    def _cut(self, *responses: Responses) -> Iterator[tuple[Any, ...]]:
        """Positions that fit the cache of a CPU and do not depend on others, with their part of the responses."""
        first, axis = tensor(responses[0]), self.bank.operator.axis
        size = step = first.shape[axis]
        in_strips = first.device.type == "cpu" and not self.head.halo and not self.ready.compiled(first)
        if in_strips and not torch.is_grad_enabled():
            step = max(1, _STRIP * size // first.numel())
        for start in range(0, size, step):
            length = min(step, size - start)
            yield slice(start, start + length), *(tensor(u).narrow(axis, start, length) for u in responses)

    def _map(self, f: Callable[..., Tensor], *responses: Responses) -> Tensor:
        """Responses f(head, responses) of a pointwise f."""
        if torch.is_grad_enabled():
            return f(self.ready, *responses)
        out = torch.empty_like(tensor(responses[0]))
        for at, target, *parts in self._cut(out, *responses):
            target.copy_(f(self.ready.rows(at, at), *parts))
        return out

    def _back(self, f: Callable[..., Tensor], responses: tuple[Responses, ...], shape: torch.Size) -> Tensor:
        """The images W^T f(head, responses) of a pointwise f; with planes no set of responses is made."""
        if torch.is_grad_enabled() or not self.head.planes:
            return self.linear_adjoint(self._map(f, *responses), shape)
        planes = tuple(tensor(u) for u in responses)
        return self.bank.adjoint_of(lambda at, *parts: f(self.ready.rows(at, at), *parts), planes, shape)


@dataclass(frozen=True, eq=False)
class BlockFunctional(PerImage, BlackBoxFunctional):
    r"""The functional of a filter bank without its responses: :math:`U = I`, and W x only exists block by block.

    The picture is extended at its border as a whole; a block of response rows then needs its own rows, those of the
    head's halo and d - 1 more, and no border. Values are those of the functional that keeps its responses, to rounding.
    A line search evaluates the filters again at each trial: about twice the work, for a memory that does not depend on
    the number of filters.

    Parameters
    ----------
    whole : BankFunctional
        the functional that keeps responses.
    rows : int
        response rows per block; a multiple of the operator's stride if the head differs from place to place.
    share : Share, optional
        where several processes have a band of the rows each: `whole` has the head of the own band then.
    """

    whole: BankFunctional
    rows: int
    share: Share | None = None

    def fn(self, x: Tensor) -> Tensor:
        return self._total([f.fn(b) for _, f, b in self._blocks(x)])

    def grad(self, x: Tensor) -> Tensor:
        return self._assemble(lambda f, b: f.grad(b), x)

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._assemble(lambda f, b, w: f.hvp(b, w), x, v)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self._total([f.slope(f.linear(b), f.linear(w), t) for _, f, b, w in self._blocks(tensor(u), tensor(q))])

    def sampled_slopes(self, u: Responses, q: Responses, t: Tensor) -> Tensor | None:
        """Slopes of bands of rows, evenly spread, times the share of all rows that they are; None for few rows."""
        rows = self.whole.bank.operator.grid(tensor(u).shape)[0]
        if self.whole.head.halo or rows < _FEWEST * _SPACING:
            return None
        bands = [slice(top, top + _BAND) for top in range(_SPACING // 2, rows - _BAND + 1, _SPACING)]
        own = self._own(rows)
        mine = [band for band in bands if own.start <= band.start and band.stop <= own.stop]
        found = [
            f.slopes_along(f.linear(b), f.linear(w), t) for _, f, b, w in self._blocks(tensor(u), tensor(q), parts=mine)
        ]
        return self._total(found or [torch.zeros_like(t)]) * (rows / (_BAND * len(bands)))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        parts = [f.curvature(f.linear(b), f.linear(w)) for _, f, b, w in self._blocks(tensor(u), tensor(q))]
        return self._total(parts)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        return self.whole.bank.spectrum(self._slopes(u), shape)

    def matrix_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """See :meth:`BankFunctional.matrix_spectrum`."""
        return self.whole.bank.matrix_spectrum(self._slopes(u), shape)

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        if self.whole.head.halo:
            return None
        rows = [f.diagonal(f.linear(b), b.shape) for _, f, b in self._blocks(tensor(u))]
        return density(at_pixels(self._whole_rows(rows, shape), shape), REACH)

    def hessian_parts(self, u: Responses, shape: torch.Size) -> tuple[HessianPart, ...] | None:
        """Spectrum and density, of the same responses."""
        if self.whole.head.halo:
            return super().hessian_parts(u, shape)
        found = []
        for _, f, b in self._blocks(tensor(u)):
            v = f.linear(b)
            found.append((f.slopes(v, b.shape), f.diagonal(v, b.shape)))
        spectrum = self.whole.bank.spectrum(self._total([slopes for slopes, _ in found]), shape)
        sizes = self._whole_rows([size for _, size in found], shape)
        return (HessianPart(spectrum, density(at_pixels(sizes, shape), REACH)),)

    def lipschitz(self) -> Tensor:
        return self.whole.lipschitz()

    def strong_convexity(self) -> Tensor:
        return self.whole.strong_convexity()

    def _slopes(self, u: Responses) -> Tensor:
        return self._total([f.slopes(f.linear(b), b.shape) for _, f, b in self._blocks(tensor(u))])

    def _own(self, count: int) -> slice:
        """The response rows of this process, of so many."""
        return slice(0, count) if self.share is None else self.share.rows(count)

    def _total(self, parts: list[Tensor]) -> Tensor:
        """The sum over blocks, and over processes."""
        total = _total(parts)
        return total if self.share is None else self.share.sum(total)

    def _whole_rows(self, parts: list[Tensor], shape: torch.Size) -> Tensor:
        """Pictures (B, C, rows, cols) of the rows of all blocks, and of all processes."""
        own = torch.cat(parts, 2)
        return own if self.share is None else self.share.joined(own, self.whole.bank.operator.grid(shape)[0])

    def _blocks(self, *images: Tensor, parts: Sequence[slice] | None = None) -> Iterator[tuple[Any, ...]]:
        """Blocks: their rows of the extended pictures, their functional, and their part of each of the pictures.

        `parts` are the response rows of each block, by default all of them.
        """
        linear, head = self.whole.bank, self.whole.head
        operator, shape = linear.operator, images[0].shape
        inner = replace(linear, operator=replace(operator, border="valid"))
        extended = [extend(x, operator.margin, operator.border) for x in images]
        lost, count = operator.weight.shape[-1] - 1, operator.grid(shape)[0]
        band = self._own(count)
        if parts is None:
            parts = [slice(top, min(top + self.rows, band.stop)) for top in range(band.start, band.stop, self.rows)]
        for part in parts:
            seen = slice(max(0, part.start - head.halo), min(count, part.stop + head.halo))
            inside, around = (slice(rows.start - band.start, rows.stop - band.start) for rows in (part, seen))
            own = head.rows(operator.places(inside, shape), operator.places(around, shape))
            rows = slice(seen.start, seen.stop + lost)
            yield rows, BankFunctional(own, inner), *(x[..., rows, :] for x in extended)

    def _assemble(self, f: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """The sum of the pictures f of the blocks, each where it belongs, with the border folded back."""
        operator, x = self.whole.bank.operator, images[0]
        m = operator.margin
        total = x.new_zeros(*x.shape[:-2], x.shape[-2] + 2 * m, x.shape[-1] + 2 * m)
        for rows, *block in self._blocks(*images):
            total[..., rows, :] += f(*block)
        total = total if self.share is None else self.share.sum(total)
        return extend_adjoint(total, m, operator.border)


def block_rows(whole: BankFunctional, shape: torch.Size, rows: int, limit: int | None) -> int | None:
    """The rows of a block for so many rows of responses, or None where all of them are within the limit.

    Parameters
    ----------
    whole : BankFunctional
        the functional.
    shape : torch.Size
        of the images, (B, C, H, W).
    rows : int
        rows of responses to be held.
    limit : int or None
        bytes, as for :meth:`ConvexFunctional.blockwise`.
    """
    limit = RESPONSES_LIMIT if limit is None else limit
    operator = whole.bank.operator
    per_row = shape[0] * operator.grid(shape)[1] * len(operator.weight) * operator.weight.element_size()
    if rows * per_row <= limit:
        return None
    # A multiple of the stride: every block then has whole polyphase cells, as the picture has.
    step = operator.stride
    return max(step, min(limit, _BLOCK_BYTES) // per_row // step * step)


def at_pixels(sizes: Tensor, shape: torch.Size) -> Tensor:
    """Sizes at responses (B, 1, rows, cols) as those at the pixels of images."""
    # Where windows inside the picture count only, those at its border stand for what is beyond.
    down, across = ((full - own) // 2 for full, own in zip(shape[-2:], sizes.shape[-2:], strict=True))
    return F.pad(sizes, (across, across, down, down), mode="replicate") if down or across else sizes


def _total(parts: list[Tensor]) -> Tensor:
    # Sums of millions of terms: float64 keeps what float32 blocks have.
    return torch.stack(parts).double().sum(0).to(parts[0])
