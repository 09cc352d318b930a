"""The four tasks of the page as inverse problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import deepinv
import torch
from torch import Tensor

from icgn.app.pictures import check_pixels
from icgn.cli import deblurring, inpainting
from icgn.cli.deblurring import blur_measurement, middle
from icgn.cli.inpainting import mask_measurement
from icgn.cli.inverse import Measurement
from icgn.datasets import add_noise, seed_of
from icgn.pictures.denoise import picture_batch
from icgn.regularizers import ConvexRegularizer


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture to work on.

    Attributes
    ----------
    name : str
        of the photograph or file.
    pixels : Tensor
        (C, H, W), intensities.
    clean : bool
        True: a clean photograph, which the page damages itself first; False: damaged already.
    noise : float
        level in intensities, positive: to be added, or in the picture.
    """

    name: str
    pixels: Tensor
    clean: bool
    noise: float

    def noisy(self, pixels: Tensor) -> Tensor:
        """Measured pixels (C, H, W), with the noise added where the picture is clean."""
        return add_noise(pixels, self.noise, seed_of(self.name)) if self.clean else pixels


@dataclass(frozen=True, eq=False)
class Damage:
    """What a task has to know beside the picture.

    Attributes
    ----------
    kernel : Tensor or None
        blur kernel (1, 1, h, w), as :func:`icgn.pictures.kernels.read_kernel` gives it.
    factor : int
        of the enlargement.
    missing : Tensor or None
        bool (1, H, W), True where the picture is not known.
    """

    kernel: Tensor | None = None
    factor: int = 2
    missing: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Posed:
    """A task posed.

    Attributes
    ----------
    measurement : Measurement
        y, A and the start; for denoising A is the identity.
    before : Tensor
        (C, H, W), the picture to compare with, of the size of the result.
    clean : Tensor or None
        (C, H, W), the truth where it is known.
    """

    measurement: Measurement
    before: Tensor
    clean: Tensor | None


@dataclass(frozen=True)
class Task:
    r"""One task.

    Attributes
    ----------
    label : str
        what the page calls it.
    before : str
        what the picture is called that the result is compared with.
    noise : float
        default noise level in gray levels.
    smoothing : float
        sigma of the regularizer over the noise level: about what was best for the models in
        ``docs/results/inverse``, and exactly 1 for denoising.
    pose : callable
        ``pose(subject, damage, regularizer)`` returns the :class:`Posed` problem.
    """

    label: str
    before: str
    noise: float
    smoothing: float
    pose: Callable[[Subject, Damage, ConvexRegularizer], Posed]


def _denoise(subject: Subject, damage: Damage, regularizer: ConvexRegularizer) -> Posed:
    noisy = subject.noisy(subject.pixels)
    measurement = Measurement(picture_batch(noisy, regularizer), deepinv.physics.Denoising())
    return Posed(measurement, noisy, subject.pixels if subject.clean else None)


def _deblur(subject: Subject, damage: Damage, regularizer: ConvexRegularizer) -> Posed:
    kernel, pixels, clean = damage.kernel, subject.pixels, None
    if kernel is None:
        raise ValueError("blur: got no kernel, expected one: Gaussian, motion, or your own")
    if subject.clean:
        if any(k >= side for k, side in zip(kernel.shape[-2:], pixels.shape[-2:], strict=True)):
            raise ValueError(f"blur: got a kernel of {tuple(kernel.shape[-2:])} pixels, expected less than the picture")
        # Only what the frame determines is measured, as in a photograph.
        pixels = deepinv.physics.Blur(kernel.to(pixels), padding="valid").A(pixels[None])[0]
        clean = middle(subject.pixels, pixels)
    blurred = subject.noisy(pixels)
    return Posed(blur_measurement(picture_batch(blurred, regularizer), kernel, "valid"), blurred, clean)


def _inpaint(subject: Subject, damage: Damage, regularizer: ConvexRegularizer) -> Posed:
    if damage.missing is None or not bool(damage.missing.any()):
        raise ValueError("mask: nothing is marked, expected pixels to fill in: draw, give a rectangle, or a percentage")
    if bool(damage.missing.all()):
        raise ValueError("mask: everything is marked, expected some pixels that are known")
    known = ~damage.missing
    noisy = subject.noisy(subject.pixels)
    measurement = mask_measurement(picture_batch(noisy, regularizer), known)
    return Posed(measurement, noisy * known, subject.pixels if subject.clean else None)


def _enlarge(subject: Subject, damage: Damage, regularizer: ConvexRegularizer) -> Posed:
    factor, pixels, clean = damage.factor, subject.pixels, None
    if subject.clean:
        height, width = (side - side % factor for side in pixels.shape[-2:])
        clean = pixels[:, :height, :width].contiguous()
        pixels = _downsampling(clean, factor).A(clean[None])[0]
    else:
        height, width = (factor * side for side in pixels.shape[-2:])
    check_pixels(subject.name, height, width)
    small = subject.noisy(pixels)
    y = picture_batch(small, regularizer).double()
    physics = _downsampling(torch.empty(*y.shape[1:-2], height, width, dtype=y.dtype, device=y.device), factor)
    # The adjoint of the bicubic filter is bicubic interpolation but for the factor.
    start = factor**2 * physics.A_adjoint(y)
    return Posed(Measurement(y, physics, start), start.flatten(0, 1).float().cpu(), clean)


def _downsampling(like: Tensor, factor: int) -> deepinv.physics.Downsampling:
    physics = deepinv.physics.Downsampling(
        tuple(like.shape), filter="bicubic", factor=factor, padding="circular", device=like.device
    )
    # `to` would cut the imaginary parts off its transforms.
    return physics.double() if like.dtype is torch.float64 else physics


TASKS: dict[str, Task] = {
    "denoise": Task("Remove noise", "noisy", 25.0, 1.0, _denoise),
    "deblur": Task("Sharpen a blur", "blurred", 2.5, deblurring.SMOOTHING, _deblur),
    "inpaint": Task("Fill in", "with missing pixels", 2.5, inpainting.SMOOTHING, _inpaint),
    "enlarge": Task("Enlarge", "interpolated", 2.5, 8.0, _enlarge),
}
"""The tasks by key."""
