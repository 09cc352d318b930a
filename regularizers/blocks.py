"""Ridge regularizers of large pictures, evaluated in blocks of rows: memory of a few pictures, whatever the filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.regularizers.filters import extend, extend_adjoint
from icgn.solvers.functional import BlackBoxFunctional, Responses

if TYPE_CHECKING:
    from icgn.regularizers.ridge import RidgeFunctional


@dataclass(frozen=True, eq=False)
class BlockRidgeFunctional(BlackBoxFunctional):
    r"""The functional of a ridge network without its responses: :math:`U = I`, and W x only exists block by block.

    The picture is extended at its border as a whole; a block of response rows then needs its own rows and d - 1 more,
    and no border. Values are those of the functional that keeps its responses, to rounding. A line search evaluates
    the filters again at each trial: about twice the work, for a memory that does not depend on the number of filters.

    Parameters
    ----------
    whole : RidgeFunctional
        the functional that keeps responses.
    rows : int
        response rows per block.
    """

    whole: RidgeFunctional
    rows: int

    def fn(self, x: Tensor) -> Tensor:
        return self._total([self._inner.fn(b) for (b,) in self._blocks(x)])

    def grad(self, x: Tensor) -> Tensor:
        return self._assemble(x, [x], lambda b: self._inner.grad(b))

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._assemble(x, [x, v], lambda b, w: self._inner.hvp(b, w))

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        f = self._inner
        return self._total([f.slope(f.linear(b), f.linear(w), t) for b, w in self._blocks(_image(u), _image(q))])

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        f = self._inner
        return self._total([f.curvature(f.linear(b), f.linear(w)) for b, w in self._blocks(_image(u), _image(q))])

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        f = self._inner
        slopes = self._total([f.slopes(f.linear(b), b.shape) for (b,) in self._blocks(_image(u))])
        return self.whole.spectrum_of(slopes, shape)

    def lipschitz(self) -> Tensor:
        return self.whole.lipschitz()

    def strong_convexity(self) -> Tensor:
        return self.whole.strong_convexity()

    def select(self, index: Tensor) -> BlockRidgeFunctional:
        return replace(self, whole=self.whole.select(index))

    def to(self, dtype: torch.dtype) -> BlockRidgeFunctional:
        return replace(self, whole=self.whole.to(dtype))

    @property
    def _inner(self) -> RidgeFunctional:
        """The functional of a block, whose border is part of it."""
        return replace(self.whole, operator=replace(self.whole.operator, border="valid"))

    def _blocks(self, *images: Tensor) -> Iterator[tuple[Tensor, ...]]:
        operator = self.whole.operator
        extended = [extend(x, operator.margin, operator.border) for x in images]
        lost = operator.weight.shape[-1] - 1
        for top in range(0, extended[0].shape[-2] - lost, self.rows):
            yield tuple(e[..., top : top + self.rows + lost, :] for e in extended)

    def _assemble(self, x: Tensor, images: list[Tensor], f: Callable[..., Tensor]) -> Tensor:
        """The sum of f of the blocks, each where it belongs, with the border folded back."""
        operator = self.whole.operator
        m = operator.margin
        total = x.new_zeros(*x.shape[:-2], x.shape[-2] + 2 * m, x.shape[-1] + 2 * m)
        for i, blocks in enumerate(self._blocks(*images)):
            part = f(*blocks)
            total[..., i * self.rows : i * self.rows + part.shape[-2], :] += part
        return extend_adjoint(total, m, operator.border)

    def _total(self, parts: list[Tensor]) -> Tensor:
        # Sums of millions of terms: float64 keeps what float32 blocks have.
        return torch.stack(parts).double().sum(0).to(parts[0])


def _image(u: Responses) -> Tensor:
    assert isinstance(u, Tensor)
    return u
