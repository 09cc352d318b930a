r"""The input convex gradient network of a general module, by quadrature, with a test of its integrability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.functionals.functional import BlackBoxFunctional, dot
from icgn.regularizers.base import ConvexRegularizer, check_image, check_sigma
from icgn.regularizers.curvature import extreme_curvatures
from icgn.regularizers.quadrature import GaussLegendre, Quadrature, Rule

Hessian = Literal["auto", "gram", "derivative"]

# The test at first use: images at most this high and wide, this many of them.
_CROP, _POINTS = 16, 2
# Least Gauss-Legendre nodes per side of a loop, and the most nodes of the refined network.
_SIDE_NODES, _MOST_NODES = 12, 128
# RMS length of a side, in intensities.
_SIDE = 0.3
# Above this relative distance J^T J is not the Hessian; quadrature of a piecewise linear module leaves 0.06.
_GRAM_TOLERANCE = 0.1
# Pixels of the nodes evaluated in one call of M.
_BLOCK = 1 << 16


class NotAGradientError(ValueError):
    """The input convex gradient network of a module is not the gradient of a convex function."""


@dataclass(frozen=True)
class IntegrabilityDefect:
    r"""How far :math:`N` is from the gradient of a convex function, measured on N itself.

    Attributes
    ----------
    asymmetry : float
        estimate of :math:`|DN - DN^T|_F / |DN|_F`, averaged over the loops: 0 for a gradient.
    least_curvature : float
        least secant curvature :math:`\langle N(x + d) - N(x - d), d\rangle / 2 |d|^2` found, divided by the greatest:
        not negative for a convex function.
    gram_defect : float
        relative distance of :math:`DN` from :math:`J_M^T J_M`, averaged along segments; a valid N may have one (a
        positively homogeneous M), but none with a ridge structure has.
    quadrature_error : float
        relative distance between N by the network's own rule and by the refined one.
    nodes : int
        quadrature nodes at which the asymmetry was stable.
    """

    asymmetry: float
    least_curvature: float
    gram_defect: float
    quadrature_error: float
    nodes: int

    @property
    def worst(self) -> float:
        """The larger of the asymmetry and of the negative curvature; nan counts as inf."""
        values = (self.asymmetry, -self.least_curvature)
        return math.inf if any(math.isnan(v) for v in values) else max(values)


class ICGN(ConvexRegularizer):
    r"""The input convex gradient network of any module M, integrated by quadrature.

    .. math::

        \nabla R(x) = N(x) = \int_0^1 J_M(s x)^T J_M(s x)\, x\, ds, \qquad
        R(x) = \int_0^1 (1 - s)\, |J_M(s x)\, x|^2\, ds

    (Richter-Powell, Lorraine, Amos 2021, arXiv:2111.12187). One Jacobian-vector and one vector-Jacobian product per
    node; no image is ever multiplied by a matrix.

    N is a convex gradient for M = a * s(W x + b) with a scale a per unit, and for few others: already A s(W x + b)
    with :math:`A^T A` not diagonal, or a second layer, gives an N that is no gradient at all. So the defect of M is
    measured at the first use, and again whenever its parameters have changed, on two random pictures of the same
    channels and of at most 16 x 16 pixels (of the full size if M refuses the small one), in float64.

    Parameters
    ----------
    M : torch.nn.Module
        maps images (B, C, H, W) to (B, anything), each image by itself (no batch normalisation in training mode)
        and without randomness (no dropout in training mode), by operations with forward and reverse derivatives. M
        does not see sigma: the regularizer is the same for every noise level.
    quadrature : Quadrature, optional
        default ``GaussLegendre(32)``. N stays conservative with few nodes but may lose monotonicity: with
        pre-activations of standard deviation 4.5, 8 and 16 nodes did, 32 did not. For a module in training take
        ``MonteCarlo``, whose nodes it cannot learn to avoid.
    check : bool
        measure the defect and refuse M if it is above `tol`.
    tol : float
        largest accepted asymmetry and negative curvature, relative. The default is above the residual of quadrature
        for valid piecewise linear modules; smooth ones reach 1e-6.
    lipschitz : float
        an upper bound of the Lipschitz constant of N, where the caller can prove one.
    hessian : {"auto", "gram", "derivative"}
        how ``hvp`` is computed. ``gram``: :math:`J_M^T J_M v`, the exact Hessian of every ridge-like M including
        piecewise linear ones, at the price of one node. ``derivative``: forward differentiation of N, exact for
        smooth M of any kind, but wrong for a piecewise linear one, to whose kinks it is blind. ``auto``: the first
        where the test at first use has found it equal to finite differences of N, else the second.

    Raises
    ------
    TypeError
        if M is not a module.
    ValueError
        if `tol`, `lipschitz` or `hessian` is out of range.
    NotAGradientError
        at first use, with the measured defect, unless `check` is False.
    """

    @keyword_only
    def __init__(
        self,
        M: nn.Module,
        *,
        quadrature: Quadrature | None = None,
        check: bool = True,
        tol: float = 0.02,
        lipschitz: float = math.inf,
        hessian: Hessian = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(M, nn.Module):
            raise TypeError(f"M: got {type(M).__name__}, expected a torch.nn.Module")
        if not tol > 0:
            raise ValueError(f"tol: got {tol}, expected a positive number")
        if not lipschitz >= 0:
            raise ValueError(f"lipschitz: got {lipschitz}, expected a number >= 0 or inf")
        if hessian not in get_args(Hessian):
            raise ValueError(f"hessian: got {hessian!r}, expected one of {', '.join(get_args(Hessian))}")
        self.M = M
        self.quadrature = GaussLegendre(32) if quadrature is None else quadrature
        self.check, self.tol = check, tol
        self._bound_of_caller, self._hessian = float(lipschitz), hessian
        self._verdicts: dict[tuple[int, ...], IntegrabilityDefect] = {}
        self._verdict_key: tuple[Any, ...] = ()

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ICGNFunctional:
        """Return the functional, the same for every sigma; Monte Carlo nodes are drawn here in training mode."""
        self._refuse_condition(condition)
        device = next((p.device for p in self.M.parameters()), torch.device("cpu"))
        if sigma is not None:
            check_sigma(sigma, torch.empty((), dtype=torch.float64, device=device))
        bound = torch.tensor(self._bound_of_caller, dtype=torch.float64, device=device)
        rule = self.quadrature.rule(random=self.training)
        return ICGNFunctional(_Model(self.M), rule, bound, self._hessian, self._inspect)

    @keyword_only
    def integrability_defect(self, x: Tensor, *, seed: int = 0) -> IntegrabilityDefect:
        r"""Measure how far N is from a convex gradient around the images x, in float64.

        The asymmetry comes from the circulation of N around parallelograms through each image with random sides of
        RMS 0.3, large enough to cross the kinks that automatic differentiation does not see; curvatures from secants
        of N along the directions of a Lanczos iteration. The nodes are doubled until the asymmetry is stable.

        Parameters
        ----------
        x : Tensor
            images (B, C, H, W). The cost is that of some 150 evaluations of N for each, so small ones serve.
        seed : int
            of the random directions.

        Raises
        ------
        TypeError, ValueError
            if x is not an image batch.
        """
        check_image(x)
        model = _Model(self.M).to(torch.float64, copy=True)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return _measure(model, x.detach().to(torch.float64), self.quadrature, self.tol, generator)

    def _inspect(self, x: Tensor) -> IntegrabilityDefect | None:
        """Return the defect of the present parameters for images like x; raise if it is above the tolerance."""
        if not self.check:
            return None
        key = _versions(self.M)
        if key != self._verdict_key:
            self._verdicts, self._verdict_key = {}, key
        shape = (x.shape[1], min(x.shape[2], _CROP), min(x.shape[3], _CROP))
        if shape not in self._verdicts:
            self._verdicts[shape] = self._measure_like(x, shape)
        defect = self._verdicts[shape]
        if defect.worst > self.tol:
            raise NotAGradientError(
                f"M: its input convex gradient network is not the gradient of a convex function: asymmetry"
                f" {defect.asymmetry:.2g}, least relative curvature {defect.least_curvature:.2g} (tolerance"
                f" {self.tol:g}, {defect.nodes} nodes). One hidden layer a * s(W x + b) is valid; for a deep or coupled"
                f" one take DeepICGN (explicit backward sweep), SoftmaxICGN or GroupICGN, for vectors DenseDeepICGN and"
                f" the like. check=False turns this test off"
            )
        return defect

    def _measure_like(self, x: Tensor, shape: tuple[int, ...]) -> IntegrabilityDefect:
        generator = torch.Generator().manual_seed(0)
        full = torch.rand(_POINTS, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device)
        # A module with a fixed input size (a linear layer on all pixels) cannot take the crop.
        try:
            return self.integrability_defect(full[..., : shape[1], : shape[2]])
        except RuntimeError:
            if full.shape[1:] == shape:
                raise
            return self.integrability_defect(full)


@dataclass(frozen=True, eq=False)
class ICGNFunctional(BlackBoxFunctional):
    """The regularizer of :class:`ICGN` with fixed quadrature nodes; the same for every image.

    It refers to the parameters of M: gradients flow to them, and a later change of them changes the functional.
    """

    model: _Model
    rule: Rule
    bound: Tensor
    hessian: Hessian
    inspect: Callable[[Tensor], IntegrabilityDefect | None]

    def fn(self, x: Tensor) -> Tensor:
        """Evaluate the potential, shape (B,)."""
        self.inspect(x)
        return _potential(self.model, x, self.rule)

    def grad(self, x: Tensor) -> Tensor:
        """Evaluate the network N, shape of x."""
        self.inspect(x)
        return _network(self.model, x, self.rule)

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Multiply by the Hessian with the method that :class:`ICGN` describes, shape of x."""
        defect = self.inspect(x)
        measured = defect is not None and defect.gram_defect <= _GRAM_TOLERANCE
        if self.hessian == "gram" or (self.hessian == "auto" and measured):
            return _gram(self.model, x, v)
        out: Tensor = torch.func.jvp(lambda z: _network(self.model, z, self.rule), (x,), (v,))[1]
        return out

    def lipschitz(self) -> Tensor:
        """Return the bound that the caller gave, else inf."""
        return self.bound

    def strong_convexity(self) -> Tensor:
        """Return zero."""
        return torch.zeros_like(self.bound)

    def select(self, index: Tensor) -> ICGNFunctional:
        """Return the functional itself: it does not depend on the image."""
        return self

    def to(self, dtype: torch.dtype) -> ICGNFunctional:
        """Cast parameters and buffers of M to another precision; gradients still reach the originals."""
        return replace(self, model=self.model.to(dtype))


@dataclass(frozen=True, eq=False)
class _Model:
    """M with its own parameters, or with `tensors` in their place."""

    module: nn.Module
    tensors: dict[str, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        # An in-place operation in M would write to the image (and to the tangent): it gets its own.
        out = torch.func.functional_call(self.module, self.tensors or {}, (x.clone(),))
        if not isinstance(out, Tensor):
            raise TypeError(f"M: returned {type(out).__name__}, expected a tensor (B, ...)")
        if out.ndim == 0 or out.shape[0] != x.shape[0]:
            raise ValueError(f"M: returned shape {tuple(out.shape)}, expected ({x.shape[0]}, ...), one entry per image")
        return out.reshape(len(out), -1)

    def to(self, dtype: torch.dtype, copy: bool = False) -> _Model:
        """Return the module in another precision; `copy` also cuts it off from the original."""
        tensors = self.tensors
        if tensors is None:
            tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        if copy:
            tensors = {name: t.detach().clone() for name, t in tensors.items()}
        elif all(t.dtype == dtype for t in tensors.values() if t.is_floating_point()):
            return self
        return _Model(self.module, {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()})


def _pushforward(model: _Model, x: Tensor, v: Tensor) -> Tensor:
    out: Tensor = torch.func.jvp(model, (x,), (v,))[1]
    return out


def _gram(model: _Model, x: Tensor, v: Tensor) -> Tensor:
    pullback = torch.func.vjp(model, x)[1]
    out: Tensor = pullback(_pushforward(model, x, v))[0]
    return out


def _network(model: _Model, x: Tensor, rule: Rule) -> Tensor:
    total = torch.zeros_like(x)
    for s, w in _blocks(rule, x):
        images = x.expand(len(s), *x.shape).flatten(0, 1)
        parts = _gram(model, (s * x).flatten(0, 1), images).view(len(s), *x.shape)
        total = total + (w * parts).sum(0)
    return total


def _potential(model: _Model, x: Tensor, rule: Rule) -> Tensor:
    total = x.new_zeros(len(x))
    for s, w in _blocks(rule, x):
        images = x.expand(len(s), *x.shape).flatten(0, 1)
        parts = _pushforward(model, (s * x).flatten(0, 1), images).square().sum(1).view(len(s), -1)
        total = total + ((w * (1 - s)).view(-1, 1) * parts).sum(0)
    return total


def _blocks(rule: Rule, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Nodes and weights, shaped to broadcast over x, as many at once as make a batch of moderate size."""
    nodes, weights = (torch.tensor(r, dtype=torch.float64).to(x).view(-1, 1, 1, 1, 1) for r in rule)
    together = max(1, _BLOCK // x.numel())
    yield from zip(torch.split(nodes, together), torch.split(weights, together), strict=True)


def _versions(module: nn.Module) -> tuple[Any, ...]:
    """Return a key that changes whenever a parameter or buffer does (inference tensors count no versions)."""
    tensors = [*module.parameters(), *module.buffers()]
    return tuple((t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors)


def _measure(
    model: _Model, x: Tensor, quadrature: Quadrature, tol: float, generator: torch.Generator
) -> IntegrabilityDefect:
    # A random loop averages over the pixels: the fewer there are, the more loops.
    loops = [_sides(x, generator) for _ in range(2 if x[0].numel() >= 64 else 8)]
    n, found = 16, [_asymmetry(model, x, loops, 16)]
    while not _settled(found, tol) and n < _MOST_NODES:
        n *= 2
        found.append(_asymmetry(model, x, loops, n))
    rule = GaussLegendre(max(n, 32)).rule(random=False)

    def network(z: Tensor) -> Tensor:
        return _network(model, z, rule)

    least, greatest = extreme_curvatures(network, x, generator, step=_SIDE, iterations=8)
    refined = network(x)
    error = torch.linalg.vector_norm(_network(model, x, quadrature.rule(random=False)) - refined)
    return IntegrabilityDefect(
        asymmetry=found[-1],
        least_curvature=least / greatest if greatest > 0 else (0.0 if least == 0 else -math.inf),
        gram_defect=_gram_defect(model, x, loops, rule),
        quadrature_error=_ratio(error, torch.linalg.vector_norm(refined)),
        nodes=n,
    )


def _settled(found: list[float], tol: float) -> bool:
    """Whether the asymmetry is far below the tolerance or has stood still over two doublings of the nodes."""
    last = found[-1]
    return last <= tol / 4 or (len(found) > 2 and all(abs(a - last) < 0.1 * last for a in found[-3:]))


def _sides(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    u, v = (_SIDE * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) for _ in range(2))
    return u, v


def _asymmetry(model: _Model, x: Tensor, loops: list[tuple[Tensor, Tensor]], n: int) -> float:
    """RMS circulation around the loops, over what a wholly asymmetric N of the same size would have."""
    rule, along = GaussLegendre(n).rule(random=False), max(_SIDE_NODES, n // 2)
    start = torch.cat([corner for u, v in loops for corner in (x, x + u, x + v, x)])
    side = torch.cat([edge for u, v in loops for edge in (u, v, u, v)])
    t, w = (torch.tensor(r).to(x)[:, None] for r in GaussLegendre(along).rule(random=False))
    path = (start + t[:, :, None, None, None] * side).flatten(0, 1)
    work = dot(_network(model, path, rule), side.repeat(along, 1, 1, 1)).view(along, -1)
    work = (w * work).sum(0).view(len(loops), 4, len(x))
    circulation = work[:, 0] + work[:, 1] - work[:, 2] - work[:, 3]
    rise = torch.stack([_network(model, x + u, rule) - _network(model, x, rule) for u, _ in loops])
    return _ratio(circulation.square().mean().sqrt(), _SIDE * rise.flatten(2).square().sum(2).mean().sqrt())


def _gram_defect(model: _Model, x: Tensor, loops: list[tuple[Tensor, Tensor]], rule: Rule) -> float:
    """Distance of N(x + u) - N(x) from the integral of J^T J u along the side, relative."""
    t, w = (torch.tensor(r).to(x).view(-1, 1, 1, 1, 1) for r in GaussLegendre(_SIDE_NODES).rule(random=False))
    apart, size = torch.zeros(()).to(x), torch.zeros(()).to(x)
    for u, _ in loops:
        rise = _network(model, x + u, rule) - _network(model, x, rule)
        products = _gram(model, (x + t * u).flatten(0, 1), u.repeat(_SIDE_NODES, 1, 1, 1))
        along = (w * products.view(_SIDE_NODES, *x.shape)).sum(0)
        apart, size = apart + (rise - along).square().sum(), size + rise.square().sum()
    return _ratio(apart.sqrt(), size.sqrt())


def _ratio(part: Tensor, whole: Tensor) -> float:
    # The network of a constant module is zero, and so is its defect.
    return 0.0 if float(part) == 0 else float(part / whole)
