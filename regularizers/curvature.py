"""Curvature of a gradient field, measured by finite differences and a few Lanczos steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def extreme_curvatures(
    gradient: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, step: float, iterations: int
) -> tuple[float, float]:
    r"""Least and greatest secant curvature of a function around x, found by Lanczos iterations.

    A secant curvature is :math:`\langle \nabla g(x + d) - \nabla g(x - d), d\rangle / 2 |d|^2`; none of a convex
    function is negative, however long d is, whether it has kinks or not.

    Parameters
    ----------
    gradient : callable
        the gradient of g.
    x : Tensor
        images, all taken as one vector.
    generator : torch.Generator
        of the first direction.
    step : float
        RMS length of d.
    iterations : int
        Lanczos iterations, two gradients each.
    """
    values, directions = ritz(secant(gradient, x, step), random_direction(x, generator), iterations)
    exact = [float((d * secant(gradient, x, step)(d)).sum()) for d in (directions[0], directions[-1])]
    return min(float(values[0]), exact[0]) if exact[0] < 0 else exact[0], max(exact)


def random_direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """A unit vector shaped as x, uniform on the sphere."""
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    unit: Tensor = v / torch.linalg.vector_norm(v)
    return unit


def secant(gradient: Callable[[Tensor], Tensor], x: Tensor, step: float) -> Callable[[Tensor], Tensor]:
    """Return the map from v to the central difference of the gradient along v, with steps of RMS length `step`."""

    def product(v: Tensor) -> Tensor:
        h = step * math.sqrt(v.numel()) / float(torch.linalg.vector_norm(v))
        return (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)

    return product


def ritz(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> tuple[Tensor, list[Tensor]]:
    """Compute Ritz values of a symmetric operator, ascending, with their unit vectors (full reorthogonalisation)."""
    basis, images = [start.flatten()], []
    for _ in range(min(iterations, start.numel())):
        images.append(product(basis[-1].view(start.shape)).flatten())
        q = images[-1].clone()
        for _ in range(2):
            for b in basis:
                q -= torch.dot(b, q) * b
        length = float(torch.linalg.vector_norm(q))
        if not length > 1e-9 * float(torch.linalg.vector_norm(images[-1])):
            break
        basis.append(q / length)
    v = torch.stack(basis[: len(images)], 1)
    small = v.T @ torch.stack(images, 1)
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    return values, [u.view(start.shape) for u in (v @ rotation).T]
