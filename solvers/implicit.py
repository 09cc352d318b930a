r"""Derivatives of a minimizer with respect to what defines it.

At :math:`\nabla F(x^*; \theta) = 0` the implicit function theorem gives
:math:`\frac{d\ell}{d\theta} = -\frac{\partial}{\partial\theta} \langle v, \nabla F(x^*; \theta)\rangle` with
:math:`v = (\nabla^2 F(x^*))^{-1} \nabla_x \ell`, found by conjugate gradients on Hessian products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional, dot, per_image
from icgn.solvers.methods.preconditioner import apply_preconditioner, preconditioner_at
from icgn.solvers.objective import Objective


def attach_gradient(
    graph: Objective, objective: Objective, x: Tensor, tol: float = 1e-6, max_iter: int = 200
) -> Tensor:
    r"""The minimizer x of an objective as a differentiable function of the regularizer's parameters and y.

    Parameters
    ----------
    graph : Objective
        built from parameters or a y that require gradients.
    objective : Objective
        the same without their graph.
    x : Tensor
        its minimizer (B, C, H, W), to good accuracy.
    tol : float
        relative residual of the linear system of the backward pass.
    max_iter : int
        conjugate-gradient steps allowed there; with 0 the identity takes the place of the inverse Hessian
        (Jacobian-free backpropagation, Fung et al. 2022, arXiv:2103.12803).

    Notes
    -----
    With a box, pixels at a bound do not move: the system is restricted to the others.
    """
    x = x.detach()
    with torch.enable_grad():
        grad = graph.grad(x)
    free = None if objective.box is None else objective.box.free(x)

    def adjoint_state(g: Tensor) -> Tensor:
        if max_iter == 0:
            return g if free is None else g * free.to(g)
        return solve_hessian(objective, x, g, free, torch.full((len(x),), tol).to(x), max_iter).v

    return attached(x, grad, adjoint_state)


def attached(x: Tensor, grad: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
    """The minimizer x as a function of what its gradient, 0 there, depends on; `solve` applies the inverse Hessian."""
    if not grad.requires_grad:
        return x
    grad.register_hook(solve)
    # In value x; the derivative of the second part, mapped by the hook, is the implicit one.
    return x - (grad - grad.detach())


@dataclass(frozen=True)
class LinearSystem:
    """The solution v (B, C, H, W) of a system with the Hessian, and the Hessian products it took."""

    v: Tensor
    iterations: int


@torch.no_grad()
def solve_hessian(
    objective: ConvexFunctional, x: Tensor, rhs: Tensor, free: Tensor | None, tol: Tensor, max_iter: int
) -> LinearSystem:
    r"""Preconditioned conjugate gradients for :math:`\nabla^2 F(x) v = r`, each image with its own coefficients.

    Parameters
    ----------
    free : Tensor, optional
        the pixels of the system; v vanishes elsewhere.
    tol : Tensor
        stop when every relative residual is below that of its image, shape (B,).
    """
    u = objective.linear(x)
    mask = torch.ones_like(x) if free is None else free.to(x)
    preconditioner = preconditioner_at(objective, u, x)
    r = rhs * mask
    stop = tol.to(r).square() * dot(r, r)
    v = torch.zeros_like(r)
    z = mask * apply_preconditioner(preconditioner, r)
    p, rz = z, dot(r, z)
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for k in range(max_iter):
        hp = mask * objective.hvp_from(u, objective.linear(p), x.shape)
        php = dot(p, hp)
        alpha = torch.where((php > 0) & ~done, rz / php, 0.0)
        v = torch.addcmul(v, p, per_image(alpha, v))
        r = torch.addcmul(r, hp, per_image(-alpha, r))
        # An image that is done waits: its solution does not depend on how long the others take.
        done = done | (dot(r, r) <= stop)
        if bool(done.all()):
            return LinearSystem(v, k + 1)
        z = mask * apply_preconditioner(preconditioner, r)
        following = dot(r, z)
        p = torch.addcmul(z, p, per_image((following / rz).nan_to_num(0.0), p))
        rz = following
    return LinearSystem(v, max_iter)
