"""Gradient steps that automatic differentiation can follow."""

from __future__ import annotations

import torch
from torch import Tensor

from icgn.functionals.functional import dot, per_image
from icgn.solvers.objective import Objective


def unroll(objective: Objective, x: Tensor, steps: int) -> Tensor:
    r"""Take gradient steps on an objective from images x (B, C, H, W), within the graph of its parameters and y.

    .. math::

        x_{k+1} = x_k - t_k g_k, \quad g_k = \nabla F(x_k), \qquad
        t_k = |g_k|^2 / \langle g_k, \nabla^2 F(x_k) g_k \rangle \text{ for even } k, \quad t_k = t_{k-1} \text{ else}

    per image: the alternate step gradient method (Dai 2003, IMA J. Numer. Anal. 23(2)), much faster than steepest
    descent at half its curvatures. Steps are constants to the derivative. With many of them the derivative tends to
    the implicit one; memory grows with them.

    Parameters
    ----------
    objective : Objective
        without a box, built with the graph of parameters or of y.
    x : Tensor
        starting images (B, C, H, W).
    steps : int
        number of steps.

    Raises
    ------
    ValueError
        if the problem has a box, or for a negative number of steps.
    """
    if objective.box is not None:
        raise ValueError("problem: gradient steps assume an unconstrained problem, got a box")
    if steps < 0:
        raise ValueError(f"steps: got {steps}, expected at least 0")
    t = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for k in range(steps):
        g = objective.grad(x)
        if k % 2 == 0:
            with torch.no_grad():
                bend = dot(g, objective.hvp(x.detach(), g))
                t = torch.where(bend > 0, dot(g, g) / bend, 0.0)
        x = x - per_image(t, x) * g
    return x
