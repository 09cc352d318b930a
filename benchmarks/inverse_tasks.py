"""The inverse problems of ``benchmarks/inverse.py``: operators, measurements and starting pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import deepinv
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from deepinv.physics.generator import GaussianMaskGenerator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from icgn.datasets import add_noise, seed_of

NOISE = 2.55 / 255
KERNELS = tuple(f"k{i}" for i in range(1, 9))
_TEXT = "The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True, eq=False)
class Case:
    """A picture to be restored.

    Attributes
    ----------
    name : str
        of the picture, and of the operator where there are several.
    clean : Tensor
        (1, C, H, W), intensities in [0, 1]; two channels, real and imaginary part, in MRI.
    physics : deepinv.physics.LinearPhysics
        A.
    y : Tensor
        A x + noise of standard deviation :data:`NOISE`, in the units of A x.
    start : Tensor
        what a solver begins with and is compared with: the best picture that costs nothing.
    box : (float, float)
        bounds of the intensities.
    """

    name: str
    clean: Tensor
    physics: Any
    y: Tensor
    start: Tensor
    box: tuple[float, float] = (0.0, 1.0)

    @property
    def complex(self) -> bool:
        """Whether the two channels are a complex picture."""
        return self.clean.shape[1] == 2

    def shown(self, x: Tensor) -> Tensor:
        """A picture (1, C, H, W) of this case as it is compared and shown, (1, H, W): the modulus if complex."""
        return torch.linalg.vector_norm(x[0], dim=0, keepdim=True) if self.complex else x[0]


Kernels = Mapping[str, Tensor]
Make = Callable[[str, Tensor, int, Kernels], Case]


def read_kernels(root: Path | None) -> dict[str, Tensor]:
    """The eight camera-shake kernels of Levin et al. (CVPR 2009), (1, 1, h, w), of ``root/levin09_kernels.npz``.

    Without a root, a horizontal and a diagonal motion in their stead, for trials.

    Raises
    ------
    FileNotFoundError
        if the file is not there.
    """
    if root is None:
        shapes = {"k1": torch.ones(1, 5), "k2": torch.eye(5)}
        return {name: (k / k.sum())[None, None] for name, k in shapes.items()}
    file = root / "levin09_kernels.npz"
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file, expected the arrays {', '.join(KERNELS)} of Levin's kernels")
    with np.load(file) as arrays:
        return {name: torch.from_numpy(arrays[name]).float()[None, None] for name in KERNELS}


def deblurring(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
    """Circular convolution with the kernel whose number is that of the picture, modulo eight."""
    kernel = sorted(kernels)[index % len(kernels)]
    physics = deepinv.physics.BlurFFT(tuple(image.shape), filter=kernels[kernel])
    case = _measured(f"{name} {kernel}", image[None], physics)
    # In float32 rounding is near the gap that is to be proved; not .to(float64), which drops imaginary parts.
    return replace(case, physics=physics.double(), y=case.y.double(), start=case.y.double())


def missing_half(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
    """Half of the pixels, chosen at random, are missing."""
    generator = torch.Generator().manual_seed(seed_of(name))
    return _inpainting(name, image, (torch.rand(image.shape, generator=generator) < 0.5).float())


def missing_text(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
    """The pixels under a text are missing."""
    return _inpainting(name, image, text_mask(image.shape[-2], image.shape[-1])[None])


def superresolution(factor: int) -> Make:
    """Every so many-th pixel of the picture after deepinv's bicubic filter, with circular borders."""

    def make(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
        physics = deepinv.physics.Downsampling(tuple(image.shape), filter="bicubic", factor=factor, padding="circular")
        case = _measured(name, image[None], physics)
        # The adjoint of that filter is bicubic interpolation but for the factor.
        return replace(case, start=factor**2 * physics.A_adjoint(case.y))

    return make


def mri(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
    """A quarter of the lines of k-space of a single coil: the middle ones, and others drawn from a Gaussian."""
    generator = GaussianMaskGenerator((2, *image.shape[-2:]), acceleration=4, rng=torch.Generator())
    mask = generator.step(batch_size=1, seed=seed_of(name) % 2**31)["mask"]
    physics = deepinv.physics.MRI(mask=mask, img_size=tuple(image.shape[-2:]))
    case = _measured(name, torch.cat([image, torch.zeros_like(image)])[None], physics)
    # In float32 the rounding of the transform is above the gap that is to be proved.
    y = (mask * case.y).double()
    return replace(case, y=y, start=physics.A_adjoint(y), box=(-1.0, 1.0))


def tomography(name: str, image: Tensor, index: int, kernels: Kernels) -> Case:
    """Sixty views, parallel beams, of a picture of 128 x 128; A has norm 1."""
    side = min(128, *image.shape[-2:])
    small = F.interpolate(image[None], size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
    # The norm is found by a power iteration from a random picture.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        physics = deepinv.physics.Tomography(angles=60, img_width=side, normalize=True)
    case = _measured(name, small, physics)
    return replace(case, start=physics.A_dagger(case.y))


@dataclass(frozen=True)
class Task:
    """A row of the table: its operator, what its start is called, and its pictures.

    It is tuned on `crops` pictures of `side` x `side` pixels: fewer and smaller ones where a solution takes long.
    """

    make: Make
    start: str
    pictures: str = "photographs"
    crops: int = 3
    side: int = 160


TASKS: dict[str, Task] = {
    "deblurring": Task(deblurring, "blurred"),
    "inpainting, half missing": Task(missing_half, "interpolated"),
    "inpainting, text": Task(missing_text, "interpolated"),
    "super-resolution x2": Task(superresolution(2), "bicubic"),
    "super-resolution x4": Task(superresolution(4), "bicubic"),
    "MRI x4": Task(mri, "zero-filled", crops=2, side=128),
    "MRI x4, phantom": Task(mri, "zero-filled", "phantom", crops=2, side=128),
    "CT, 60 views": Task(tomography, "filtered back-projection"),
    "CT, 60 views, phantom": Task(tomography, "filtered back-projection", "phantom", crops=2, side=128),
}


def text_mask(height: int, width: int) -> Tensor:
    """0 under lines of text that fill a picture, else 1; (H, W)."""
    font = ImageFont.load_default(size=16)
    sheet = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(sheet)
    for line, top in enumerate(range(0, height, 20)):
        # Every line begins with another word.
        text = _TEXT[(7 * line) % len(_TEXT) :] + _TEXT * (width // 200 + 1)
        draw.text((0, top), text, fill=0, font=font)
    return torch.from_numpy(np.array(sheet) >= 128).float()


def shepp_logan(side: int) -> Tensor:
    """The phantom of Shepp and Logan that scikit-image ships, (1, side, side) in [0, 1]."""
    from skimage import data as skimage_data

    data: Any = skimage_data  # untyped
    pixels = torch.from_numpy(data.shepp_logan_phantom()).float()[None, None]
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)


def ellipses(side: int, seed: int) -> Tensor:
    """A phantom to tune on: a bright skull with twelve random ellipses in it, (1, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(-1, 1, 2 * side)
    rows, columns = t[:, None], t[None, :]
    picture = _ellipse(rows, columns, 0, 0, 0.9, 0.7, 0.0) - 0.8 * _ellipse(rows, columns, 0, 0, 0.85, 0.65, 0.0)
    for r in torch.rand(12, 6, generator=generator).tolist():
        inside = _ellipse(
            rows, columns, 1.0 * r[0] - 0.5, 0.8 * r[1] - 0.4, 0.03 + 0.3 * r[2], 0.03 + 0.2 * r[3], math.pi * r[4]
        )
        picture = picture + (0.4 * r[5] - 0.15) * inside
    return F.avg_pool2d(picture.clamp(0, 1)[None], 2)


def _ellipse(rows: Tensor, columns: Tensor, y: float, x: float, a: float, b: float, angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * (rows - y) + s * (columns - x), c * (columns - x) - s * (rows - y)
    return ((u / a).square() + (v / b).square() <= 1).float()


def _measured(name: str, clean: Tensor, physics: Any) -> Case:
    with torch.no_grad():
        y = add_noise(physics.A(clean), NOISE, seed_of(name))
    return Case(name, clean, physics, y, clean)


def _inpainting(name: str, image: Tensor, mask: Tensor) -> Case:
    physics = deepinv.physics.Inpainting(tuple(image.shape), mask=mask)
    case = _measured(name, image[None], physics)
    y = mask * case.y
    return replace(case, y=y, start=_filled(y, mask))


def _filled(y: Tensor, mask: Tensor, radius: int = 6) -> Tensor:
    """Missing pixels as the Gaussian mean of their neighbours, of standard deviation 1.5 pixels."""
    t = torch.arange(-radius, radius + 1.0)
    line = torch.exp(-t.square() / (2 * 1.5**2))
    kernel = (line[:, None] * line)[None, None]
    weights = F.conv2d(mask[None], kernel, padding=radius)
    return y + (1 - mask) * F.conv2d(y, kernel, padding=radius) / weights.clamp_min(1e-12)
