"""Primal-dual splitting in the responses of the regularizer, with its duality gap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.data import GaussianData
from icgn.functionals.functional import ConvexFunctional, Responses, difference, dot, map_responses, per_image
from icgn.functionals.physics import is_identity
from icgn.solvers.certificate import Certificate, certify, distance_bound
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.projection import project
from icgn.solvers.methods.splitting import data_prox, parts

if TYPE_CHECKING:
    from icgn.functionals.box import Box
    from icgn.solvers.objective import Objective


@dataclass(frozen=True)
class PrimalDualState(State):
    r"""State with the dual variable and its primal point.

    Attributes
    ----------
    point : Responses
        p with :math:`z = \nabla h(p)`: the dual variable z is feasible whatever rounding does, and
        :math:`h^*(z) = \langle z, p\rangle - h(p)` needs no formula for :math:`h^*`.
    pulled : Tensor
        :math:`U^T z`, images.
    """

    point: Responses
    pulled: Tensor


class PrimalDual(Method[PrimalDualState]):
    r"""Primal-dual splitting of :math:`D(x) + h(U x)` (Chambolle and Pock 2011; with a box Condat 2013, Vu 2013).

    .. math::

        x_{k+1} = \mathrm{prox}_{\tau D}(x_k - \tau U^T z_k), \qquad
        z_{k+1} = \mathrm{prox}_{s h^*}\big(z_k + s\, U (x_{k+1} + \theta (x_{k+1} - x_k))\big).

    With a box the first line is the projected step :math:`P(x_k - \tau (\nabla D(x_k) + U^T z_k))`.

    Theorem (Chambolle and Pock 2011, J. Math. Imaging Vision 40, Theorems 1 and 3; with a box Condat 2013, J. Optim.
    Theory Appl. 158, Theorem 3.1): for :math:`\tau s |U|^2 \le 1` the iterates converge to a saddle point; linearly for
    the steps of Algorithm 3 where D is strongly convex, since :math:`h^*` is where h has a Lipschitz gradient. With a
    box, for :math:`1/\tau - s |U|^2 \ge L_D / 2`. Assumes a regularizer with a known proximal map of h and bounds of
    :math:`|U|` and of the curvature of h (ridge networks do, for pictures small enough that all responses are kept), a
    quadratic data term, and with a box one with a known Lipschitz constant.

    For denoising the certificate also has the duality gap
    :math:`D(x) + h(U x) + h^*(z) + D^*(-U^T z)`, and keeps the smaller bound.
    """

    splits = True

    of_data = frozenset({Capability.QUADRATIC})
    of_regularizer = frozenset({Capability.POTENTIAL_PROX})

    def check(self, objective: Objective) -> None:
        super().check(objective)
        regularizer, data = objective.regularizer, objective.data
        bounds = regularizer.linear_norm(), regularizer.potential_lipschitz()
        if not all(bool(torch.isfinite(bound).all()) for bound in bounds):
            kind = type(regularizer).__name__
            raise ValueError(
                f"method: {self.name} assumes a regularizer h(U x) with known bounds of U and h, got {kind}"
            )
        if objective.box is not None and not bool(torch.isfinite(data.lipschitz()).all()):
            kind = type(data.physics).__name__
            raise ValueError(
                f"method: {self.name} with a box assumes a data term of known Lipschitz constant, got {kind}"
            )

    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> PrimalDualState:
        p = parts(objective)
        u = objective.linear(x)
        point = u[1]
        pulled = per_image(p.weight, x) * p.regularizer.grad_from(point, x.shape)
        work = torch.ones(len(x), dtype=torch.float64, device=x.device)
        return PrimalDualState(x, u, _data_grad(p, u[0], x) + pulled, work, point, pulled)

    def step(self, objective: ConvexFunctional, state: PrimalDualState, box: Box | None) -> PrimalDualState:
        s, p = state, parts(objective)
        steps = _steps(p, s.x, box)
        x = self._primal(p, s, steps.primal, box)
        u = objective.linear(x)
        weight = p.weight.to(x)
        ahead = p.regularizer.move(u[1], difference(u[1], s.u[1]), steps.relaxation)
        # Moreau: with v = z / s + U(...) the primal point of the new dual variable is prox_{h / s}(v).
        z = p.regularizer.potential_grad(s.point)
        v = p.regularizer.move(ahead, z, weight / steps.dual)
        point = p.regularizer.prox_potential(v, weight / steps.dual)
        assert point is not None
        pulled = per_image(p.weight, x) * p.regularizer.grad_from(point, x.shape)
        grad = _data_grad(p, u[0], x) + per_image(p.weight, x) * p.regularizer.grad_from(u[1], x.shape)
        return PrimalDualState(x, u, grad, s.work + 1.5, point, pulled)

    def _primal(self, p: Objective, state: PrimalDualState, step: Tensor, box: Box | None) -> Tensor:
        x, t = state.x, per_image(step, state.x)
        if box is not None:
            return project(x - t * (_data_grad(p, state.u[0], x) + state.pulled), box)
        assert isinstance(p.data, GaussianData)
        return data_prox(p.data, x - t * state.pulled, step * p.data_weight.to(step))

    def certify(self, objective: ConvexFunctional, state: PrimalDualState, box: Box | None) -> Certificate:
        x, point = state.x.double(), map_responses(state.point, Tensor.double)
        proof = certify(objective, x, box=box)
        p = parts(objective)
        if box is not None or not is_identity(p.data.physics):
            return proof
        # Where the data do not count the duality gap may be 0 / 0.
        gap = torch.fmin(proof.objective_gap, duality_gap(p, x, point))
        distance = distance_bound(gap, proof.strong_convexity, x[0].numel())
        return replace(proof, objective_gap=gap, rms_distance=distance)


def duality_gap(p: Objective, x: Tensor, point: Responses) -> Tensor:
    r"""The gap :math:`D(x) + h(U x) + h^*(z) + D^*(-U^T z)` of a denoising problem, :math:`z = \nabla h` at `point`.

    It bounds F(x) - F*; shape (B,). Terms are grouped so that each is nonnegative and nothing cancels:
    :math:`\tfrac{1}{2 w} |w (x - y) + U^T z|^2`, and the Fenchel gap of h at U x and z.
    """
    u = p.regularizer.linear(x)
    weight, data_weight = p.weight.to(x), p.data_weight.to(x)
    z = p.regularizer.potential_grad(point)
    pulled = per_image(weight, x) * p.regularizer.linear_adjoint(z, x.shape)
    r = _data_grad(p, p.data.linear(x), x) + pulled
    zero = torch.zeros_like(weight)
    # h(u) - h(p) - <z, u - p>; the slope of h at p along u - p is <z, u - p>.
    fenchel = p.regularizer.potential(u) - p.regularizer.potential(point)
    fenchel = fenchel - p.regularizer.slope(point, difference(u, point), zero)
    return (dot(r, r) / (2 * data_weight) + weight * fenchel.clamp_min(0)).double()


@dataclass(frozen=True)
class _Steps:
    """Primal and dual step and the relaxation of the extrapolation, (B,)."""

    primal: Tensor
    dual: Tensor
    relaxation: Tensor


def _steps(p: Objective, x: Tensor, box: Box | None) -> _Steps:
    norm = p.regularizer.linear_norm().to(p.data_weight.device).expand(len(x))
    lipschitz = p.data_weight * p.data.lipschitz().to(p.data_weight.device)
    modulus = p.data_weight * p.data.strong_convexity().to(p.data_weight.device)
    if box is not None:
        dual = torch.maximum(lipschitz, norm) / norm.square()
        primal = 1 / (lipschitz / 2 + dual * norm.square())
        return _Steps(primal.to(x), dual.to(x), torch.ones_like(primal).to(x))
    # h* is strongly convex, for the gradient of h is Lipschitz.
    conjugate = 1 / (p.weight * p.regularizer.potential_lipschitz().to(norm)).clamp_min(1e-300)
    mu = 2 * (modulus * conjugate).sqrt() / norm
    strong = modulus > 1e-4 * lipschitz.nan_to_num(posinf=0.0)
    primal = torch.where(strong, mu / (2 * modulus), 1 / norm)
    dual = torch.where(strong, mu / (2 * conjugate), 1 / norm)
    return _Steps(primal.to(x), dual.to(x), torch.where(strong, 1 / (1 + mu), 1.0).to(x))


def _data_grad(p: Objective, measured: Responses, x: Tensor) -> Tensor:
    return per_image(p.data_weight, x) * p.data.grad_from(measured, x.shape)
