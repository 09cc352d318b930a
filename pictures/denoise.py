"""Denoising in one call."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import deepinv
import torch
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer, check_image
from icgn.regularizers.pretrained import DEFAULT_MODELS, load_pretrained
from icgn.regularizers.pullback import PerChannel
from icgn.solvers import Problem, Solution, Status, solve


def denoise(
    y: Tensor,
    sigma: float | Tensor,
    regularizer: ConvexRegularizer | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
    weight: float | Tensor | str = 1.0,
) -> Solution:
    r"""Remove white Gaussian noise: minimize :math:`\tfrac12 |x - y|^2 + w R(x; \sigma)`, certified.

    Parameters
    ----------
    y : Tensor
        noisy images (B, C, H, W), floating point, intensities in [0, 1] plus noise.
    sigma : float or Tensor
        standard deviation of the noise, in the same unit, one or one per image; 0 returns y.
    regularizer : ConvexRegularizer, optional
        default the shipped ``conditional-gray`` for one channel or three equal ones, ``conditional-color`` for other
        three, on the device of y.
    tol : float
        RMS distance to the exact minimizer that the certificate must prove, in intensities.
    max_iter : int
        iterations allowed per image.
    weight : float, Tensor or str
        strength w of the regularizer, 1 being the trained one; ``"sure"`` and ``"discrepancy"`` find it for each image
        without the clean one (:mod:`icgn.solvers.weight`). The certificate is of the problem with that weight.

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
        in 0..255), a batch without any finite image, or a negative or non-finite sigma or weight.
    """
    check_image(y, "y")
    model = _default(y) if regularizer is None else regularizer
    problem = Problem(y, deepinv.physics.Denoising(), model, sigma, weight=weight)
    _check_range(problem)
    return solve(problem, tol=tol, max_iter=max_iter)


@dataclass(frozen=True, eq=False)
class PictureSolution:
    """The solution of one picture, whose channels may have been solved one by one.

    Attributes
    ----------
    image : Tensor
        the restored picture (C, H, W), not clipped to [0, 1].
    solution : Solution
        with one entry per picture or per channel.
    """

    image: Tensor
    solution: Solution

    @classmethod
    def of(cls, solution: Solution) -> PictureSolution:
        """The picture of a solution (1, C, H, W), or (C, 1, H, W) with a channel in each entry."""
        return cls(solution.x.flatten(0, 1), solution)

    @property
    def rms_distance(self) -> float:
        """Certified RMS distance to the minimizer over all channels together, in intensities."""
        return float(self.solution.certificate.rms_distance.square().mean().sqrt())

    @property
    def relative_gap(self) -> float:
        """Certified gap of the objective over the objective, each summed over all channels."""
        certificate = self.solution.certificate
        gap = float(certificate.objective_gap.sum())
        return gap / abs(float(certificate.objective.sum())) if gap > 0 else 0.0

    @property
    def status(self) -> Status:
        """Converged if every channel has, else how the first that has not ended."""
        return next((s for s in self.solution.status if s is not Status.CONVERGED), Status.CONVERGED)


def picture_batch(picture: Tensor, regularizer: ConvexRegularizer) -> Tensor:
    """A picture (C, H, W) as the batch that a regularizer takes, on its device.

    Gray regularizers take each channel on its own, (C, 1, H, W); others the picture, (1, C, H, W).
    """
    # Hand-made regularizers have no parameters, and follow the device by a buffer.
    tensors = itertools.chain(regularizer.parameters(), regularizer.buffers())
    y = picture[None].to(next((t.device for t in tensors), picture.device))
    return y.transpose(0, 1).contiguous() if regularizer.channels == 1 else y


def denoise_picture(
    noisy: Tensor,
    sigma: float,
    regularizer: ConvexRegularizer,
    tol: float = 1e-4,
    max_iter: int = 1000,
    weight: float | str = 1.0,
) -> PictureSolution:
    """Denoise one picture (C, H, W); a gray regularizer takes its channels one by one.

    Parameters and errors as :func:`denoise`, which solves.
    """
    return PictureSolution.of(denoise(picture_batch(noisy, regularizer), sigma, regularizer, tol, max_iter, weight))


def _default(y: Tensor) -> ConvexRegularizer:
    if y.shape[1] not in DEFAULT_MODELS:
        raise ValueError(f"y: got {y.shape[1]} channels, expected 1 or 3, or a regularizer for that number")
    # Gray as colour: its noise is one, not the three independent ones that a model for colour expects.
    if y.shape[1] == 3 and bool(((y == y[:, :1]) | y.isnan()).all()):
        return PerChannel(load_pretrained(DEFAULT_MODELS[1], y.device))
    return load_pretrained(DEFAULT_MODELS[y.shape[1]], y.device)


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
