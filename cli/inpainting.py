"""``icgn inpaint``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deepinv
import numpy as np
import torch
from torch import Tensor

from icgn.cli.batch import check_not_overwritten, read_pair, restore_all
from icgn.cli.inverse import InverseRequest, Measurement, Tuning, restored_by
from icgn.cli.levels import regularizer_level
from icgn.cli.models import ModelFor, check_channels
from icgn.cli.outcome import Outcome
from icgn.datasets import Job, list_pictures, read_picture, to_gray
from icgn.pictures.denoise import picture_batch

DEFAULT_NOISE = 1.0
"""Noise of the known pixels in gray levels, if none is given: that of a clean 8-bit photograph."""

SMOOTHING = 6.0
"""Sigma of the regularizer over the noise level, unless it is given: about the best in ``docs/results/inverse``."""

# From this level of 255 on a pixel of the mask says that the picture is known.
_KNOWN_FROM = 127.5 / 255


def inpaint_files(request: InverseRequest, mask: Path) -> None:
    """Fill in missing pixels of picture files.

    Parameters
    ----------
    request : InverseRequest
        what to do; the noise is :data:`DEFAULT_NOISE` where it is None.
    mask : Path
        mask of all pictures, or folder of masks under the names of the pictures (the suffix may differ).

    Raises
    ------
    typer.Exit
        as :func:`icgn.cli.batch.restore_all`.
    """

    def jobs() -> list[Job]:
        found = request.jobs()
        for read in _masks(mask):
            check_not_overwritten(found, request.compare, read)
        return found

    def prepare(models: ModelFor, _: torch.device) -> _Inpaint:
        if not mask.is_dir():
            read_mask(mask)  # told at once, not for every picture
        return _Inpaint(models, Tuning.parse(request), mask)

    restore_all(request, prepare, "inpainting", "masked", jobs)


def read_mask(path: Path) -> Tensor:
    """Read a mask, bool (1, H, W): True, from gray level 128 on, where the picture is known; colour becomes gray.

    Raises
    ------
    ValueError
        naming ``--mask``, if it cannot be read or has no pixel that is known.
    """
    try:
        known = to_gray(read_picture(path)) >= _KNOWN_FROM
    except ValueError as error:
        raise ValueError(f"--mask: {error}") from error
    if not bool(known.any()):
        raise ValueError(f"--mask {path}: got no pixel of 128 or more, expected white where the picture is known")
    return known


def mask_measurement(picture: Tensor, known: Tensor) -> Measurement:
    """Pose the inpainting of pictures (B, C, H, W) known on a mask (1, H, W), in float64."""
    from scipy.ndimage import distance_transform_edt

    mask = known.to(picture.device).double().expand(picture.shape[1:]).contiguous()
    physics = deepinv.physics.Inpainting(tuple(picture.shape[1:]), mask=mask, device=picture.device)
    y = picture.double() * mask
    # Begin with the nearest known pixel.
    nearest = distance_transform_edt(~known[0].numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(np.asarray(nearest)).long().to(picture.device)
    return Measurement(y, physics, y[..., rows, columns])


class _Inpaint:
    """The work of ``icgn inpaint`` on one file."""

    def __init__(self, models: ModelFor, tuning: Tuning, mask: Path) -> None:
        self.models, self.tuning, self.mask = models, tuning, mask

    def __call__(self, job: Job) -> Outcome:
        picture, clean = read_pair(job)
        regularizer = self.models(len(picture.pixels))
        check_channels(regularizer, len(picture.pixels))
        place = _mask_of(self.mask, job.source)
        known = read_mask(place)
        if known.shape[1:] != picture.pixels.shape[1:]:
            sizes = [" x ".join(map(str, p.shape[1:])) for p in (known, picture.pixels)]
            raise ValueError(
                f"--mask {place}: got {sizes[0]} pixels, expected {sizes[1]} (height x width) as {job.source}"
            )
        noise = (DEFAULT_NOISE if self.tuning.noise is None else self.tuning.noise) / 255
        sigma = regularizer_level(job.source, noise, self.tuning.sigma, regularizer.sigma_range, SMOOTHING)
        measurement = mask_measurement(picture_batch(picture.pixels, regularizer), known)
        done = restored_by(picture, measurement, regularizer, noise, sigma, self.tuning)
        masked = replace(picture, pixels=picture.pixels * known)
        return Outcome(job.source.name, done, masked, clean, label="masked")


def _masks(mask: Path) -> list[Path]:
    try:
        return list_pictures(mask) if mask.is_dir() else [mask]
    except FileNotFoundError as error:
        raise ValueError(f"--mask: {error}") from error


def _mask_of(mask: Path, source: Path) -> Path:
    """The mask of a picture: the one of all, or that of its name in a folder."""
    if not mask.is_dir():
        return mask
    same_stem = [f for f in list_pictures(mask) if f.stem == source.stem]
    same_name = [f for f in same_stem if f.name == source.name]
    if not same_name and len(same_stem) != 1:
        found = f"{len(same_stem)} masks" if same_stem else "no mask"
        raise ValueError(f"--mask {mask}: got {found} for {source}, expected {mask / source.name}")
    return (same_name or same_stem)[0]
