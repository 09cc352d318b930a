"""The one-hidden-layer input convex gradient network in closed form: a convex ridge regularizer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.regularizers.activations import make_activation
from icgn.regularizers.base import check_sigma, check_widening
from icgn.regularizers.curves import log_knots
from icgn.regularizers.filters import Border, FilterBank
from icgn.regularizers.responses import BankRegularizer
from icgn.regularizers.ridge_functional import RidgeFunctional


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
    filters, size, channels, border :
        of the :class:`~icgn.regularizers.filters.FilterBank`.
    units : int
        hidden units J per filter: the number of kinks of the learned activation on each side.
    activation : {"hardtanh", "tanh", "sigmoid", "softplus"}
        the hidden activation s.
    sigma_range : tuple of float
        noise levels, in intensities, between which :math:`\lambda` and :math:`\tau` have knots; above they follow
        the last slope, below :math:`\lambda \propto \sigma^{1.5}`, :math:`\tau \propto \sigma`, so that sigma 0 is the
        zero regularizer.
    knots : int
        knots in log sigma.
    min_knee : float
        smallest :math:`\tau / \sigma`: a trade of quality against iterations (``benchmarks/choices.py``).

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
        self,
        filters: int = 32,
        size: int = 9,
        channels: int = 1,
        units: int = 1,
        activation: str = "hardtanh",
        border: Border = "reflect",
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
        min_knee: float = 0.02,
    ) -> None:
        if units < 1:
            raise ValueError(f"units: got {units}, expected at least 1")
        super().__init__(FilterBank(filters, size, channels, border), sigma_range, min_knee)
        log_sigma = log_knots(sigma_range, knots)
        self.architecture: dict[str, Any] = {
            "filters": filters, "size": size, "channels": channels, "units": units, "activation": activation,
            "border": border, "sigma_range": list(sigma_range), "knots": knots, "min_knee": min_knee,
        }  # fmt: skip
        spread = torch.linspace(-0.7, 0.7, units) if units > 1 else torch.zeros(1)
        shape = (units, filters, knots)
        # Scale of a Laplacian prior, lambda ~ sigma^1.5, shared by the overlapping windows of a filter.
        scale = math.log(0.6 / (size * size * units))
        self.log_lambda = nn.Parameter((1.5 * log_sigma + scale).expand(shape).clone())
        self.log_tau = nn.Parameter((log_sigma - 3.0 + spread[:, None, None]).expand(shape).clone())
        self._activation = make_activation(activation)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> RidgeFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        s = check_sigma(sigma, self.bank.raw)
        lam, tau = self.curves(s)
        slope = lam / tau
        scale = slope[:, 0].sqrt()
        # sigma = 0 gives lambda = 0, no response at all; knees and relative slopes must stay positive and finite.
        knee = (tau * scale[:, None]).clamp_min(torch.finfo(tau.dtype).tiny)
        ratio = slope / slope[:, :1].clamp_min(torch.finfo(tau.dtype).tiny)
        if len(s) == 1:
            return RidgeFunctional(self.bank.operator(scale=scale[0]), self._activation, knee, ratio, None)
        return RidgeFunctional(self.bank.operator(), self._activation, knee, ratio, scale)

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
