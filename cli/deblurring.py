"""``icgn deblur``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import deepinv
import torch
from torch import Tensor

from icgn.cli.batch import check_not_overwritten, read_pair, restore_all, restored
from icgn.cli.inverse import InverseRequest, Measurement, Tuning, invert
from icgn.cli.levels import estimated_level, regularizer_level
from icgn.cli.models import ModelFor, check_channels
from icgn.cli.outcome import Outcome
from icgn.datasets import Job
from icgn.pictures.denoise import PictureSolution, picture_batch
from icgn.pictures.kernels import read_kernel

Border = Literal["valid", "circular"]

SMOOTHING = 7.5
"""Sigma of the regularizer over the noise level, unless it is given: about the best in ``docs/results/inverse``."""

# Convolutions by the Fourier transform are faster above so many values of a kernel.
_FFT_FROM = 225


def deblur_files(request: InverseRequest, kernel: str, border: Border) -> None:
    """Deblur picture files.

    Parameters
    ----------
    request : InverseRequest
        what to do; the noise is estimated where it is None.
    kernel : str
        as for :func:`icgn.pictures.kernels.read_kernel`.
    border : {"valid", "circular"}
        what lies outside of the frame: unknown, estimated and cut off; or the picture again.

    Raises
    ------
    typer.Exit
        as :func:`icgn.cli.batch.restore_all`.
    """

    def prepare(models: ModelFor, _: torch.device) -> _Deblur:
        return _Deblur(models, Tuning.parse(request), read_kernel(kernel), border)

    def jobs() -> list[Job]:
        found = request.jobs()
        if Path(kernel).is_file():
            check_not_overwritten(found, request.compare, Path(kernel))
        return found

    restore_all(request, prepare, "deblurring", "blurred", jobs)


def blur_measurement(blurred: Tensor, kernel: Tensor, border: Border) -> Measurement:
    """Pose the deblurring of pictures, in float64.

    Parameters
    ----------
    blurred : Tensor
        (B, C, H, W), intensities.
    kernel : Tensor
        (1, 1, h, w) of odd sides.
    border : {"valid", "circular"}
        with ``"valid"`` the unknown pictures are (B, C, H + h - 1, W + w - 1).

    Raises
    ------
    ValueError
        if the kernel is larger than the pictures.
    """
    size, frame = kernel.shape[-2:], blurred.shape[-2:]
    if size[0] > frame[0] or size[1] > frame[1]:
        raise ValueError(
            f"--kernel: got {size[0]} x {size[1]} pixels, expected at most the {frame[0]} x {frame[1]} of the picture"
        )
    y, kernel = blurred.double(), kernel.to(blurred.device)
    if border == "circular":
        shape = tuple(y.shape[1:])
        return Measurement(y, deepinv.physics.BlurFFT(shape, filter=kernel, device=y.device), y)
    physics = deepinv.physics.Blur(kernel, padding="valid", use_fft=kernel.numel() >= _FFT_FROM, device=y.device)
    below, right = size[0] // 2, size[1] // 2
    return Measurement(y, physics, torch.nn.functional.pad(y, (right, right, below, below), mode="replicate"))


class _Deblur:
    """The work of ``icgn deblur`` on one file."""

    def __init__(self, models: ModelFor, tuning: Tuning, kernel: Tensor, border: Border) -> None:
        self.models, self.tuning, self.kernel, self.border = models, tuning, kernel, border

    def __call__(self, job: Job) -> Outcome:
        blurred, clean = read_pair(job)
        regularizer = self.models(len(blurred.pixels))
        check_channels(regularizer, len(blurred.pixels))
        measurement = blur_measurement(picture_batch(blurred.pixels, regularizer), self.kernel, self.border)
        given, reach = self.tuning.noise, regularizer.sigma_range
        noise = estimated_level(job.source, blurred.pixels, reach) if given is None else given / 255
        sigma = regularizer_level(job.source, noise, self.tuning.sigma, reach, SMOOTHING)
        result, iterations, seconds = invert(measurement, regularizer, noise, sigma, self.tuning)
        inside = PictureSolution(middle(result.image, blurred.pixels), result.solution)
        return Outcome(
            job.source.name, restored(blurred, inside, sigma, iterations, seconds), blurred, clean, label="blurred"
        )


def middle(image: Tensor, like: Tensor) -> Tensor:
    """The middle of an image (C, H, W), as high and wide as another."""
    top, left = ((a - b) // 2 for a, b in zip(image.shape[-2:], like.shape[-2:], strict=True))
    return image[:, top : top + like.shape[-2], left : left + like.shape[-1]]
