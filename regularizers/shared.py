r"""One picture restored by several processes, each of which holds the responses of a band of rows.

    import torch.distributed as dist
    from icgn.regularizers import SharedRegularizer

    dist.init_process_group("gloo")                        # torchrun --nproc-per-node 4 script.py
    shared = SharedRegularizer(icgn.load_pretrained("conditional-gray"))
    solution = icgn.denoise(y, sigma, regularizer=shared)  # the whole picture and its certificate in every process

Responses and masks, of which there are dozens of numbers per pixel, are shared; pictures, of which there are a few, are
in every process. A band takes the rows of the picture that its filters see from the whole picture, so that nothing is
cut: values, slopes and gradients are sums over the bands, and those of one process to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, density, tensor
from icgn.regularizers.bank import REACH, BankFunctional, BlockFunctional, at_pixels, block_rows
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.conditional import ConditionalICGN
from icgn.regularizers.filters import extend, extend_adjoint
from icgn.regularizers.frozen import PerImage
from icgn.regularizers.network import BankRegularizer
from icgn.regularizers.passes import TRIALS
from icgn.regularizers.share import Share


class SharedRegularizer(ConvexRegularizer):
    r"""A network of one filter bank for pictures that several processes restore together.

    All processes call the same methods with the same pictures, one after the other, on machines of one kind; each gets
    the whole result. With the bands b of rows, :math:`W_b` the filters with responses there,

    .. math::

        R(x; \sigma) = \sum_b h_b(W_b x), \qquad \nabla R(x; \sigma) = \sum_b W_b^T \nabla h_b(W_b x).

    A condition is computed band by band, from the rows that the network of masks sees: each process has its own rows of
    it, ``Solution.condition`` too.

    Parameters
    ----------
    regularizer : Network
        R, of one filter bank without coupling of positions: :class:`RidgeICGN`, :class:`ConditionalICGN`,
        :class:`SoftmaxICGN` and the like.
    group : torch.distributed.ProcessGroup, optional
        the processes, default all that were launched.

    Raises
    ------
    TypeError
        for another regularizer.
    RuntimeError
        if ``torch.distributed`` has not been initialized.
    """

    def __init__(self, regularizer: ConvexRegularizer, *, group: Any = None) -> None:
        super().__init__()
        levels = regularizer.sigma_range
        if not isinstance(regularizer, BankRegularizer | ConditionalICGN) or levels is None:
            raise TypeError(f"regularizer: got {type(regularizer).__name__}, expected a network of one filter bank")
        functional = regularizer.at(levels[1])
        if type(functional) is not BankFunctional or functional.head.halo:
            raise TypeError(f"regularizer: {type(regularizer).__name__} couples responses of different places")
        self.regularizer = regularizer
        self.channels, self.min_size = regularizer.channels, regularizer.min_size
        self.sigma_range, self.looseness = levels, regularizer.looseness
        strides = [functional.bank.operator.stride]
        if isinstance(regularizer, ConditionalICGN):
            strides.append(regularizer.network.stride)
        self._share = Share.among(group, math.lcm(*strides))

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> SharedFunctional:
        r"""The functional :math:`R(\cdot; \sigma)`, its responses shared.

        Parameters
        ----------
        sigma : float or Tensor
            noise level, one or one per image.
        condition : Tensor, optional
            the rows of this process, as :meth:`condition` gives them.
        """
        return SharedFunctional(self.regularizer.at(sigma, condition), self._share)

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The rows of this process of the condition (B, K, rows, W) that a solution leads to.

        Parameters
        ----------
        x, sigma, residual
            of the whole pictures, as for :meth:`ConditionalICGN.condition`.
        """
        if not isinstance(self.regularizer, ConditionalICGN):
            return super().condition(x, sigma, residual)
        return self.regularizer.condition(x, sigma, residual, rows=self._share.rows(x.shape[-2]))

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        """Raise ``ValueError`` unless a condition is that of this process for images of the size and number of x."""
        self.regularizer.check_condition(condition, x[..., self._share.rows(x.shape[-2]), :])

    def check_image(self, x: Tensor) -> None:
        """As that of the network; a picture also needs rows for every process."""
        self.regularizer.check_image(x)
        fewest = self._share.fewest() + self.min_size - 1
        if x.shape[-2] < fewest:
            raise ValueError(f"x: got {x.shape[-2]} rows for {self._share.count} processes, expected at least {fewest}")


@dataclass(frozen=True, eq=False)
class SharedFunctional(PerImage, ConvexFunctional):
    """The functional of a :class:`SharedRegularizer`: responses are those of the rows of this process.

    `whole` is the functional of whole pictures, but for a mask, which is that of the own rows. Inner products of
    responses are sums over the processes, which methods that walk over responses (primal-dual ones) do not know: the
    proximal map of the potential is not offered.
    """

    whole: BankFunctional
    share: Share

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.whole.capabilities - {Capability.POTENTIAL_PROX}

    def linear(self, x: Tensor) -> Responses:
        operator = self.whole.bank.operator
        return self._own.linear(extend(x, operator.margin, operator.border)[..., self._rows(x.shape), :])

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self._assembled(shape, lambda part: self._own.linear_adjoint(z, part))

    def potential(self, u: Responses) -> Tensor:
        return self.share.sum(self._own.potential(u))

    def potential_grad(self, u: Responses) -> Responses:
        return self._own.potential_grad(u)

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return self._own.potential_hvp(u, q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self.share.sum(self._own.slope(u, q, t))

    def slopes_along(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self.share.sum(self._own.slopes_along(u, q, t))

    def trials(self, u: Responses) -> int:
        """As for whole pictures, so that the same steps are tried."""
        own = tensor(u)
        numbers = self.share.sum(torch.tensor(own[0].numel(), device=own.device))
        return TRIALS if self._own.ready.compiled(own.new_zeros(1, 1).expand(1, int(numbers))) else 1

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self.share.sum(self._own.curvature(u, q))

    def advance(self, u: Responses, q: Responses, t: Tensor) -> Responses:
        return self._own.advance(u, q, t)

    def advance_grad(self, u: Responses, q: Responses, t: Tensor, shape: torch.Size) -> tuple[Responses, Tensor]:
        moved, grad = self._own.advance_grad(u, q, t, self._extended(shape))
        return moved, self._assembled(shape, lambda part: grad)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        return self._assembled(shape, lambda part: self._own.grad_from(u, part))

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        return self._assembled(shape, lambda part: self._own.hvp_from(u, q, part))

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        slopes = self.share.sum(self._own.slopes(u, self._extended(shape)))
        return self.whole.bank.spectrum(slopes, shape)

    def hessian_density(self, u: Responses, shape: torch.Size) -> Tensor | None:
        diagonal = self._own.diagonal(u, self._extended(shape))
        sizes = self.share.joined(diagonal, self.whole.bank.operator.grid(shape)[0])
        return density(at_pixels(sizes, shape), REACH)

    def lipschitz(self) -> Tensor:
        return self.whole.lipschitz()

    def strong_convexity(self) -> Tensor:
        return self.whole.strong_convexity()

    def linear_norm(self) -> Tensor:
        return self.whole.linear_norm()

    def potential_lipschitz(self) -> Tensor:
        return self.whole.potential_lipschitz()

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> ConvexFunctional:
        """In blocks of the own rows where the responses of any process would not fit."""
        count = self.whole.bank.operator.grid(shape)[0]
        largest = max(len(range(count)[replace(self.share, rank=k).rows(count)]) for k in range(self.share.count))
        rows = block_rows(self.whole, shape, largest, limit)
        return self if rows is None else BlockFunctional(self.whole, rows, self.share)

    @cached_property
    def _own(self) -> BankFunctional:
        """The functional of the rows of extended pictures that the own responses see."""
        bank = self.whole.bank
        return replace(self.whole, bank=replace(bank, operator=replace(bank.operator, border="valid")))

    def _rows(self, shape: torch.Size) -> slice:
        """These rows, of extended pictures of a shape."""
        operator = self.whole.bank.operator
        own = self.share.rows(operator.grid(shape)[0])
        return slice(own.start, own.stop + operator.weight.shape[-1] - 1)

    def _extended(self, shape: torch.Size) -> torch.Size:
        """The shape of these rows."""
        rows, across = self._rows(shape), shape[-1] + 2 * self.whole.bank.operator.margin
        return torch.Size((*shape[:-2], rows.stop - rows.start, across))

    def _assembled(self, shape: torch.Size, f: Callable[[torch.Size], Tensor]) -> Tensor:
        """The sum over the processes of pictures f of their rows, with the border folded back."""
        operator, part = self.whole.bank.operator, f(self._extended(shape))
        m = operator.margin
        total = part.new_zeros(*shape[:-2], shape[-2] + 2 * m, shape[-1] + 2 * m)
        total[..., self._rows(shape), :] = part
        return extend_adjoint(self.share.sum(total), m, operator.border)
