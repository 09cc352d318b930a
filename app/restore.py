"""The work of the page: one picture restored and certified."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from icgn.app.models import load, model_name
from icgn.app.pictures import check_pixels, photograph
from icgn.app.tasks import TASKS, Damage
from icgn.app.watch import TooLongError, Watch
from icgn.datasets import Picture, add_noise, seed_of
from icgn.pictures import NoiseLevel, Restored, estimated_level, restore_picture

GAP = 1e-2
"""Relative objective gap to be proved where no distance can be."""


@dataclass(frozen=True, eq=False)
class Order:
    """The order of a visitor.

    Attributes
    ----------
    task : str
        key of :data:`icgn.app.tasks.TASKS`.
    model : str
        key of :data:`icgn.app.models.OFFERED`.
    noise : float or None
        level in gray levels; None to estimate it, of uploaded pictures only.
    weight : float
        factor of the regularizer; 1 as trained.
    tol : float
        RMS distance to the minimizer to be proved, in gray levels.
    damage : Damage
        kernel, factor and mask.
    """

    task: str
    model: str
    noise: float | None
    weight: float = 1.0
    tol: float = 0.08
    damage: Damage = field(default_factory=Damage)


@dataclass(frozen=True, eq=False)
class Result:
    """A restored picture with everything that the page shows about it.

    Attributes
    ----------
    order : Order
        what was asked for.
    model : str
        name of the model.
    clean : Tensor or None
        (C, H, W), the truth where it is known.
    restored : Restored
        the picture with its certificate.
    watch : Watch
        the bounds on the way.
    """

    order: Order
    model: str
    clean: Tensor | None
    restored: Restored
    watch: Watch

    @property
    def before(self) -> Tensor:
        """The pixels (C, H, W) to compare with: every task of the page starts from a picture."""
        assert self.restored.before is not None
        return self.restored.before


def restore_photograph(order: Order, name: str, watch: Watch) -> Result:
    """Damage the bundled photograph of that name and restore it; errors as :func:`restore_upload`."""
    return _restore(order, photograph(name), name, True, watch)


def restore_upload(order: Order, picture: Picture, name: str, watch: Watch) -> Result:
    """Restore an uploaded picture, which keeps its alpha channel, profile, Exif block and depth.

    Raises
    ------
    ValueError
        for an order that cannot be carried out; the message is for the visitor.
    StoppedError
        if the visitor has stopped it.
    TooLongError
        if its time was over before the problem was posed that is certified.
    """
    return _restore(order, picture, name, False, watch)


def _restore(order: Order, picture: Picture, name: str, clean: bool, watch: Watch) -> Result:
    if order.task not in TASKS:
        raise ValueError(f"task: got {order.task!r}, expected one of {', '.join(TASKS)}")
    _check("weight", order.weight, 10)
    _check("precision", order.tol, 10)
    if order.noise is not None:
        _check("noise", order.noise, 255)
    elif clean:
        raise ValueError("noise: the photograph is clean, expected the level to add; only uploads can be estimated")
    task = TASKS[order.task]
    posed, truth = task.pose(order.damage), None
    noise = estimated_level(picture) if order.noise is None else NoiseLevel(order.noise / 255)
    model = model_name(order.model, len(picture.pixels))
    if clean:
        measured, truth = task.damaged(picture.pixels, order.damage)
        picture = replace(picture, pixels=add_noise(measured, noise.value, seed_of(name)))
    if order.task == "enlarge":
        check_pixels(name, *(order.damage.factor * side for side in picture.pixels.shape[1:]))
    restored = restore_picture(
        picture,
        task=posed,
        noise=noise,
        regularizer=load(model),
        tol=order.tol / 255,
        gap_tol=GAP,
        weight=order.weight,
        callback=watch.callback,
    )
    watch.check()
    if not restored.converged and "final" not in watch.history:
        raise TooLongError
    return Result(order, model, truth, restored, watch)


def _check(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise ValueError(f"{name}: got {value:g}, expected a number above 0, up to {most:g}")
