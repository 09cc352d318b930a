"""The four tasks of the page: how a clean photograph is damaged, and what is then to be restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import deepinv
from torch import Tensor

from icgn import pictures


@dataclass(frozen=True, eq=False)
class Damage:
    """The inputs of a task beside the picture.

    Attributes
    ----------
    kernel : Tensor or None
        blur kernel (1, 1, h, w), as :func:`icgn.pictures.read_kernel` gives it.
    factor : int
        of the enlargement.
    missing : Tensor or None
        bool (1, H, W), True where the picture is not known.
    """

    kernel: Tensor | None = None
    factor: int = 2
    missing: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    label : str
        what the page calls it.
    before : str
        what the picture is called that the result is compared with.
    noise : float
        default noise level in gray levels.
    pose : callable
        ``pose(damage)`` returns what is to be restored; ``ValueError`` if the damage lacks something.
    damaged : callable
        ``damaged(clean, damage)`` returns a clean photograph (C, H, W) as it is measured, without noise, and the part
        of it that will be restored.
    """

    label: str
    before: str
    noise: float
    pose: Callable[[Damage], pictures.Task]
    damaged: Callable[[Tensor, Damage], tuple[Tensor, Tensor]] = lambda clean, damage: (clean, clean)


def _deblur(damage: Damage) -> pictures.Task:
    if damage.kernel is None:
        raise ValueError("blur: got no kernel, expected one: Gaussian, motion, or your own")
    return pictures.Deblur(damage.kernel)


def _blurred(clean: Tensor, damage: Damage) -> tuple[Tensor, Tensor]:
    """Only what the frame determines is measured, as in a photograph."""
    assert damage.kernel is not None
    size = damage.kernel.shape[-2:]
    if any(k >= side for k, side in zip(size, clean.shape[-2:], strict=True)):
        raise ValueError(f"blur: got a kernel of {tuple(size)} pixels, expected less than the picture")
    blurred: Tensor = deepinv.physics.Blur(damage.kernel.to(clean), padding="valid").A(clean[None])[0]
    top, left = (k // 2 for k in size)
    return blurred, clean[:, top : top + blurred.shape[-2], left : left + blurred.shape[-1]]


def _inpaint(damage: Damage) -> pictures.Task:
    if damage.missing is None or not bool(damage.missing.any()):
        raise ValueError("mask: nothing is marked, expected pixels to fill in: draw, give a rectangle, or a percentage")
    if bool(damage.missing.all()):
        raise ValueError("mask: everything is marked, expected some pixels that are known")
    return pictures.Inpaint(~damage.missing)


def _reduced(clean: Tensor, damage: Damage) -> tuple[Tensor, Tensor]:
    height, width = (side - side % damage.factor for side in clean.shape[-2:])
    clean = clean[:, :height, :width].contiguous()
    physics = pictures.Enlarge(damage.factor).physics(tuple(clean.shape), clean.device)
    return physics.A(clean[None].double())[0].to(clean), clean


TASKS: dict[str, Task] = {
    "denoise": Task("Remove noise", "noisy", 25.0, lambda damage: pictures.Denoise()),
    "deblur": Task("Sharpen a blur", "blurred", 2.5, _deblur, _blurred),
    "inpaint": Task("Fill in", "with missing pixels", 2.5, _inpaint),
    "enlarge": Task("Enlarge", "interpolated", 2.5, lambda damage: pictures.Enlarge(damage.factor), _reduced),
}
"""The tasks by key."""
