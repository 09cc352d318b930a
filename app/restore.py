"""The work of the page: one picture restored and certified."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from icgn.app.models import load, model_name
from icgn.app.pictures import photograph
from icgn.app.tasks import TASKS, Damage, Posed, Subject
from icgn.app.watch import Point, Watch
from icgn.cli.batch import restored
from icgn.cli.deblurring import middle
from icgn.cli.levels import noise_part
from icgn.cli.models import check_channels, find_device
from icgn.cli.outcome import Restored
from icgn.datasets import Picture, estimate_sigma
from icgn.pictures.denoise import PictureSolution
from icgn.regularizers import ConvexRegularizer
from icgn.solvers import Problem, Solution, solve

GAP = 1e-2
"""Relative objective gap to be proved where no distance can be."""


@dataclass(frozen=True, eq=False)
class Order:
    """What a visitor asks for.

    Attributes
    ----------
    task : str
        key of :data:`icgn.app.tasks.TASKS`.
    model : str
        key of :data:`icgn.app.models.OFFERED`.
    noise : float or None
        level in gray levels; None to estimate it, of uploaded pictures only.
    strength : float
        factor of the regularizer; 1 as trained.
    tol : float
        RMS distance to the minimizer to be proved, in gray levels.
    damage : Damage
        kernel, factor and mask.
    """

    task: str
    model: str
    noise: float | None
    strength: float = 1.0
    tol: float = 0.08
    damage: Damage = field(default_factory=Damage)


@dataclass(frozen=True, eq=False)
class Result:
    """A restored picture with all that the page says about it; levels in intensities.

    Attributes
    ----------
    order : Order
        what was asked for.
    model : str
        name of the model.
    conditional : bool
        whether the certificate is that of a problem whose condition was computed from the picture.
    noise : float
        level, estimated or as given.
    posed : Posed
        the picture before, and the clean one.
    restored : Restored
        the picture with its certificate.
    history : list of Point
        the bounds on the way.
    """

    order: Order
    model: str
    conditional: bool
    noise: float
    posed: Posed
    restored: Restored
    history: list[Point]


def restore_photograph(order: Order, name: str, watch: Watch) -> Result:
    """Damage the bundled photograph of that name and restore it; errors as :func:`restore_upload`."""
    return _restore(order, photograph(name), name, True, watch)


def restore_upload(order: Order, picture: Picture, name: str, watch: Watch) -> Result:
    """Restore an uploaded picture, which keeps its alpha channel, profile, Exif block and depth.

    Raises
    ------
    ValueError
        for an order that cannot be carried out; the message is for the visitor.
    StoppedError, TooLongError
        as the watch says.
    """
    return _restore(order, picture, name, False, watch)


def _restore(order: Order, picture: Picture, name: str, clean: bool, watch: Watch) -> Result:
    if order.task not in TASKS:
        raise ValueError(f"task: got {order.task!r}, expected one of {', '.join(TASKS)}")
    _check("strength", order.strength, 10)
    _check("precision", order.tol, 10)
    task, channels = TASKS[order.task], len(picture.pixels)
    model = model_name(order.model, channels)
    regularizer = load(model, str(find_device(None)))
    check_channels(regularizer, channels)
    low, high = regularizer.sigma_range or (1 / 255, 1.0)
    noise = _noise(order, picture, name, clean, (low, high))
    posed = task.pose(Subject(name, picture.pixels, clean, noise), order.damage, regularizer)
    sigma = min(max(task.smoothing * noise, low), high)
    solution = _solve(order, posed, regularizer, noise, sigma, watch)
    result = PictureSolution.of(solution)
    # A deblurred picture has a margin, of which no more is known than what was blurred into the frame.
    inside = PictureSolution(middle(result.image, posed.before), solution)
    alpha = picture.alpha if inside.image.shape[-2:] == picture.pixels.shape[-2:] else None
    like = replace(picture, pixels=torch.zeros_like(inside.image), alpha=alpha)
    done = restored(like, inside, sigma, int(solution.stats.iterations.max()), solution.stats.seconds)
    return Result(order, model, solution.condition is not None, noise, posed, done, watch.history)


def _solve(
    order: Order, posed: Posed, regularizer: ConvexRegularizer, noise: float, sigma: float, watch: Watch
) -> Solution:
    """Denoising has no box: the data determine every pixel. Elsewhere the box bounds the gap."""
    measurement = posed.measurement
    denoising = order.task == "denoise"
    box = None if denoising else (0.0, 1.0)
    problem = Problem(measurement.y, measurement.physics, regularizer, sigma, noise, weight=order.strength, box=box).to(
        torch.float32
    )
    tol = order.tol / 255
    start: Tensor | None = measurement.start
    return solve(problem, watch.watched(problem, tol, GAP), tol, GAP, callback=watch.callback, x0=start)


def _noise(order: Order, picture: Picture, name: str, clean: bool, reach: tuple[float, float]) -> float:
    """The noise level in intensities: as given, or estimated and clamped to the trained range."""
    if order.noise is not None:
        _check("noise", order.noise, 255)
        return order.noise / 255
    if clean:
        raise ValueError("noise: the photograph is clean, expected the level to add; only uploads can be estimated")
    return min(max(estimate_sigma(noise_part(name, picture.pixels)), reach[0]), reach[1])


def _check(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise ValueError(f"{name}: got {value:g}, expected a number above 0, up to {most:g}")
