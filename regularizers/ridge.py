"""The one-hidden-layer input convex gradient network in closed form: a convex ridge regularizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import Unpack

from icgn.compat import once_positional
from icgn.regularizers.activations import make_activation
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.base import check_widening
from icgn.regularizers.filter_map import FilterMap
from icgn.regularizers.filters import FilterOperator
from icgn.regularizers.network import BankArguments, BankRegularizer, BankSpec
from icgn.regularizers.registry import register
from icgn.regularizers.ridge_head import RidgeHead


@register
@once_positional("filters", "size", "channels", "units", "activation", "border", "sigma_range", "knots", "min_knee")
class RidgeICGN(BankRegularizer):
    r"""Convolutional ridge regularizer: the ICGN of one hidden layer, integrated in closed form.

    .. math::

        R(x; \sigma) = \sum_{k, j, p} \lambda_{kj} \tau_{kj} \, \Phi\big((w_k \star x)_p / \tau_{kj}\big), \qquad
        \nabla R(x; \sigma) = W^T \sum_j \lambda_j \, \psi(W x / \tau_j),

    with filters :math:`w_k` of zero mean and unit norm, positions p, and J hidden units per filter with saturation
    :math:`\lambda_{kj}(\sigma)` and knee :math:`\tau_{kj}(\sigma)`, positive and piecewise log-linear in sigma. It is
    :math:`\int_0^1 J_M(sx)^T J_M(sx)\, x\, ds` for the hidden layer :math:`M(x) = a \odot s(W x / \tau)` with
    :math:`a^2 = \lambda \tau` and :math:`(s')^2 = \psi'` (arXiv:2111.12187); see :meth:`hidden_layer`.

    Parameters
    ----------
    filters : int
        number of filters.
    units : int
        hidden units J per filter: the number of kinks of the learned activation on each side.
    activation : {"hardtanh", "tanh", "sigmoid", "softplus"}
        the hidden activation s.
    size, channels, border, sigma_range, knots, min_knee :
        see :class:`~icgn.regularizers.network.BankSpec`. Above `sigma_range` :math:`\lambda` and :math:`\tau` follow
        the last slope, below :math:`\lambda \propto \sigma^{1.5}`, :math:`\tau \propto \sigma`, so that sigma 0 is the
        zero regularizer.

    Raises
    ------
    ValueError
        if a parameter is out of range.

    Examples
    --------
    Its values and gradients vanish on constant pictures, for the filters have zero mean; the gradient of the sum is
    that of automatic differentiation:

    >>> import torch
    >>> from icgn import RidgeICGN
    >>> regularizer = RidgeICGN(filters=4, size=3, activation="tanh").double()
    >>> f"{regularizer.fn(torch.full((1, 1, 8, 8), 0.5).double(), sigma=0.1).item():.3f}"
    '0.000'
    >>> x = torch.rand(2, 1, 8, 8).double().requires_grad_()
    >>> (exact,) = torch.autograd.grad(regularizer.fn(x, sigma=0.1).sum(), x)
    >>> torch.allclose(regularizer.grad(x, sigma=0.1), exact)
    True
    """

    def __init__(
        self, *, filters: int = 32, units: int = 1, activation: str = "hardtanh", **common: Unpack[BankArguments]
    ) -> None:
        if units < 1:
            raise ValueError(f"units: got {units}, expected at least 1")
        spec = BankSpec(**common)
        super().__init__(spec, filters, {"filters": filters, "units": units, "activation": activation})
        spread = torch.linspace(-0.7, 0.7, units) if units > 1 else torch.zeros(1)
        shape = (units, filters, spec.knots)
        # Scale of a Laplacian prior, lambda ~ sigma^1.5, shared by the overlapping windows of a filter.
        scale = math.log(0.6 / (spec.size**2 * units))
        self.log_lambda = nn.Parameter((1.5 * spec.log_sigma + scale).expand(shape).clone())
        self.log_tau = nn.Parameter((spec.log_sigma - 3.0 + spread[:, None, None]).expand(shape).clone())
        self._activation = make_activation(activation)

    def frozen(self, sigma: Tensor) -> BankFunctional:
        r"""The functional, its responses scaled so that the first unit has slope 1 inside its knee.

        With :math:`s_k = \sqrt{\lambda_{k1}/\tau_{k1}}` and :math:`u = s\, W x` the knees are
        :math:`\kappa_j = s\,\tau_j`, and the slopes :math:`\rho_j` relative to the first unit.
        """
        lam, tau = self.curves(sigma)
        slope = lam / tau
        scale = slope[:, 0].sqrt()
        # sigma = 0 gives lambda = 0, no response at all; knees and relative slopes must stay positive and finite.
        tiny = torch.finfo(tau.dtype).tiny
        knee = (tau * scale[:, None]).clamp_min(tiny)
        ratio = slope / slope[:, :1].clamp_min(tiny)
        bank = FilterMap.build(self.bank, scale, kind=FilterOperator)
        spread = bank.operator.spread
        return BankFunctional(RidgeHead(self._activation, spread(knee), spread(ratio)), bank)

    def widened(self, **changes: Any) -> RidgeICGN:
        """A network of more or larger filters, more units or another `min_knee` that starts near this one.

        Filters are framed by zeros, so that with a new size alone it is the same function but at the border. New
        filters and units start weak (a 50th and a quarter of the usual saturation), for training to find their use.

        Parameters
        ----------
        changes :
            constructor arguments to change: `filters`, `size`, `units` (none may shrink) and `min_knee`.

        Raises
        ------
        ValueError
            for another argument, or a number smaller than now.
        """
        check_widening(self.architecture, changes, grow=("filters", "size", "units"), free="min_knee")
        new = type(self)(**{**self.architecture, **changes}).to(self.log_tau)
        units, filters, _ = self.log_tau.shape
        margin = (new.min_size - self.min_size) // 2
        with torch.no_grad():
            extra = new.bank.weight[filters:].clone()
            new.bank.raw[:filters] = F.pad(self.bank.weight, (margin,) * 4)
            new.bank.raw[filters:] = extra
            for mine, wide, weaker in (
                (self.log_lambda, new.log_lambda, math.log(50)),
                (self.log_tau, new.log_tau, 0.0),
            ):
                wide[:units, :filters] = mine
                wide[:units, filters:] = mine.median(1, keepdim=True).values - weaker
            # A further unit saturates lower and later than the first.
            new.log_lambda[units:] = new.log_lambda[:1] - math.log(4)
            new.log_tau[units:] = new.log_tau[:1] + math.log(4)
        return new.train(self.training)

    @torch.no_grad()
    def narrowed(self, chosen: Sequence[int], factors: Tensor | None = None) -> RidgeICGN:
        """A network of some of the filters, the gradient of each times a factor.

        Parameters
        ----------
        chosen : sequence of int
            places of the filters that stay, in their order.
        factors : Tensor, optional
            positive, (len(chosen),), of slopes and saturations; knees stay. Default 1.
        """
        at = torch.as_tensor(chosen)
        new = type(self)(**{**self.architecture, "filters": len(at)}).to(self.log_tau)
        new.bank.raw.copy_(self.bank.raw[at])
        new.log_tau.copy_(self.log_tau[:, at])
        new.log_lambda.copy_(self.log_lambda[:, at])
        if factors is not None:
            new.log_lambda.add_(factors.to(self.log_lambda).log()[:, None])
        return new.train(self.training)

    def hidden_activation(self, t: Tensor) -> Tensor:
        """The hidden activation s."""
        return self._activation.hidden(t)

    def hidden_layer(self, sigma: float) -> nn.Module:
        """The network M whose input convex gradient network is the gradient of this regularizer at sigma."""
        return _HiddenLayer(self, sigma)


class _HiddenLayer(nn.Module):
    """M(x) = a s(W x / tau), a^2 = lambda tau; its width is the number of responses times the hidden units."""

    def __init__(self, ridge: RidgeICGN, sigma: float) -> None:
        super().__init__()
        self.ridge, self.sigma = ridge, sigma

    def forward(self, x: Tensor) -> Tensor:
        ridge = self.ridge
        u = ridge.bank(x)[:, None]
        lam, tau = (c.to(x)[..., None, None] for c in ridge.curves(torch.tensor([self.sigma]).to(ridge.bank.raw)))
        return torch.sqrt(lam * tau) * ridge.hidden_activation(u / tau)
