"""Ridge regularizers of large pictures, evaluated in blocks of rows: memory of a few pictures, whatever the filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from icgn.functionals.functional import BlackBoxFunctional, Responses
from icgn.regularizers.filters import extend, extend_adjoint

if TYPE_CHECKING:
    from icgn.regularizers.ridge_functional import RidgeFunctional


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
        response rows per block; a multiple of the operator's stride if `whole` has a mask.
    """

    whole: RidgeFunctional
    rows: int

    def fn(self, x: Tensor) -> Tensor:
        return self._total([f.fn(b) for f, b in self._blocks(x)])

    def grad(self, x: Tensor) -> Tensor:
        return self._assemble(x, [x], lambda f, b: f.grad(b))

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._assemble(x, [x, v], lambda f, b, w: f.hvp(b, w))

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self._total([f.slope(f.linear(b), f.linear(w), t) for f, b, w in self._blocks(_image(u), _image(q))])

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self._total([f.curvature(f.linear(b), f.linear(w)) for f, b, w in self._blocks(_image(u), _image(q))])

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        return self.whole.spectrum_of(self.slopes(_image(u), shape), shape)

    def slopes(self, u: Tensor, shape: torch.Size) -> Tensor:
        """As :meth:`RidgeFunctional.slopes`; responses are the images themselves."""
        return self._total([f.slopes(f.linear(b), b.shape) for f, b in self._blocks(u)])

    def lipschitz(self) -> Tensor:
        return self.whole.lipschitz()

    def strong_convexity(self) -> Tensor:
        return self.whole.strong_convexity()

    def select(self, index: Tensor) -> BlockRidgeFunctional:
        return replace(self, whole=self.whole.select(index))

    def to(self, dtype: torch.dtype) -> BlockRidgeFunctional:
        return replace(self, whole=self.whole.to(dtype))

    def _inner(self, top: int, shape: torch.Size) -> RidgeFunctional:
        """The functional of the block from row `top` on of images of a shape; its border is part of it."""
        operator = replace(self.whole.operator, border="valid")
        mask = self.whole.mask
        if mask is not None:
            across = math.ceil(self.whole.operator.grid(shape)[1] / operator.stride)
            mask = mask[:, top // operator.stride * across : (top + self.rows) // operator.stride * across]
        return replace(self.whole, operator=operator, mask=mask)

    def _blocks(self, *images: Tensor) -> Iterator[tuple[Any, ...]]:
        """The functional of each block, and its part of each of the images."""
        operator = self.whole.operator
        extended = [extend(x, operator.margin, operator.border) for x in images]
        lost = operator.weight.shape[-1] - 1
        for top in range(0, extended[0].shape[-2] - lost, self.rows):
            yield self._inner(top, images[0].shape), *(e[..., top : top + self.rows + lost, :] for e in extended)

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
