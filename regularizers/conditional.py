"""The conditional network: convex in the picture for every fixed condition, the condition computed from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from icgn.compat import once_positional
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.base import check_sigma, check_widening
from icgn.regularizers.masks import MaskNetwork
from icgn.regularizers.network import BankArguments, Network
from icgn.regularizers.registry import register
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.ridge_head import RidgeHead

# The network of conditions is not shown intensities further than this from [0, 1]: of one pixel of 10,000 it makes
# conditions for all that are nonsense.
_BEYOND = 8.0


@register
@once_positional("filters", "size", "channels", "units", "activation", "border", "sigma_range", "knots", "min_knee")
class ConditionalICGN(Network):
    r"""A ridge network whose saturations depend on the data, convex in the picture for every fixed condition.

    .. math::

        \nabla R_c(x; \sigma) = W^T \operatorname{clip}(k\, W x,\, -\lambda c,\, +\lambda c), \qquad
        c = m(x_0, r; \sigma) > 0,

    with slopes :math:`k(\sigma)` and saturations :math:`\lambda(\sigma)` per filter, as in :class:`RidgeICGN`, and a
    condition c, one positive number per filter and pixel, computed by a :class:`MaskNetwork` from the solution
    :math:`x_0` of an unconditional ridge network (`first`) and its residual r. For every fixed c it is convex, with a
    Lipschitz constant that does not depend on c: a small c keeps what the filter sees, a large one removes it.

    :func:`icgn.solve` solves with `first`, computes c, and solves again; ``Solution.condition`` has c. Without a
    condition :meth:`at`, ``fn``, ``grad``, ``prox`` are those of `first`; :meth:`given` fixes a condition. The answer
    is the unique minimizer of the last problem, and certified as such; that problem depends on y through c. Masks from
    an earlier solution are the idea of iteratively refined attentive regularizers (Pourya, Neumayer, Unser 2024,
    arXiv:2407.06608).

    Parameters
    ----------
    filters, size, channels, units, activation, border, sigma_range, knots, min_knee :
        of the conditional :class:`RidgeICGN`; the border is ``reflect`` or ``zero``.
    first : dict, optional
        constructor arguments of the unconditional network where they differ.
    width, blocks, stride, reach :
        of the :class:`~icgn.regularizers.masks.MaskNetwork`.
    looseness : sequence of float
        one entry per condition that is computed, each from the solution with the one before: how loosely the problem
        before it is solved, as the RMS of its gradient over sigma.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    def __init__(
        self,
        *,
        filters: int = 32,
        units: int = 1,
        activation: str = "hardtanh",
        first: dict[str, Any] | None = None,
        width: int = 64,
        blocks: int = 4,
        stride: int = 4,
        reach: float = 4.0,
        looseness: Sequence[float] = (0.1,),
        **common: Unpack[BankArguments],
    ) -> None:
        super().__init__()
        if common.get("border") == "valid":
            raise ValueError("border: got 'valid', expected reflect or zero: a mask has the size of the picture")
        if not looseness or not all(0 < part < 10 for part in looseness):
            raise ValueError(f"looseness: got {looseness}, expected one or more numbers above 0, each below 10")
        self.ridge = RidgeICGN(filters=filters, units=units, activation=activation, **common)
        channels, self.sigma_range = common.get("channels", 1), self.ridge.sigma_range
        self.first = RidgeICGN(**{**self.ridge.architecture, **(first or {}), "channels": channels})
        self.first.requires_grad_(False)
        assert self.sigma_range is not None
        self.network = MaskNetwork(filters, channels, width, blocks, stride, reach, self.sigma_range)
        self.looseness = tuple(float(part) for part in looseness)
        self.architecture: dict[str, Any] = {
            **self.ridge.architecture, "first": dict(first or {}), "width": width, "blocks": blocks, "stride": stride,
            "reach": reach, "looseness": list(self.looseness),
        }  # fmt: skip
        self.channels = channels
        self.min_size = max(self.ridge.min_size, self.first.min_size)

    @classmethod
    def upon(cls, first: Network, /, **changes: Any) -> ConditionalICGN:
        """A conditional network whose unconditional part is a trained ridge network, at first with masks of 1.

        Parameters
        ----------
        first : RidgeICGN
            stays as it is.
        changes :
            constructor arguments that differ from those of `first`. With its filters the conditional ridge begins as a
            copy of it.
        """
        if not isinstance(first, RidgeICGN):
            raise TypeError(f"first: got {type(first).__name__}, expected a RidgeICGN")
        mine = {**first.architecture, **changes}
        differing = {k: v for k, v in first.architecture.items() if mine[k] != v}
        new = cls(**{**mine, "first": differing})
        new.first.load_state_dict(first.state_dict())
        if not differing:
            new.ridge.load_state_dict(first.state_dict())
        return new

    def widened(self, **changes: Any) -> ConditionalICGN:
        """The same network with a larger mask network or other conditions on the way, for training to use.

        Parameters
        ----------
        changes :
            `width` and `blocks`, neither smaller than now, which alone leave the function as it is; `looseness`.

        Raises
        ------
        ValueError
            for another argument, or a number smaller than now.
        """
        check_widening(self.architecture, changes, grow=("width", "blocks"), free="looseness")
        new = type(self)(**{**self.architecture, **changes}).to(self.network.direct)
        new.first.load_state_dict(self.first.state_dict())
        new.ridge.load_state_dict(self.ridge.state_dict())
        new.network.take(self.network)
        return new.train(self.training)

    def narrowed(self, chosen: Sequence[int], factors: Tensor | None = None) -> ConditionalICGN:
        """A network of some of the filters and their masks; the unconditional part stays.

        Parameters
        ----------
        chosen, factors
            as for :meth:`RidgeICGN.narrowed`.
        """
        return self._with(self.ridge.narrowed(chosen, factors), self.first, chosen)

    def begun_by(self, first: RidgeICGN) -> ConditionalICGN:
        """The same network with another unconditional part, a trained ridge network for the same pictures."""
        return self._with(self.ridge, first, range(int(self.ridge.architecture["filters"])))

    def _with(self, ridge: RidgeICGN, first: RidgeICGN, chosen: Sequence[int]) -> ConditionalICGN:
        differing = {k: v for k, v in first.architecture.items() if ridge.architecture[k] != v}
        new = type(self)(**{**self.architecture, **ridge.architecture, "first": differing}).to(self.network.direct)
        new.first.load_state_dict(first.state_dict())
        new.ridge.load_state_dict(ridge.state_dict())
        new.network.select(self.network, chosen)
        return new.train(self.training)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> BankFunctional:
        r"""The functional :math:`R_c(\cdot; \sigma)`, without a condition that of the unconditional network.

        Parameters
        ----------
        sigma : float or Tensor
            noise level, one or one per image.
        condition : Tensor, optional
            c > 0, (B, K, H, W) for the images to come, or (1, K, H, W) for all of them.

        Raises
        ------
        ValueError
            for a condition that is not of K filters, or not positive and finite.
        """
        if condition is None:
            return self.first.at(sigma)
        filters = self.ridge.architecture["filters"]
        if condition.ndim != 4 or condition.shape[1] != filters:
            raise ValueError(f"condition: got shape {tuple(condition.shape)}, expected (B, {filters}, H, W)")
        if not all(_positive(mask) for mask in condition.detach().unbind(1)):
            raise ValueError("condition: got numbers that are not positive and finite, expected masks > 0")
        functional = self.ridge.at(sigma)
        assert isinstance(functional.head, RidgeHead)
        half = condition.dtype is torch.float16
        mask = condition if half else condition.to(functional.bank.operator.weight)
        return replace(functional, head=replace(functional.head, mask=mask))

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor, *, rows: slice | None = None) -> Tensor:
        """The condition (B, K, H, W) that a solution leads to, in half precision where it is large.

        Parameters
        ----------
        x : Tensor
            solution (B, C, H, W).
        sigma : float or Tensor
            noise level, one or one per image, or a map of it, (1 or B, 1, H, W).
        residual : Tensor
            as :func:`icgn.solvers.conditioning.residual` gives it, shape of x; y - x for denoising.
        rows : slice, optional
            those of the condition to compute, by default all; the start is a multiple of the stride of its network.
        """
        self.check_image(x)
        if residual.shape != x.shape:
            raise ValueError(f"residual: got shape {tuple(residual.shape)}, expected that of x, {tuple(x.shape)}")
        like = self.network.direct
        operator = self.ridge.bank.operator(stride=self.network.stride)
        is_map = isinstance(sigma, Tensor) and sigma.ndim == 4
        levels = torch.as_tensor(sigma).to(like) if is_map else check_sigma(sigma, like)
        images = x.to(like).clamp(-_BEYOND, 1 + _BEYOND), residual.to(like), levels, operator
        mask: Tensor = self.network(*images) if rows is None else self.network.band(*images, rows)
        return mask if mask.dtype is torch.float16 else mask.to(x.dtype)

    def requires_grad_(self, requires_grad: bool = True) -> ConditionalICGN:
        """As that of a module, but the unconditional part stays as it was trained."""
        super().requires_grad_(requires_grad)
        self.first.requires_grad_(False)
        return self


def _positive(mask: Tensor) -> bool:
    """Whether all numbers are positive and finite."""
    least, most = torch.aminmax(mask.float() if mask.dtype is torch.float16 else mask)
    return bool((least > 0) & (most < torch.inf))  # neither for NaN
