"""Stacks restored as one volume: a joint problem with a regularizer of the slices along all three axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from icgn.datasets import Container, PictureError, Stack
from icgn.functionals.noise import Poisson, PoissonGaussian
from icgn.pictures.counts import with_offset
from icgn.pictures.levels import NoiseLevel, Note, model_level
from icgn.pictures.models import ModelFor, as_batch
from icgn.pictures.ranges import Range, reach_at
from icgn.pictures.stacks import Basis, page_pictures
from icgn.pictures.tensors import denoise
from icgn.regularizers import ConvexRegularizer, VolumeRegularizer
from icgn.solvers import Solution

Spacing = tuple[float, float, float]
"""Distances of neighbouring voxels along Z (the pages), Y and X, in any unit."""


def check_volume(stack: Stack) -> None:
    """Raise ``PictureError`` unless the pages of a file are the gray slices of one volume."""
    found = stack.container
    wanted = "expected a stack of gray pages along one axis"
    if len(stack) == 1:
        raise PictureError(f"{stack.path}: got one picture for a volume, {wanted}")
    long = [f"{n} {a}" for a, n in zip(found.page_axes, found.page_shape, strict=True) if n > 1]
    if len(long) > 1 or any(part.endswith("C") for part in long):
        raise PictureError(f"{stack.path}: got pages along {' and '.join(long)} for a volume, {wanted}")
    if found.channels not in (1, 3):
        raise PictureError(f"{stack.path}: got pages of {found.channels} channels for a volume, {wanted}")


def read_volume(stack: Stack, file: Range) -> Tensor:
    """All pages as one volume of intensities, float32 (D, H, W).

    Parameters
    ----------
    stack : Stack
        the open file.
    file : (float, float)
        the numbers that become the intensities 0 and 1.

    Raises
    ------
    PictureError
        for colour, several channels, one page, or pages along several axes.
    """
    check_volume(stack)
    volume = torch.empty(len(stack), stack.container.height, stack.container.width)
    for i in range(len(stack)):
        pictures = page_pictures(stack.page(i), file)
        if len(pictures) != 1 or len(pictures[0].pixels) != 1:
            raise PictureError(
                f"{stack.path}: page {i + 1} has colours, and is no slice of a volume; expected gray pages"
            )
        volume[i] = pictures[0].pixels[0]
    return volume


def spacing_of(container: Container) -> Spacing | None:
    """The distances of voxels along the pages, Y and X, as a file says them; None where it does not say all."""
    found = container.spacing
    if not all(found.get(axis, 0.0) > 0 for axis in "ZYX"):
        return None
    return found["Z"], found["Y"], found["X"]


def denoise_volume(
    volume: Tensor,
    basis: Basis,
    *,
    models: ModelFor,
    sigma: float | None = None,
    spacing: Spacing | None = None,
    **options: Any,
) -> tuple[Solution, float, tuple[Note, ...]]:
    r"""Remove noise from a volume at once: minimize :math:`\tfrac12 |v - y|^2 + w R(v; \sigma)`, certified.

    R is the :class:`~icgn.VolumeRegularizer` of the model for gray pictures.

    Parameters
    ----------
    volume : Tensor
        y, (D, H, W), floating point.
    basis : Basis
        its noise and range.
    models : callable
        the regularizer for so many channels.
    sigma : float, optional
        the level to remove; default that of the noise, within the trained range.
    spacing : (float, float, float), optional
        distances of voxels along D, H and W; default equal.
    **options
        of :func:`icgn.denoise`: tol, max_iter, weight, callback.

    Returns
    -------
    Solution
        of volumes (1, D, H, W).
    float
        the level that the regularizer was asked to remove.
    tuple of Note
        what is to be said about it.

    Raises
    ------
    ValueError
        without any level, for a model that takes no gray pictures, or for a volume thinner than its filters.
    """
    level = basis.noise
    described = None if level is None else level.noise
    reg = volume_regularizer(models(1), spacing)
    y = as_batch(volume, reg)
    if sigma is None and level is not None and isinstance(described, Poisson | PoissonGaussian):
        solution = denoise(y, noise=described, regularizer=reg, range=basis.range, **options)
        return with_offset(solution, described), level.value, ()
    if level is None and sigma is None:
        raise ValueError("sigma: got none, expected the level to remove, or a basis with the noise")
    asked, notes = model_level(level or NoiseLevel(0.0), sigma, reach_at(reg, basis.range), 1.0)
    return denoise(y, asked, regularizer=reg, range=basis.range, **options), asked, tuple(notes)


def volume_regularizer(regularizer: ConvexRegularizer, spacing: Spacing | None = None) -> VolumeRegularizer:
    """The regularizer of volumes that a regularizer of gray pictures makes; one of volumes stays as it is."""
    if isinstance(regularizer, VolumeRegularizer):
        return regularizer
    return VolumeRegularizer(regularizer, spacing=spacing)
