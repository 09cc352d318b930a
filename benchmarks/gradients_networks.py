r"""The networks that ``gradients.py`` compares, all of the form :math:`N(x) = \nabla h(x) + Q^T Q x + a`.

With as many parameters as wanted: the ICGN of the paper by quadrature, the dense networks of the package in closed
form, and the input convex network (ICNN) differentiated by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icgn.regularizers import ICGN
from icgn.regularizers.activations import Activation
from icgn.regularizers.quadrature import GaussLegendre, MonteCarlo, Quadrature
from icgn.regularizers.sweep import raw_weights
from icgn.transport.dense import DenseDeepICGN, DenseGroupICGN, DenseRidgeICGN, DenseSoftmaxICGN

# Nodes of the quadrature in training, Gauss-Legendre and random ones, and in evaluation.
_NODES, _RANDOM_NODES, _EVALUATION_NODES = 16, 4, 32
# Members of a group where there are several, before the number is adapted to the parameters.
_MEMBERS = 8
# A network may have this much more or less than the parameters asked for.
_TOLERANCE = 0.25

Make = Callable[[int], nn.Module]
"""A network by its width, the number that is adapted to the parameters wanted."""


class Logistic(Activation):
    r""":math:`\psi = s - 1/2` with the logistic s: its convex activation :math:`\Phi` is the softplus of an ICNN.

    The hidden activation is :math:`2 \arctan e^{t/2} - \pi/2`, whose squared derivative is :math:`s (1 - s)`.
    """

    name, steepest = "logistic", 1 / 4

    def hidden(self, t: Tensor) -> Tensor:
        return 2 * torch.atan((t / 2).exp()) - math.pi / 2

    def psi(self, t: Tensor) -> Tensor:
        return torch.sigmoid(t) - 1 / 2

    def psi_prime(self, t: Tensor) -> Tensor:
        s = torch.sigmoid(t)
        return s * (1 - s)

    def potential(self, t: Tensor) -> Tensor:
        return F.softplus(t) - t / 2 - math.log(2)


class OneHiddenLayer(nn.Module):
    r"""The module :math:`M(x) = (a \odot \tanh(W x + b),\; Q x)` of the paper, of pictures (B, n, 1, 1).

    Its ICGN is the closed form of :class:`~icgn.transport.dense.DenseRidgeICGN`, with :math:`Q^T Q x`.
    """

    def __init__(self, dim: int, width: int, quadratic: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(width, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.randn(width))
        self.log_scale = nn.Parameter(torch.full((width,), -math.log(width) / 4))
        self.Q = nn.Parameter(torch.randn(quadratic, dim) / math.sqrt(max(1, quadratic)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        hidden = self.log_scale.exp() * torch.tanh(x @ self.W.T + self.bias)
        return torch.cat([hidden, x @ self.Q.T], 1)


class QuadratureICGN(nn.Module):
    r"""The paper's :math:`N(x) = \int_0^1 J_M(sx)^T J_M(sx)\, x\, ds + a` on vectors (B, n), by quadrature."""

    def __init__(self, dim: int, width: int, quadratic: int, quadrature: Quadrature) -> None:
        super().__init__()
        self.dim = dim
        # One hidden layer is valid: it is not measured again after every step.
        self.network = ICGN(OneHiddenLayer(dim, width, quadratic), quadrature=quadrature, check=False)
        self.shift = nn.Parameter(torch.zeros(dim))
        self._rules = (GaussLegendre(_EVALUATION_NODES), quadrature)

    def forward(self, x: Tensor) -> Tensor:
        self.network.quadrature = self._rules[self.training]
        return self.network.grad(x[:, :, None, None]).flatten(1) + self.shift


class ICNN(nn.Module):
    r"""The gradient, by autograd, of an input convex network (Amos, Xu, Kolter 2017, arXiv:1609.07152).

    .. math::

        z_1 = s(W_1 x + b_1), \quad z_l = s(U_l z_{l-1} + W_l x + b_l), \qquad
        f(x) = \langle c, z_L\rangle + \tfrac12 |Q x|^2 + \langle a, x\rangle,

    s the softplus and U, c > 0 (of a softplus as well). To train it on gradients takes derivatives of derivatives. It
    starts as :class:`~icgn.transport.dense.DenseDeepICGN` does.
    """

    def __init__(self, dim: int, widths: tuple[int, ...], quadratic: int) -> None:
        super().__init__()
        self.dim, self.widths = dim, widths
        self.W = nn.Parameter(torch.randn(sum(widths), dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.randn(sum(widths)))
        pairs = zip(widths[1:], widths[:-1], strict=True)
        self.raw_U = nn.ParameterList([nn.Parameter(raw_weights((out, units), 1 / units)) for out, units in pairs])
        self.raw_c = nn.Parameter(raw_weights((widths[-1],), 1 / math.sqrt(widths[-1])))
        self.Q = nn.Parameter(torch.randn(quadratic, dim) / math.sqrt(max(1, quadratic)))
        self.shift = nn.Parameter(torch.zeros(dim))

    def fn(self, x: Tensor) -> Tensor:
        """Values f(x), shape (B,)."""
        first, *rest = (x @ self.W.T.to(x) + self.bias.to(x)).split(self.widths, 1)
        z = F.softplus(first)
        for raw, skip in zip(self.raw_U, rest, strict=True):
            z = F.softplus(torch.addmm(skip, z, F.softplus(raw).T.to(x)))
        return z @ F.softplus(self.raw_c).to(x) + (x @ self.Q.T.to(x)).square().sum(1) / 2 + x @ self.shift.to(x)

    def forward(self, x: Tensor) -> Tensor:
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad(self.fn(x).sum(), x, create_graph=training)[0]


@dataclass(frozen=True)
class Variant:
    """One of the ways to build a kind of network, among which validation chooses: (dim, rows of Q, size) -> widths."""

    name: str
    make: Callable[[int, int, int], Make]


def _quadrature(rule: Quadrature) -> Callable[[int, int, int], Make]:
    return lambda dim, rows, size: lambda width: QuadratureICGN(dim, width, rows, rule)


def _ridge(activation: str) -> Callable[[int, int, int], Make]:
    return lambda dim, rows, size: lambda width: DenseRidgeICGN(dim, width=width, activation=activation, quadratic=rows)


def _layers(kind: Callable[..., nn.Module], layers: int, **options: str | Activation) -> Callable[..., Make]:
    return lambda dim, rows, size: lambda width: kind(dim, widths=(width,) * layers, quadratic=rows, **options)


def _modules(kind: Callable[..., nn.Module], members: int) -> Callable[[int, int, int], Make]:
    """As many groups of so many members as fill the size; the members are adapted then."""

    def make(dim: int, rows: int, size: int) -> Make:
        groups = max(1, round(size / (members * (dim + 1) + 2)))
        return lambda width: kind(dim, groups=groups, members=width, quadratic=rows)

    return make


ICNN_NAME, RIDGE = "ICNN", "ridge"
FAMILIES: dict[str, tuple[Variant, ...]] = {
    "quadrature": (
        Variant(f"{_NODES} Gauss-Legendre nodes", _quadrature(GaussLegendre(_NODES))),
        Variant(f"{_RANDOM_NODES} random nodes", _quadrature(MonteCarlo(_RANDOM_NODES))),
    ),
    RIDGE: (Variant("tanh", _ridge("tanh")), Variant("softplus", _ridge("softplus"))),
    "deep": (
        Variant("tanh, 2 layers", _layers(DenseDeepICGN, 2, activation="tanh")),
        Variant("softplus, 3 layers", _layers(DenseDeepICGN, 3, activation=Logistic())),
    ),
    "softmax": (
        Variant(
            "one module",
            lambda dim, rows, size: lambda width: DenseSoftmaxICGN(dim, groups=1, members=width, quadratic=rows),
        ),
        Variant("modules", _modules(DenseSoftmaxICGN, _MEMBERS)),
    ),
    "group": (
        Variant("small groups", _modules(DenseGroupICGN, _MEMBERS // 2)),
        Variant("groups", _modules(DenseGroupICGN, _MEMBERS)),
    ),
    ICNN_NAME: (Variant("2 layers", _layers(ICNN, 2)), Variant("3 layers", _layers(ICNN, 3))),
}
"""What is compared; the first variant of each is the default of :func:`build`."""


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def _sharpen(network: nn.Module, factor: float) -> None:
    for name, p in network.named_parameters():
        if name.rsplit(".", 1)[-1] in ("W", "bias"):
            p.mul_(factor)


@torch.no_grad()
def calibrate(network: nn.Module, points: Tensor) -> None:
    """Scale both parts of N, that of h and :math:`Q^T Q x`, to a standard deviation of 1/2 each over points (B, n).

    Random weights add up coherently: without it wide networks would start far too steep, each kind by another factor.
    """
    Q = next(p for name, p in network.named_parameters() if name.rsplit(".", 1)[-1] == "Q")
    start = Q.clone()
    Q.zero_()
    _strengthen(network, 0.5 / _spread(network(points)))
    if len(Q):
        Q.copy_(start * (0.5 / _spread((points @ start.T) @ start)) ** 0.5)


def _strengthen(network: nn.Module, factor: float) -> None:
    """Multiply the part of h by a factor, through the one weight of each network that does so."""
    for name, p in network.named_parameters():
        match name.rsplit(".", 1)[-1]:
            case "log_lambda":
                p.add_(math.log(factor))
            case "log_scale":
                p.add_(math.log(factor) / 2)
            case "raw_c":
                p.copy_((factor * F.softplus(p)).expm1().log())


def _spread(values: Tensor) -> float:
    return float((values - values.mean(0)).square().mean().sqrt())


def quadratic_rows(dim: int, size: int) -> int:
    """Rows of Q, the same for every network: at most a quarter of the parameters."""
    return min(dim, size // (4 * dim))


def build(
    family: str, dim: int, size: int, seed: int = 0, variant: str | None = None, sharpness: float = 1.0
) -> nn.Module:
    """A network of a family with about `size` parameters; `sharpness` multiplies its first weights W and biases.

    Raises
    ------
    ValueError
        if there is no such family or variant, or none of that size: a unit has dim + 1 parameters at least.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: got {family!r}, expected one of {', '.join(FAMILIES)}")
    variants = {v.name: v for v in FAMILIES[family]}
    chosen = variants.get(variant or FAMILIES[family][0].name)
    if chosen is None:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(variants)}")
    if dim < 1:
        raise ValueError(f"dim: got {dim}, expected at least 1")
    make = chosen.make(dim, quadratic_rows(dim, size), size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make(_width(make, size))
        _sharpen(network, sharpness)
    count = parameters(network)
    if abs(count - size) > _TOLERANCE * size:
        raise ValueError(
            f"size: got {size}, expected more: the nearest {family} network in {dim} dimensions has {count}"
        )
    return network


def _width(make: Make, size: int) -> int:
    """The width, at least 2, with the number of parameters nearest to a size."""
    low, high = 2, 4
    while parameters(make(high)) < size:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(make(middle)) < size else (low, middle)
    return min((low, high), key=lambda width: abs(parameters(make(width)) - size))
