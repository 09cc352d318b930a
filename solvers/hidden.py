r"""Functions that are minima over hidden pictures: :math:`g(x) = \min_z G(x, z)`, solved for x and z at once.

For G convex in both, g is convex, and :math:`\min_x D(x) + g(x) = \min_{x, z} D(x) + G(x, z)`: a method that sees the
objective as a whole walks over :math:`v = (x, z)`, one picture of more channels, and never computes g. For every v

.. math::

    F(x) - F^* \le (D(x) + G(x, z)) - F^*,

so that a certificate of the gap at v is one for x, and with :math:`\mu` of D of the distance too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.capability import Capability
from icgn.functionals.functional import (
    BlackBoxFunctional,
    ConvexFunctional,
    Responses,
    colour_basis,
)
from icgn.functionals.sums import SumFunctional
from icgn.functionals.wrapped import WrappedFunctional
from icgn.solvers.certificate import Certificate, distance_bound
from icgn.solvers.implicit import attached, solve_hessian
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.problem import Problem

# Power of the rounding unit to which hidden pictures of a single evaluation are found: 2e-12 in float64.
_ACCURACY = 0.75
_ITERATIONS = 2000
# Without a tenth less gradient in so many iterations, rounding has stopped them.
_STALL = 30


@dataclass(frozen=True, eq=False)
class PartialMinimum(BlackBoxFunctional):
    r"""The function :math:`g(x) = \min_z G(x, z)`, G convex and strongly convex in the hidden pictures z.

    .. math::

        \nabla g(x) = \nabla_x G(x, z^*), \qquad
        \nabla^2 g = G_{xx} - G_{xz} G_{zz}^{-1} G_{zx}, \qquad L_g \le L_G.

    A single evaluation finds :math:`z^*` to the rounding of the precision of x, and its derivatives by the implicit
    function theorem: slow. :func:`icgn.solvers.solve` walks over x and z instead (:func:`lifted`).

    Attributes
    ----------
    joint : ConvexFunctional
        G of pictures (B, C + K, H, W), x first; its ``hessian_floor`` is positive in the hidden channels.
    channels : int
        C of x.
    hidden : int
        K of z.
    """

    joint: ConvexFunctional
    channels: int
    hidden: int

    def fn(self, x: Tensor) -> Tensor:
        return self.joint.fn(self._complete(x))

    def grad(self, x: Tensor) -> Tensor:
        return self.joint.grad(self._complete(x))[:, : self.channels]

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        z = self.minimizer(x.detach())
        point, direction = torch.cat([x, z], 1), lift(v, self.hidden)
        curved = self.joint.hvp(point, direction)
        along = self._solve(x, z, curved[:, self.channels :])
        back = self.joint.hvp(point, torch.cat([torch.zeros_like(v), along], 1))
        return (curved - back)[:, : self.channels]

    @torch.no_grad()
    def minimizer(self, x: Tensor) -> Tensor:
        """The hidden pictures z* (B, K, H, W) of images x."""
        inner = self._slice(x)
        method = ConjugateGradient()
        state = method.init(inner, lift(x, self.hidden)[:, self.channels :], None)
        limit = torch.finfo(x.dtype).eps ** _ACCURACY
        best, since = torch.inf, 0
        for k in range(_ITERATIONS):
            # Images that are not finite have no minimizer to wait for.
            size = state.grad.square().flatten(1).mean(1).sqrt()
            residual = float(torch.where(torch.isfinite(size), size, 0.0).max())
            if residual < 0.9 * best:
                best, since = residual, k
            if not residual > limit or k - since >= _STALL:
                break
            state = method.step(inner, state, None)
        return state.x

    def lipschitz(self) -> Tensor:
        return self.joint.lipschitz()

    def strong_convexity(self) -> Tensor:
        return torch.zeros_like(self.joint.strong_convexity())

    def select(self, index: Tensor) -> PartialMinimum:
        return replace(self, joint=self.joint.select(index))

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> PartialMinimum:
        whole = torch.Size((shape[0], self.channels + self.hidden, *shape[2:]))
        return replace(self, joint=self.joint.blockwise(whole, limit))

    def to(self, dtype: torch.dtype) -> PartialMinimum:
        return replace(self, joint=self.joint.to(dtype))

    def _complete(self, x: Tensor) -> Tensor:
        """The pictures (x, z*), z* a differentiable function of x and of the parameters of G."""
        z = self.minimizer(x.detach())
        if torch.is_grad_enabled():
            grad = self.joint.grad(torch.cat([x, z], 1))[:, self.channels :]
            return torch.cat([x, attached(z, grad, lambda g: self._solve(x.detach(), z, g))], 1)
        return torch.cat([x, z], 1)

    def _solve(self, x: Tensor, z: Tensor, rhs: Tensor) -> Tensor:
        """The solution w of G_zz w = rhs."""
        tol = torch.full((len(x),), torch.finfo(x.dtype).eps ** _ACCURACY).to(x)
        return solve_hessian(self._slice(x), z, rhs, None, tol, _ITERATIONS).v

    def _slice(self, x: Tensor) -> _Slice:
        # A copy: what functionals keep for the next call must not be computed without the graph of their parameters.
        return _Slice(self.joint.to(x.dtype), x, self.hidden)


class _Slice(ConvexFunctional):
    """G(x, z) as a function of z for fixed x, whose responses are added to those of z."""

    def __init__(self, joint: ConvexFunctional, x: Tensor, hidden: int) -> None:
        self.joint, self.x, self.hidden = joint, x, hidden

    @cached_property
    def _fixed(self) -> Responses:
        return self.joint.linear(lift(self.x, self.hidden))

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.joint.capabilities

    def linear(self, x: Tensor) -> Responses:
        return self.joint.linear(torch.cat([torch.zeros_like(self.x), x], 1))

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return self._part(self.joint.linear_adjoint(z, self._whole(shape)))

    def potential(self, u: Responses) -> Tensor:
        return self.joint.potential(self._both(u))

    def potential_grad(self, u: Responses) -> Responses:
        return self.joint.potential_grad(self._both(u))

    def potential_hvp(self, u: Responses, q: Responses) -> Responses:
        return self.joint.potential_hvp(self._both(u), q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return self.joint.slope(self._both(u), q, t)

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return self.joint.curvature(self._both(u), q)

    def grad_from(self, u: Responses, shape: torch.Size) -> Tensor:
        return self._part(self.joint.grad_from(self._both(u), self._whole(shape)))

    def hvp_from(self, u: Responses, q: Responses, shape: torch.Size) -> Tensor:
        return self._part(self.joint.hvp_from(self._both(u), q, self._whole(shape)))

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        spectrum = self.joint.hessian_spectrum(self._both(u), self._whole(shape))
        return None if spectrum is None else spectrum[:, self.x.shape[1] :, self.x.shape[1] :]

    def lipschitz(self) -> Tensor:
        return self.joint.lipschitz()

    def strong_convexity(self) -> Tensor:
        return _hidden_modulus(self.joint, len(self.x), self.x.shape[1], self.x.device)

    def select(self, index: Tensor) -> _Slice:
        return _Slice(self.joint.select(index), self.x[index], self.hidden)

    def to(self, dtype: torch.dtype) -> _Slice:
        return _Slice(self.joint.to(dtype), self.x.to(dtype), self.hidden)

    def _both(self, u: Responses) -> Responses:
        return self.joint.move(u, self._fixed, torch.ones(len(self.x), device=self.x.device))

    def _part(self, v: Tensor) -> Tensor:
        return v[:, self.x.shape[1] :]

    def _whole(self, shape: torch.Size) -> torch.Size:
        return torch.Size((shape[0], shape[1] + self.x.shape[1], *shape[2:]))


@dataclass(frozen=True, eq=False)
class Visible(WrappedFunctional):
    """A function of x as one of (x, z)."""

    channels: int

    def map(self, x: Tensor) -> Tensor:
        return x[:, : self.channels]

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        return lift(z, shape[1] - self.channels)

    def mapped(self, shape: torch.Size) -> torch.Size:
        return torch.Size((shape[0], self.channels, *shape[2:]))

    def lipschitz(self) -> Tensor:
        return self.inner.lipschitz()

    def strong_convexity(self) -> Tensor:
        return torch.zeros_like(self.inner.strong_convexity())

    def hessian_floor(self, x: Tensor) -> Tensor:
        seen = self.map(x)
        return lift(self.inner.hessian_floor(seen).to(x).expand_as(seen), x.shape[1] - self.channels)

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        """The matrices of the inner spectrum in the channels of x, zero in the others."""
        spectrum = self.inner.hessian_spectrum(u, self.mapped(shape))
        if spectrum is None:
            return None
        spectrum = spectrum.expand(-1, self.channels, -1, -1)
        basis = colour_basis(spectrum)
        matrix = torch.einsum("dc,bdhw,de->bcehw", basis, spectrum, basis)
        more = shape[1] - self.channels
        return F.pad(matrix, (0, 0, 0, 0, 0, more, 0, more))


class LiftedObjective(SumFunctional):
    """Data term and regularizer over (x, z): strongly convex where the one is in x and the other in z."""

    def strong_convexity(self) -> Tensor:
        data, joint = self.terms
        assert isinstance(data, Visible)
        modulus = self.weights[0] * data.inner.strong_convexity().to(self.weights[0])
        hidden = _hidden_modulus(joint, len(modulus), data.channels, modulus.device)
        return torch.minimum(modulus, self.weights[1] * hidden)


def _hidden_modulus(joint: ConvexFunctional, batch: int, channels: int, device: torch.device) -> Tensor:
    """The modulus of G in the hidden channels, float64, (B,) or (1,): one pixel of one of them tells."""
    pixel = torch.zeros(batch, channels + 1, 1, 1, dtype=torch.float64, device=device)
    return joint.hessian_floor(pixel).expand(-1, channels + 1, 1, 1)[:, channels:].amin((1, 2, 3))


@dataclass(frozen=True)
class VisibleBox(Box):
    """A box for the first channels of pictures (x, z); z is free."""

    channels: int = 1

    def project(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return torch.minimum(torch.maximum(x, low), high)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.arange(x.shape[1], device=x.device).reshape(-1, 1, 1) < self.channels
        low, high = super().bounds(x)
        return torch.where(seen, low, -torch.inf), torch.where(seen, high, torch.inf)

    def free(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return (x > low) & (x < high) & torch.isfinite(x)


@dataclass(frozen=True, eq=False)
class LiftedProblem(Problem):
    """A problem whose regularizer is a :class:`PartialMinimum`, posed over (x, z)."""

    def __post_init__(self) -> None:
        # All else has been checked by the problem that this one is made of.
        if isinstance(self.box, Box) and not isinstance(self.box, VisibleBox):
            object.__setattr__(self, "box", VisibleBox(self.box.low, self.box.high, self._minimum.channels))

    @property
    def _minimum(self) -> PartialMinimum:
        functional = self.regularizer.at(self.sigma, self.condition)
        assert isinstance(functional, PartialMinimum)
        return functional

    def build_objective(self) -> LiftedObjective:
        plain = super().build_objective()
        data, minimum = plain.terms
        assert isinstance(minimum, PartialMinimum)
        return LiftedObjective([Visible(data, minimum.channels), minimum.joint], plain.weights)

    def start(self) -> Tensor:
        return lift(super().start(), self._minimum.hidden)


def lifted(problem: Problem) -> Problem:
    """The problem over (x, z) where the regularizer is a :class:`PartialMinimum` of positive weight, else as it is."""
    objective = problem.objective
    hides = isinstance(objective.terms[1], PartialMinimum) and bool((objective.weights[1] > 0).all())
    if not hides or isinstance(problem, LiftedProblem):
        return problem
    return LiftedProblem(**{f.name: getattr(problem, f.name) for f in fields(problem)})


def lift(x: Tensor, hidden: int) -> Tensor:
    """Pictures (x, 0) with hidden channels (B, C + `hidden`, H, W)."""
    return F.pad(x, (0, 0, 0, 0, 0, hidden))


def begun(problem: Problem, x: Tensor) -> Tensor:
    """The images x as a start of a problem that may be lifted."""
    return lift(x, problem.start().shape[1] - x.shape[1]) if isinstance(problem, LiftedProblem) else x


def seen(problem: Problem, x: Tensor) -> Tensor:
    """The visible part of the images of a problem that may be lifted."""
    data = problem.objective.terms[0]
    return x[:, : data.channels] if isinstance(data, Visible) else x


def tolerance(problem: Problem, tol: float) -> float:
    """The RMS distance in (x, z) that proves an RMS distance of `tol` in x."""
    data, mu = problem.objective.terms[0], problem.objective.strong_convexity()
    if not isinstance(data, Visible):
        return tol
    start = problem.start()
    part = data.channels / start.shape[1]
    modulus = problem.objective.weights[0] * data.inner.strong_convexity().to(mu)
    ratio = torch.where(mu > 0, modulus / mu, 1.0)
    return float(tol * (ratio * part).sqrt().min())


def proved(problem: Problem, certificate: Certificate) -> Certificate:
    """What a certificate of (x, z) proves of x."""
    data = problem.objective.terms[0]
    if not isinstance(data, Visible):
        return certificate
    mu = (problem.objective.weights[0] * data.inner.strong_convexity()).to(certificate.objective_gap)
    pixels = problem.start()[0, : data.channels].numel()
    distance = distance_bound(certificate.objective_gap, mu, pixels)
    return replace(certificate, rms_distance=distance, strong_convexity=mu)
