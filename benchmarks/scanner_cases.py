"""Simulated measurements of ``benchmarks/scanners.py``: MRI of eight coils, CT by counts, of pictures in packages."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.physics import MultiCoilMRI
from deepinv.physics.generator import GaussianMaskGenerator
from torch import Tensor

from icgn.scanners import Geometry, KSpace, Sinogram

COILS, LEVEL = 8, 0.01
# Side of the square in the middle that is measured where single places are drawn.
_MIDDLE = 24


@dataclass(frozen=True, eq=False)
class CoilCase:
    """K-space of a known picture.

    Attributes
    ----------
    name : str
        of picture, pattern and acceleration.
    clean : Tensor
        modulus (H, W) in [0, 1].
    kspace : KSpace
        what was measured, with a noise scan.
    maps : Tensor
        of the coils, complex128 (C, H, W), of sum of squares 1.
    """

    name: str
    clean: Tensor
    kspace: KSpace
    maps: Tensor


@dataclass(frozen=True, eq=False)
class RayCase:
    """Counts of a known slice.

    Attributes
    ----------
    name : str
        of the scan.
    clean : Tensor
        attenuation (W, W) in 1/cm, 0 outside the circle.
    sinogram : Sinogram
        what was counted.
    geometry : Geometry
        of the scan.
    """

    name: str
    clean: Tensor
    sinogram: Sinogram
    geometry: Geometry


def ray_case(name: str, photons: float, views: int, degrees: float, *, fan: bool = False) -> RayCase:
    """The CT slice of pydicom's test data within its circle, measured by counts.

    Parameters
    ----------
    name : str
        of the scan.
    photons : float
        counts of a ray without an object.
    views : int
        spread over so many
    degrees : float
        of rotation.
    fan : bool
        whether the beam is one, of a source half a metre away; else it is parallel.
    """
    import pydicom
    from pydicom.data import get_testdata_file

    found: Any = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    numbers = found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)
    side, spacing = len(numbers), float(found.PixelSpacing[0])
    angles = torch.arange(views, dtype=torch.float64) * degrees / views
    beam: dict[str, Any] = {}
    cells, cell = side, spacing
    if fan:
        # The fan of the circle, twice enlarged.
        cells, cell = 192, 1.5 * spacing
        beam = {"beam": "fan", "source_distance": 500.0, "detector_distance": 500.0}
        beam |= {"size": side, "pixel_spacing": spacing}
    geometry = Geometry(angles, cells, cell, **beam)
    # Water attenuates by 0.2 / cm.
    clean = torch.from_numpy(0.2 * (1 + numbers / 1000)).clamp_min(0) * geometry.circle
    pixels = geometry.physics().A(clean[None, None])[0, 0].T
    integrals = 0.1 * spacing * geometry.slant * pixels
    counts = torch.poisson(photons * (-integrals).exp(), generator=torch.Generator().manual_seed(0))
    return RayCase(name, clean, Sinogram.of_counts(counts, photons), geometry)


def pictures() -> dict[str, Tensor]:
    """Real MR pictures in [0, 1], float64 (H, W): a slice of nibabel's test data, and of dipy's if it is installed."""
    import nibabel
    from nibabel.testing import data_path

    volume: Any = nibabel.load(Path(data_path) / "example4d.nii.gz")
    found = {"EPI": np.asarray(volume.dataobj)[..., 12, 0].T.astype(float)}
    dipy = importlib.util.find_spec("dipy")
    if dipy is not None and dipy.submodule_search_locations:
        file = Path(dipy.submodule_search_locations[0]) / "data" / "files" / "t1_coronal_slice.npy"
        found["T1"] = np.load(file)[32:192, 48:208]
    return {name: torch.from_numpy(p / np.quantile(p, 0.999)).clamp(0, 1) for name, p in found.items()}


def coil_case(name: str, clean: Tensor, pattern: str, acceleration: int) -> CoilCase:
    """A picture with a smooth phase, measured by eight coils with noise that neighbours share.

    Parameters
    ----------
    name : str
        of the picture.
    clean : Tensor
        modulus (H, W).
    pattern : {"lines", "points"}
        deepinv's Gaussian lines, or single places, denser in the middle, as of volumes with two phase encodings.
    acceleration : int
        all places over measured ones.
    """
    height, width = clean.shape
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
    phase = 0.9 * y[:, None] - 0.6 * x + 0.7 * (y[:, None] * x) + 0.8 * x.square()
    maps = coil_maps(height, width)
    signal = MultiCoilMRI.fft(maps * torch.polar(clean, phase), dim=(-2, -1))
    generator = torch.Generator().manual_seed(acceleration)
    samples = signal + _noise(height * width, generator).reshape(signal.shape)
    make = {"lines": _lines, "points": _points}[pattern]
    measured = samples * make(height, width, acceleration, generator)
    kspace = KSpace.of(measured, noise=_noise(4096, generator))
    return CoilCase(f"{name}, {pattern} x{acceleration}", clean, kspace, maps)


def coil_maps(height: int, width: int) -> Tensor:
    """Smooth sensitivities of coils on an ellipse around the picture, complex128 (C, H, W), of sum of squares 1."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
    angles = 2 * torch.pi * torch.arange(COILS, dtype=torch.float64).view(-1, 1, 1) / COILS
    away = (y[:, None] - 1.1 * angles.sin()).square() + (x - 1.1 * angles.cos()).square()
    turn = angles + 0.5 * (y[:, None] * angles.cos() - x * angles.sin())
    maps = torch.polar((-away / 1.2).exp(), turn)
    return maps / maps.abs().square().sum(0).sqrt()


def _noise(count: int, generator: torch.Generator) -> Tensor:
    """Complex noise (C, N) of deviation 0.01 in either part, a third of it shared with the next coil."""
    real, imaginary = torch.randn(2, COILS, count, dtype=torch.float64, generator=generator)
    own = torch.complex(real, imaginary)
    return LEVEL * (own + own.roll(1, 0) / 3) / (1 + 1 / 9) ** 0.5


def _lines(height: int, width: int, acceleration: int, generator: torch.Generator) -> Tensor:
    made = GaussianMaskGenerator((2, height, width), acceleration=acceleration, rng=torch.Generator())
    return made.step(batch_size=1, seed=acceleration)["mask"][0, 0].bool()


def _points(height: int, width: int, acceleration: int, generator: torch.Generator) -> Tensor:
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
    density = (1 + 3 * (y[:, None].square() + x.square()).sqrt()) ** -2.0
    middle = (y[:, None].abs() * height < _MIDDLE) & (x.abs() * width < _MIDDLE)
    density[middle] = 1e9
    keys = torch.rand(height, width, dtype=torch.float64, generator=generator) ** (1 / density)
    kept = keys.flatten().argsort(descending=True)[: height * width // acceleration]
    return torch.zeros(height * width, dtype=torch.bool).index_fill(0, kept, True).reshape(height, width)
