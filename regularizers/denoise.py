"""Denoising in one call."""

from __future__ import annotations

import deepinv
import torch
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.regularizers.pretrained import load_pretrained
from icgn.solvers import Problem, Solution, solve


def denoise(
    y: Tensor,
    sigma: float | Tensor,
    regularizer: ConvexRegularizer | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Solution:
    r"""Remove white Gaussian noise: minimize :math:`\tfrac12 |x - y|^2 + R(x; \sigma)`, certified.

    Parameters
    ----------
    y : Tensor
        noisy images (B, C, H, W), floating point, intensities in [0, 1] plus noise.
    sigma : float or Tensor
        standard deviation of the noise, in the same unit, one or one per image; 0 returns y.
    regularizer : ConvexRegularizer, optional
        default the shipped ``ridge-gray`` for one channel and ``ridge-color`` for three, on the device of y.
    tol : float
        RMS distance to the exact minimizer that the certificate must prove, in intensities.
    max_iter : int
        iterations allowed per image.

    Returns
    -------
    Solution
        ``x`` is not clipped to [0, 1].

    Raises
    ------
    TypeError
        if y is not a floating-point tensor.
    ValueError
        for a wrong shape or channel count, images smaller than a filter, intensities far outside [0, 1] (as of images
        in 0..255), a batch without any finite image, or a negative or non-finite sigma.
    """
    check_image(y)
    problem = Problem(y, deepinv.physics.Denoising(), _default(y) if regularizer is None else regularizer, sigma)
    _check_range(problem)
    return solve(problem, tol=tol, max_iter=max_iter)


def _default(y: Tensor) -> ConvexRegularizer:
    names = {1: "ridge-gray", 3: "ridge-color"}
    if y.shape[1] not in names:
        raise ValueError(f"y: got {y.shape[1]} channels, expected 1 or 3, or a regularizer for that number")
    return load_pretrained(names[y.shape[1]], y.device)


def _check_range(problem: Problem) -> None:
    """Refuse intensities that no noise of this level explains: the picture is in another unit."""
    y = problem.y[problem.valid]
    limit = 2 + 10 * float(torch.as_tensor(problem.sigma).max())
    largest = float(y.detach().abs().max())
    if largest > limit:
        raise ValueError(
            f"y: got values up to {largest:.4g}, expected intensities in [0, 1] plus noise;"
            " divide images in 0..255 by 255 (and sigma too)"
        )
