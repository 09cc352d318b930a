"""Photographs as cameras write them, simulated: light counted by a mosaic of colours, processed, and compressed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets.mosaic import bayer_places, compressed, interpolated
from icgn.datasets.noise import effective_level, luma, neighbour_correlation

_GAMMA = 2.2
# Added on each side before anything is computed: borders of filters, and of the blocks of JPEG.
_BORDER = 4
# Malvar, He, Cutler 2004: green at red and blue; a colour at green, with its neighbours in the row; red at blue.
_Kernel = list[list[float]]
_GREEN: _Kernel = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
_IN_ROW: _Kernel = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
_ACROSS: _Kernel = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]


@keyword_only
@dataclass(frozen=True, eq=False)
class Shot:
    """A simulated photograph.

    Attributes
    ----------
    clean : Tensor
        what the camera would have written without noise, before rounding and compression, (3, H, W) in [0, 1].
    noisy : Tensor
        what it writes, of the same shape.
    level : float
        root mean square of noisy - clean, in intensities.
    effective : float
        the level of independent noise that is as strong (:func:`icgn.datasets.effective_level`).
    correlation : float
        that of neighbouring pixels of the noise (:func:`icgn.datasets.neighbour_correlation`).
    """

    clean: Tensor
    noisy: Tensor
    level: float
    effective: float
    correlation: float


def simulate_camera(scene: Tensor, sigma: float, generator: torch.Generator) -> Shot:
    r"""Photograph a scene by a random camera.

    The scene is enlarged by up to 2.5, because photographs are smooth at the size at which cameras write them. It
    becomes linear light (:math:`x^{2.2}`, white balance and a saturation matrix undone), is seen through a Bayer
    mosaic, with noise of variance :math:`a x + b^2`, demosaicked (Malvar, He, Cutler 2004, or bilinearly), and
    developed: white balance, saturation, tone curve. What the noise has added to the picture is smoothed as the noise
    reduction of a camera does, more in the colours than in the luma and less at detail, and scaled to the level asked
    for. The picture may be sharpened, is rounded to 8 bits, and mostly compressed by JPEG, at a quality of 87 to 98 or,
    in a fifth of the cases, 70 to 86. The order is that of Guo et al. 2019 (CBDNet, arXiv:1807.04686) and Brooks et al.
    2019 (arXiv:1811.11127), whose ranges of a and b are used.

    Parameters
    ----------
    scene : Tensor
        photograph (3, H, W), intensities in [0, 1].
    sigma : float
        root mean square of the noise before rounding and compression, in intensities.
    generator : torch.Generator
        of everything random, on the CPU.

    Raises
    ------
    ValueError
        for a scene of another shape or of fewer than 16 x 16 pixels, or a level that is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> from icgn.datasets import simulate_camera
    >>> shot = simulate_camera(torch.rand(3, 64, 48), 0.05, torch.Generator().manual_seed(0))
    >>> shot.noisy.shape, 0.04 < shot.level < 0.06
    (torch.Size([3, 64, 48]), True)
    """
    if scene.ndim != 3 or len(scene) != 3 or min(scene.shape[1:]) < 16:
        raise ValueError(f"scene: got shape {tuple(scene.shape)}, expected (3, H, W), H and W at least 16")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: got {sigma}, expected a finite number >= 0, in intensities")
    draw = _Draw(generator)
    height, width = scene.shape[1:]
    scene = _enlarged(scene.float(), draw)
    camera = _Camera.drawn(draw)
    raw = camera.undeveloped(scene)
    clean = camera.developed(camera.demosaicked(camera.mosaic(raw)))
    noise = camera.developed(camera.demosaicked(camera.exposed(camera.mosaic(raw), generator))) - clean
    noise = _reduced(noise, draw) * _detail_kept(clean, draw)
    strength, radius = draw.part(0.4) * draw.uniform(0.2, 0.8), draw.uniform(0.6, 1.2)
    clean, noise = (p + strength * (p - _smoothed(p, radius)) for p in (clean, noise))
    top, left = (draw.integer(2 * _BORDER + 1) for _ in range(2))
    cut = (..., slice(top, top + height), slice(left, left + width))
    # Compressed whole, so that blocks begin anywhere in the part that is kept.
    noise = sigma * noise / noise[cut].square().mean().sqrt().clamp_min(1e-12)
    clean = clean.clamp(0, 1)
    noisy = ((clean + noise).clamp(0, 1) * 255).round() / 255
    if draw.part(0.75):
        quality = draw.integer(12) + 87 if draw.part(0.8) else draw.integer(17) + 70
        noisy = compressed(noisy, quality, (0, 0, 1, 1, 2)[draw.integer(5)])
    error = (noisy - clean)[cut]
    level = float(error.square().mean().sqrt())
    return Shot(clean[cut], noisy[cut], level, effective_level(error), neighbour_correlation(error))


class _Draw:
    """Random numbers of one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self) -> float:
        return float(torch.randn((), generator=self.generator))

    def integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def part(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability


@dataclass(frozen=True, eq=False)
class _Camera:
    """How light becomes a picture: gains of white balance (3, 1, 1), saturation (3, 3), a and b, and the rest."""

    gains: Tensor
    saturation: Tensor
    shot: float
    read: float
    contrast: float
    bilinear: bool
    phase: tuple[int, int]

    @classmethod
    def drawn(cls, draw: _Draw) -> _Camera:
        gains = torch.tensor([draw.uniform(1.2, 2.4), 1.0, draw.uniform(1.2, 2.4)]).reshape(3, 1, 1)
        amount = draw.uniform(0, 0.25)
        log_shot = draw.uniform(math.log(1e-4), math.log(0.012))
        log_read = 2.18 * log_shot + 1.2 + 0.26 * draw.normal()
        return cls(
            gains=gains,
            saturation=(1 + 3 * amount) * torch.eye(3) - amount,
            shot=math.exp(log_shot),
            read=math.exp(log_read / 2),
            contrast=draw.uniform(0, 0.5),
            bilinear=draw.part(0.3),
            phase=(draw.integer(2), draw.integer(2)),
        )

    def undeveloped(self, picture: Tensor) -> Tensor:
        linear = torch.einsum("ij,jhw->ihw", torch.linalg.inv(self.saturation), picture.clamp(0, 1) ** _GAMMA)
        return (linear / self.gains).clamp_min(0)

    def developed(self, raw: Tensor) -> Tensor:
        linear = torch.einsum("ij,jhw->ihw", self.saturation, (raw * self.gains).clamp(0, 1))
        picture = linear.clamp(1e-5, 1) ** (1 / _GAMMA)
        return (1 - self.contrast) * picture + self.contrast * picture.square() * (3 - 2 * picture)

    def mosaic(self, raw: Tensor) -> Tensor:
        return (raw * self._places(raw)).sum(0, keepdim=True)

    def exposed(self, mosaic: Tensor, generator: torch.Generator) -> Tensor:
        deviation = (self.shot * mosaic + self.read**2).sqrt()
        return mosaic + deviation * torch.randn(mosaic.shape, generator=generator)

    def demosaicked(self, mosaic: Tensor) -> Tensor:
        places = self._places(mosaic)
        if self.bilinear:
            return interpolated(mosaic, places)
        green, row, across = (self._filtered(mosaic, kernel) for kernel in (_GREEN, _IN_ROW, _ACROSS))
        column = self._filtered(mosaic, torch.tensor(_IN_ROW).T.tolist())
        rows = torch.arange(mosaic.shape[1])[:, None] % 2 == self.phase[0]
        red_at_green = torch.where(rows, row, column)
        blue_at_green = torch.where(rows, column, row)
        red, at_green, blue = places.bool()
        own = mosaic[0]
        return torch.stack(
            [
                torch.where(red, own, torch.where(blue, across, red_at_green)),
                torch.where(at_green, own, green),
                torch.where(blue, own, torch.where(red, across, blue_at_green)),
            ]
        )

    def _filtered(self, mosaic: Tensor, kernel: _Kernel) -> Tensor:
        weight = torch.tensor(kernel)[None, None] / 8
        return F.conv2d(F.pad(mosaic[None], (2, 2, 2, 2), mode="reflect"), weight)[0, 0]

    def _places(self, picture: Tensor) -> Tensor:
        """1 where a colour is measured: red in the rows and columns of `phase`, blue in the others of both."""
        return bayer_places(picture.shape[1], picture.shape[2], self.phase).to(picture)


def _enlarged(scene: Tensor, draw: _Draw) -> Tensor:
    """A part of the scene, enlarged by 1 to 2.5 beyond the size with borders."""
    sides = [side + 2 * _BORDER for side in scene.shape[1:]]
    factor = draw.uniform(1, 2.5) if draw.part(0.75) else 1.0
    parts = [min(old, math.ceil(new / factor)) for old, new in zip(scene.shape[1:], sides, strict=True)]
    top, left = (draw.integer(old - part + 1) for old, part in zip(scene.shape[1:], parts, strict=True))
    part = scene[None, :, top : top + parts[0], left : left + parts[1]]
    return F.interpolate(part, size=sides, mode="bicubic", align_corners=False)[0].clamp(0, 1)


def _reduced(noise: Tensor, draw: _Draw) -> Tensor:
    """Noise (3, H, W) smoothed in luma and colours, a part of it left as it is.

    On photographs of the PolyU set the noise of the colours is half that of the luma, and keeps 85 % of its level in
    means of 4 x 4 pixels: cameras smooth it over many pixels.
    """
    gray = luma(noise).expand_as(noise)
    colours = noise - gray
    if draw.part(0.75):
        gray = _mixed(gray, draw.uniform(0.4, 1.5), draw.uniform(0, 0.3))
    if draw.part(0.85):
        colours = _mixed(colours, draw.uniform(1.5, 6.0), draw.uniform(0, 0.03))
    amount = draw.uniform(0.25, 0.9) * gray.square().mean().sqrt()
    return gray + amount * colours / colours.square().mean().sqrt().clamp_min(1e-12)


def _detail_kept(clean: Tensor, draw: _Draw) -> Tensor:
    """Factors of the noise (1, H, W): noise reduction spares what it takes for detail."""
    flat = draw.uniform(0.25, 1) if draw.part(0.6) else 1.0
    gray = luma(clean)
    detail = _smoothed((gray - _smoothed(gray, 1.5)).abs(), 2.0)
    return flat + (1 - flat) * (detail / draw.uniform(0.01, 0.04)).clamp(0, 1)


def _mixed(noise: Tensor, radius: float, kept: float) -> Tensor:
    return (1 - kept) * _smoothed(noise, radius) + kept * noise


def _smoothed(picture: Tensor, radius: float) -> Tensor:
    """A picture (C, H, W) convolved with a Gaussian."""
    half = min(math.ceil(3 * radius), min(picture.shape[1:]) - 1)
    places = torch.arange(-half, half + 1)
    line = torch.exp(-0.5 * (places / radius) ** 2)
    line = (line / line.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(picture[:, None], (half, half, half, half), mode="reflect")
    return F.conv2d(F.conv2d(padded, line), line.transpose(2, 3))[:, 0]
