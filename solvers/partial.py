"""Functions that are minima over latent pictures, evaluated on their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from icgn.functionals.functional import BlackBoxFunctional, ConvexFunctional, Joint, Responses
from icgn.functionals.latents import latent_modulus, lift
from icgn.functionals.wrapped import WrappedFunctional
from icgn.solvers.implicit import attached, solve_hessian
from icgn.solvers.iterate import StopRule, Verdict, iterate
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.method import State

# Power of the rounding unit to which latent pictures of a single evaluation are found: 2e-12 in float64.
_ACCURACY = 0.75
_ITERATIONS = 2000
# If the gradient has not fallen by a tenth in so many iterations, rounding has stopped it.
_STALL = 30


@dataclass(frozen=True, eq=False)
class PartialMinimum(BlackBoxFunctional):
    r"""The function :math:`g(x) = \min_z G(x, z)`, G convex and strongly convex in the latent pictures z.

    .. math::

        \nabla g(x) = \nabla_x G(x, z^*), \qquad
        \nabla^2 g = G_{xx} - G_{xz} G_{zz}^{-1} G_{zx}, \qquad L_g \le L_G.

    A single evaluation finds :math:`z^*` to the rounding of the precision of x, and its derivatives by the implicit
    function theorem: slow. :func:`icgn.solvers.solve` walks over x and z instead
    (:meth:`icgn.solvers.objective.Objective.lifted`).

    Attributes
    ----------
    joint : ConvexFunctional
        G of pictures (B, C + K, H, W), x first; its ``hessian_floor`` is positive in the latent channels.
    channels : int
        C of x.
    latents : int
        K of z.
    """

    joint: ConvexFunctional
    channels: int
    latents: int

    def over_latents(self, shape: torch.Size) -> Joint:
        return Joint(self.joint, self.channels, self.latents)

    def fn(self, x: Tensor) -> Tensor:
        return self.joint.fn(self._complete(x))

    def grad(self, x: Tensor) -> Tensor:
        return self.joint.grad(self._complete(x))[:, : self.channels]

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        z = self.minimizer(x.detach())
        point, direction = torch.cat([x, z], 1), lift(v, self.latents)
        curved = self.joint.hvp(point, direction)
        along = self._solve(x, z, curved[:, self.channels :])
        back = self.joint.hvp(point, torch.cat([torch.zeros_like(v), along], 1))
        return (curved - back)[:, : self.channels]

    @torch.no_grad()
    def minimizer(self, x: Tensor) -> Tensor:
        """The latent pictures z* (B, K, H, W) of images x."""
        start = lift(x, self.latents)[:, self.channels :]
        limit = torch.finfo(x.dtype).eps ** _ACCURACY
        return iterate("latents", self._slice(x), ConjugateGradient(), start, _Stall(limit), _ITERATIONS).x

    def lipschitz(self) -> Tensor:
        return self.joint.lipschitz()

    def strong_convexity(self) -> Tensor:
        return torch.zeros_like(self.joint.strong_convexity())

    def select(self, index: Tensor) -> PartialMinimum:
        return replace(self, joint=self.joint.select(index))

    def blockwise(self, shape: torch.Size, limit: int | None = None) -> PartialMinimum:
        whole = torch.Size((shape[0], self.channels + self.latents, *shape[2:]))
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
        return _Slice(self.joint.to(x.dtype), x, self.latents)


class _Stall(StopRule):
    """Images end when their RMS gradient is below a limit, or when rounding has stopped its fall."""

    every = 1

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._best: dict[int, tuple[float, int]] = {}

    def measure(self, objective: ConvexFunctional, state: State, index: Tensor) -> Tensor:
        return state.grad.square().flatten(1).mean(1).sqrt() / self.limit

    def look(self, k: int, objective: ConvexFunctional, state: State, index: Tensor, last: Tensor) -> Verdict:
        sizes = self.measure(objective, state, index)
        ended = last.tolist()
        for place, (i, size) in enumerate(zip(index.tolist(), sizes.tolist(), strict=True)):
            best, since = self._best.get(i, (torch.inf, 0))
            if size < 0.9 * best:
                best, since = size, k
            self._best[i] = best, since
            # An image that is not finite has no minimizer to wait for: its size is no number, and not above 1.
            ended[place] = ended[place] or not size > 1 or k - since >= _STALL
        return Verdict(torch.tensor(ended, device=index.device))


@dataclass(frozen=True, eq=False)
class _Slice(WrappedFunctional):
    """G(x, z) as a function of z for fixed x, whose responses are added to those of z."""

    x: Tensor
    latents: int

    @cached_property
    def _fixed(self) -> Responses:
        return self.inner.linear(lift(self.x, self.latents))

    def map(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(self.x), x], 1)

    def map_adjoint(self, z: Tensor, shape: torch.Size) -> Tensor:
        return z[:, self.x.shape[1] :]

    def mapped(self, shape: torch.Size) -> torch.Size:
        return torch.Size((shape[0], shape[1] + self.x.shape[1], *shape[2:]))

    def into(self, u: Responses) -> Responses:
        return self.inner.move(u, self._fixed, torch.ones(len(self.x), device=self.x.device))

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        spectrum = self.inner.hessian_spectrum(self.into(u), self.mapped(shape))
        return None if spectrum is None else spectrum[:, self.x.shape[1] :, self.x.shape[1] :]

    def lipschitz(self) -> Tensor:
        return self.inner.lipschitz()

    def strong_convexity(self) -> Tensor:
        return latent_modulus(self.inner, len(self.x), self.x.shape[1], self.latents, self.x.device)

    def select(self, index: Tensor) -> _Slice:
        return replace(super().select(index), x=self.x[index])

    def to(self, dtype: torch.dtype) -> _Slice:
        return replace(super().to(dtype), x=self.x.to(dtype))
