"""The deep gradient network: an input convex network differentiated by an explicit backward sweep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.functionals.functional import Responses, tensor
from icgn.regularizers.activations import make_activation
from icgn.regularizers.base import check_sigma
from icgn.regularizers.curves import log_knots
from icgn.regularizers.filters import Border, FilterBank
from icgn.regularizers.responses import BLOCK, BankFunctional, BankRegularizer
from icgn.regularizers.sweep import ConvexActivation, ConvolutionMap, DeepHead, raw_weights


class PictureFunctional(BankFunctional):
    """As the base, with responses as pictures (B, K, rows, cols): an inner map needs their places."""

    def linear(self, x: Tensor) -> Responses:
        return self.operator.unfold(tensor(super().linear(x)), x.shape)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return super().linear_adjoint(self.operator.fold(tensor(z)), shape)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        parts = [self.head.grad(v) for v in self._strips(tensor(u))]
        return self.linear_adjoint(torch.cat(parts, 2), shape)

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        parts = [self.head.hvp(v, w) for v, w in self._blocks(tensor(u), tensor(q))]
        return self.linear_adjoint(torch.cat(parts, 2), shape)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        parts = [self.head.diagonal(v).sum((2, 3)) for v in self._strips(tensor(u))]
        return self.bank.spectrum_of(torch.stack(parts).sum(0), shape)

    def _blocks(self, u: Tensor, q: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._strips(u), self._strips(q), strict=True))

    def _strips(self, u: Tensor) -> tuple[Tensor, ...]:
        """Strips of rows that fit the cache, where no inner map reaches beyond them."""
        assert isinstance(self.head, DeepHead)
        local = all(m.weight.shape[-1] == 1 for m in self.head.maps)
        if not local or u.device.type != "cpu" or torch.is_grad_enabled():
            return (u,)
        return u.split(max(1, BLOCK // (u.shape[0] * u.shape[1] * u.shape[3])), 2)


class DeepICGN(BankRegularizer):
    r"""Deep convolutional gradient network: an input convex network by an explicit backward sweep, of any depth.

    .. math::

        p_1 = W_1 x / \tau_1 + b_1, \quad p_l = U_l\, \varphi_{l-1}(p_{l-1}) + W_l x / \tau_l + b_l, \qquad
        G(x; \sigma) = \langle \lambda \tau_L, \varphi_L(p_L)\rangle, \qquad U_l, \lambda \ge 0,

        \nabla G = \sum_l W_l^T d_l / \tau_l, \qquad g_L = \lambda \tau_L, \quad d_l = g_l\, \varphi_l'(p_l), \quad
        g_{l-1} = U_l^T d_l,

    and R is G less its tangent at x = 0 (the paper's :math:`\psi(W x + b) - \psi(b)`), so that it is nowhere negative
    and zero at constant pictures, filters having zero mean. With :math:`\varphi'' = (s')^2` for a hidden activation s
    the Hessian is a sum of Gram matrices, one per layer, as that of a one-layer ICGN is one (Richter-Powell, Lorraine,
    Amos 2021, arXiv:2111.12187); the network is that of Amos, Xu, Kolter (2017, arXiv:1609.07152) with the bounded
    activations that make its gradient globally Lipschitz. Depth 1 with zero biases is
    :class:`~icgn.regularizers.RidgeICGN` with one unit. Below the first knot the scales :math:`\tau` stay.

    Parameters
    ----------
    layers : int
        depth L.
    filters : int
        filters of each layer.
    inner_size : int
        side of the inner filters U in pixels, odd.
    size, channels, border :
        of the :class:`~icgn.regularizers.filters.FilterBank` of the filters W of all layers.
    activation : {"tanh", "sigmoid", "hardtanh"}
        s; also "softplus" in a network of one layer.
    sigma_range, knots, min_knee :
        of the curves :math:`\lambda` and :math:`\tau`; see :class:`~icgn.regularizers.RidgeICGN`.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    tau_power = 0.0

    def __init__(
        self,
        layers: int = 2,
        filters: int = 16,
        inner_size: int = 1,
        size: int = 9,
        channels: int = 1,
        activation: str = "tanh",
        border: Border = "reflect",
        sigma_range: tuple[float, float] = (1 / 255, 50 / 255),
        knots: int = 9,
        min_knee: float = 0.02,
    ) -> None:
        if layers < 1 or filters < 1:
            raise ValueError(f"layers, filters: got {layers}, {filters}, expected at least 1 of each")
        if inner_size < 1 or inner_size % 2 == 0:
            raise ValueError(f"inner_size: got {inner_size}, expected an odd number of at least 1")
        super().__init__(FilterBank(layers * filters, size, channels, border), sigma_range, min_knee)
        self._phi = ConvexActivation(make_activation(activation), layers)
        log_sigma = log_knots(sigma_range, knots)
        self.architecture = {
            "layers": layers, "filters": filters, "inner_size": inner_size, "size": size, "channels": channels,
            "activation": activation, "border": border, "sigma_range": list(sigma_range), "knots": knots,
            "min_knee": min_knee,
        }  # fmt: skip
        with torch.no_grad():
            # Filters come lowest frequencies first: each layer gets some of all.
            self.bank.raw.copy_(self.bank.raw.unflatten(0, (filters, layers)).transpose(0, 1).flatten(0, 1))
        self.log_lambda = nn.Parameter((1.5 * log_sigma + math.log(0.6 / size**2)).expand(filters, knots).clone())
        # The first layer has the sharp knees of a ridge network, the others see it averaged and bend at its scale.
        sharp = torch.tensor([-3.0] + [0.0] * (layers - 1))[:, None, None]
        self.log_tau = nn.Parameter((log_sigma + sharp).expand(layers, filters, knots).clone())
        self.bias = nn.Parameter(torch.zeros(layers, filters))
        generator = torch.Generator().manual_seed(1)
        shape = (filters, filters, inner_size, inner_size)
        means = [math.exp(-3.0 if layer == 0 else 0.0) / (filters * inner_size**2) for layer in range(layers - 1)]
        self.raw_U = nn.ParameterList([nn.Parameter(raw_weights(shape, mean, generator)) for mean in means])

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> PictureFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        lam, tau = self.curves(check_sigma(sigma, self.bank.raw))
        top = (lam * tau[:, -1])[..., None, None]
        maps = tuple(ConvolutionMap(F.softplus(raw)) for raw in self.raw_U)
        biases = tuple(b[None, :, None, None] for b in self.bias)
        functional = PictureFunctional.build(DeepHead(self._phi, maps, biases, top), self.bank, 1 / tau.flatten(1))
        assert isinstance(functional, PictureFunctional)
        return functional
