"""Data terms as functionals: deepinv's fidelities and physics, with rigorous constants where they are known."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import deepinv
import torch
from torch import Tensor

from icgn.solvers.functional import ConvexFunctional, Responses, dot, per_image


@dataclass(frozen=True, eq=False)
class DataFunctional(ConvexFunctional):
    r"""The data term :math:`d(A x, y)` for a linear deepinv physics A; subclasses define d on the measurements."""

    y: Tensor
    physics: Any
    gram: tuple[float, float]
    """Rigorous lower and upper bound of A^T A (0 and inf where unknown)."""

    def linear(self, x: Tensor) -> Responses:
        return x if is_identity(self.physics) else self.physics.A(x)

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        assert isinstance(z, Tensor)
        return z if is_identity(self.physics) else self.physics.A_adjoint(z)

    def select(self, index: Tensor) -> DataFunctional:
        return replace(self, y=self.y[index], physics=_select_physics(self.physics, index, len(self.y)))

    def to(self, dtype: torch.dtype) -> DataFunctional:
        if self.y.dtype == dtype:
            return self
        # Not Module.to(dtype): that would drop the imaginary part of complex buffers.
        physics = copy.deepcopy(self.physics)
        return replace(
            self, y=self.y.to(dtype), physics=physics.double() if dtype is torch.float64 else physics.float()
        )


@dataclass(frozen=True, eq=False)
class GaussianData(DataFunctional):
    r""":math:`\tfrac12 |A x - y|^2`."""

    def potential(self, u: Responses) -> Tensor:
        r = _tensor(u) - self.y
        return dot(r, r) / 2

    def potential_grad(self, u: Responses) -> Tensor:
        return _tensor(u) - self.y

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        return _tensor(q)

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        return dot(_tensor(u) - self.y, _tensor(q)) + t * dot(_tensor(q), _tensor(q))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(_tensor(q), _tensor(q))

    def hessian_spectrum(self, u: Responses, shape: torch.Size) -> Tensor | None:
        if is_identity(self.physics):
            return _tensor(u).new_ones(1, 1, 1, 1)
        if isinstance(self.physics, deepinv.physics.BlurFFT):
            return self.physics.mask[..., 0].square().to(_tensor(u))
        return None

    def lipschitz(self) -> Tensor:
        return torch.tensor(self.gram[1], dtype=torch.float64)

    def strong_convexity(self) -> Tensor:
        return torch.tensor(self.gram[0], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class FidelityData(DataFunctional):
    r""":math:`d(A x, y)` for any convex, twice differentiable distance d of a :class:`deepinv.optim.DataFidelity`.

    No modulus is known: the Lipschitz bound is inf and the strong convexity 0.
    """

    fidelity: Any

    def potential(self, u: Responses) -> Tensor:
        return self.fidelity.d.fn(_tensor(u), self.y)

    def potential_grad(self, u: Responses) -> Tensor:
        # deepinv's default switches requires_grad on in place: hand it a copy of its own.
        return self.fidelity.d.grad(_tensor(u).detach().clone(), self.y).detach()

    def potential_hvp(self, u: Responses, q: Responses) -> Tensor:
        with torch.enable_grad():
            v = _tensor(u).detach().clone().requires_grad_()
            g = torch.autograd.grad(self.fidelity.d.fn(v, self.y).sum(), v, create_graph=True)[0]
            return torch.autograd.grad(g, v, _tensor(q).detach())[0]

    def slope(self, u: Responses, q: Responses, t: Tensor) -> Tensor:
        v = torch.addcmul(_tensor(u), _tensor(q), per_image(t, _tensor(u)))
        return dot(_tensor(self.potential_grad(v)), _tensor(q))

    def curvature(self, u: Responses, q: Responses) -> Tensor:
        return dot(self.potential_hvp(u, q), _tensor(q))

    def lipschitz(self) -> Tensor:
        return torch.tensor(torch.inf, dtype=torch.float64)

    def strong_convexity(self) -> Tensor:
        return torch.tensor(0.0, dtype=torch.float64)


def is_identity(physics: Any) -> bool:
    """Whether A is the identity: deepinv's Denoising."""
    return isinstance(physics, deepinv.physics.Denoising)


def gram_bounds(physics: Any) -> tuple[float, float]:
    r"""Rigorous bounds :math:`l I \preceq A^T A \preceq u I`, (0, inf) where unknown.

    Known: the identity, circular convolution (deepinv's BlurFFT, by the discrete Fourier transform of its kernel) and
    inpainting, both by their singular values.
    """
    if is_identity(physics):
        return 1.0, 1.0
    if isinstance(physics, deepinv.physics.BlurFFT | deepinv.physics.Inpainting):
        square = physics.mask.double().square()
        # The factors cover the float32 rounding of the phases, whose modulus is 1 only up to 1e-7.
        return float(square.min()) * (1 - 1e-6), float(square.max()) * (1 + 1e-6)
    return 0.0, float("inf")


def _select_physics(physics: Any, index: Tensor, batch: int) -> Any:
    """The physics of some images: parameters with one entry per image are indexed, shared ones kept."""
    names = [n for n, b in physics.named_buffers() if b.ndim and b.shape[0] == batch > 1]
    if not names:
        return physics
    selected = copy.deepcopy(physics)
    for name in names:
        owner = selected.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        setattr(owner, leaf, getattr(owner, leaf)[index])
    return selected


def _tensor(u: Responses) -> Tensor:
    assert isinstance(u, Tensor)
    return u
