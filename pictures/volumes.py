"""Stacks restored as one volume: a joint problem with a regularizer of the slices along all three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import Container, Picture, PictureError, Stack
from icgn.functionals.noise import Poisson, PoissonGaussian
from icgn.pictures.counts import with_offset
from icgn.pictures.levels import NoiseLevel, Note, model_level, scaled_noise
from icgn.pictures.models import ModelFor, as_batch
from icgn.pictures.picture import bound_notes, misfit_notes, own_noise
from icgn.pictures.ranges import reach_at
from icgn.pictures.solving import solve_task
from icgn.pictures.stacks import Basis, PagedTask
from icgn.pictures.tasks import Denoise, Inpaint, Task
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


def read_volume(paged: PagedTask) -> Tensor:
    """All pages as one volume of intensities, float32 (D, H, W); what is no number where a mask hides it becomes one.

    Parameters
    ----------
    paged : PagedTask
        the open file and its task.

    Raises
    ------
    PictureError
        for colour, several channels, one page, or pages along several axes.
    """
    stack = paged.stack
    check_volume(stack)
    volume = torch.empty(len(stack), stack.container.height, stack.container.width)
    for i in range(len(stack)):
        pictures = paged.pictures(i)
        if len(pictures) != 1 or len(pictures[0].pixels) != 1:
            raise PictureError(
                f"{stack.path}: page {i + 1} has colours, and is no slice of a volume; expected gray pages"
            )
        volume[i] = pictures[0].pixels[0]
    return volume


def task_of(tasks: Sequence[Task]) -> Task:
    """What happened to a volume whose slices have these tasks: those of one kind, masks being joined."""
    first = tasks[0]
    if not isinstance(first, Inpaint):
        return first
    known = [t.known.reshape(1, *t.known.shape[-2:]) for t in tasks if isinstance(t, Inpaint)]
    return Inpaint(torch.cat(known)[None], words=first.words)


def spacing_of(container: Container) -> Spacing | None:
    """The distances of voxels along the pages, Y and X, as a file says them; None where it does not say all."""
    found = container.spacing
    if not all(found.get(axis, 0.0) > 0 for axis in "ZYX"):
        return None
    return found["Z"], found["Y"], found["X"]


def solve_volume(
    volume: Tensor,
    basis: Basis,
    *,
    task: Task,
    models: ModelFor,
    sigma: float | None = None,
    spacing: Spacing | None = None,
    weight: float | str = 1.0,
    clean: Tensor | None = None,
    **options: Any,
) -> tuple[Solution, float, tuple[Note, ...]]:
    r"""Restore a volume: minimize :math:`\sigma^2 |A v - y|^2 / (2\,\text{noise}^2) + w R(v; \sigma)`, certified.

    R is the :class:`~icgn.VolumeRegularizer` of the model for gray pictures. Where the noise changes from slice to
    slice, each has its own level in the data term, and R their root mean square.

    Parameters
    ----------
    volume : Tensor
        y, (D, H, W), floating point, intensities.
    basis : Basis
        the noise and the range of all slices.
    task : Task
        what happened to them: :class:`~icgn.pictures.Denoise`, :class:`~icgn.pictures.Deblur` with the kernel of every
        slice, :class:`~icgn.pictures.Inpaint` with a mask of each.
    models : callable
        gives the regularizer for so many channels.
    sigma : float, optional
        the level that R is asked to remove; default that of the noise times ``task.smoothing``, within the trained
        range.
    spacing : (float, float, float), optional
        distances of voxels along D, H and W; default equal.
    weight : float or str
        as for :func:`icgn.denoise`. A rule takes the median of the noise for all slices.
    clean : Tensor, optional
        the clean volume, against which changing noise is measured.
    **options
        of :func:`icgn.solve`: tol, gap_tol, max_iter, callback.

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
    y, limits = as_batch(volume, reg), basis.range
    if isinstance(task, Denoise) and sigma is None and isinstance(described, Poisson | PoissonGaussian):
        options.pop("gap_tol", None)
        solution = denoise(y, noise=described, regularizer=reg, range=limits, weight=weight, **options)
        return with_offset(solution, described), level.value if level else 0.0, ()
    if level is None and sigma is None:
        raise ValueError("sigma: got none, expected the level to remove, or a basis with the noise")
    known = NoiseLevel(sigma or 0.0) if level is None else level
    ratio: Tensor | None = None
    if basis.changing is not None and not isinstance(weight, str):
        levels = slice_levels(volume, basis, clean)
        mean = float(levels.square().mean().sqrt())
        known, ratio = scaled_noise(known, mean / known.value), (levels / mean).to(y)
    asked, notes = model_level(known, sigma, reach_at(reg, limits), task.smoothing)
    own = own_noise(task, known, asked, both=level is not None and sigma is not None)
    if ratio is not None:
        own = (asked if own is None else own) * ratio[None, :, None, None]
    pose = task.pose(y)
    solved = solve_task(task, y, pose, limits, reg, asked, own, weight, **options)
    doubt = (Note("weight", solved.doubt, warning=True),) if solved.doubt else ()
    return (
        solved.solution,
        asked,
        (*task.notes(pose), *notes, *bound_notes(solved), *misfit_notes(task, solved), *doubt),
    )


def slice_levels(volume: Tensor, basis: Basis, clean: Tensor | None = None) -> Tensor:
    """The noise of every slice of a volume (D, H, W), float64 (D,)."""
    levels = []
    for i in range(len(volume)):
        beside = None if clean is None else Picture(clean[i : i + 1])
        found = basis.noise_of(Picture(volume[i : i + 1]), beside)
        assert found is not None
        levels.append(found.value)
    return torch.tensor(levels, dtype=torch.float64)


def volume_regularizer(regularizer: ConvexRegularizer, spacing: Spacing | None = None) -> VolumeRegularizer:
    """The regularizer of volumes that a regularizer of gray pictures makes; one of volumes stays as it is."""
    if isinstance(regularizer, VolumeRegularizer):
        return regularizer
    return VolumeRegularizer(regularizer, spacing=spacing)
