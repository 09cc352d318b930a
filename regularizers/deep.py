"""The deep gradient network: an input convex network differentiated by an explicit backward sweep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import Unpack

from icgn.compat import once_positional
from icgn.regularizers.activations import make_activation
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.filter_map import FilterMap
from icgn.regularizers.network import BankArguments, BankRegularizer, BankSpec
from icgn.regularizers.registry import register
from icgn.regularizers.sweep import ConvexActivation, ConvolutionMap, DeepHead, raw_weights


@register
@once_positional(
    "layers", "filters", "inner_size", "size", "channels", "activation", "border", "sigma_range", "knots", "min_knee"
)
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
    activation : {"tanh", "sigmoid", "hardtanh"}
        s; also "softplus" in a network of one layer.
    size, channels, border, sigma_range, knots, min_knee :
        see :class:`~icgn.regularizers.network.BankSpec`; the filters W are those of all layers.

    Raises
    ------
    ValueError
        if a parameter is out of range.
    """

    tau_power = 0.0

    def __init__(
        self,
        *,
        layers: int = 2,
        filters: int = 16,
        inner_size: int = 1,
        activation: str = "tanh",
        **common: Unpack[BankArguments],
    ) -> None:
        if layers < 1 or filters < 1:
            raise ValueError(f"layers, filters: got {layers}, {filters}, expected at least 1 of each")
        if inner_size < 1 or inner_size % 2 == 0:
            raise ValueError(f"inner_size: got {inner_size}, expected an odd number of at least 1")
        spec = BankSpec(**common)
        own = {"layers": layers, "filters": filters, "inner_size": inner_size, "activation": activation}
        super().__init__(spec, layers * filters, own)
        self._phi = ConvexActivation(make_activation(activation), layers)
        with torch.no_grad():
            # Filters come lowest frequencies first: each layer gets some of all.
            self.bank.raw.copy_(self.bank.raw.unflatten(0, (filters, layers)).transpose(0, 1).flatten(0, 1))
        start = 1.5 * spec.log_sigma + math.log(0.6 / spec.size**2)
        self.log_lambda = nn.Parameter(start.expand(filters, spec.knots).clone())
        # The first layer has the sharp knees of a ridge network, the others see it averaged and bend at its scale.
        sharp = torch.tensor([-3.0] + [0.0] * (layers - 1))[:, None, None]
        self.log_tau = nn.Parameter((spec.log_sigma + sharp).expand(layers, filters, spec.knots).clone())
        self.bias = nn.Parameter(torch.zeros(layers, filters))
        generator = torch.Generator().manual_seed(1)
        shape = (filters, filters, inner_size, inner_size)
        means = [math.exp(-3.0 if layer == 0 else 0.0) / (filters * inner_size**2) for layer in range(layers - 1)]
        self.raw_U = nn.ParameterList([nn.Parameter(raw_weights(shape, mean, generator)) for mean in means])

    def frozen(self, sigma: Tensor) -> BankFunctional:
        lam, tau = self.curves(sigma)
        top = (lam * tau[:, -1])[..., None, None]
        maps = tuple(ConvolutionMap(F.softplus(raw)) for raw in self.raw_U)
        biases = tuple(b[None, :, None, None] for b in self.bias)
        bank = FilterMap.build(self.bank, 1 / tau.flatten(1))
        return BankFunctional(DeepHead(self._phi, maps, biases, top), bank)
