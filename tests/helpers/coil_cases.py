"""Simulated coils: smooth maps, a picture with a smooth phase, and its k-space with correlated noise."""

from __future__ import annotations

import deepinv
import torch
from torch import Tensor


def maps(coils: int, side: int) -> Tensor:
    """Sensitivities that fall off from places around the picture, complex128 (C, H, W) with sum of squares 1."""
    t = torch.linspace(-1, 1, side, dtype=torch.float64)
    found = []
    for c in range(coils):
        angle = torch.tensor(2 * torch.pi * c / coils, dtype=torch.float64)
        away = (t[:, None] - 1.2 * angle.sin()).square() + (t[None] - 1.2 * angle.cos()).square()
        found.append(torch.polar((-away / 2).exp(), angle + 0.5 * t[:, None] * angle.cos() + 0.3 * t[None]))
    stacked = torch.stack(found)
    return stacked / stacked.abs().square().sum(0).sqrt()


def picture(side: int) -> Tensor:
    """A disc with two smaller ones in it and a smooth phase, complex128 (H, W) of modulus at most 1."""
    t = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = t[:, None], t[None]
    inside = (y.square() + x.square() < 0.7).double() * 0.6
    inside = inside + 0.4 * ((y - 0.3).square() + (x - 0.2).square() < 0.05)
    inside = inside - 0.3 * ((y + 0.3).square() + (x + 0.2).square() < 0.06)
    return torch.polar(inside, (0.8 * y + 0.5 * x.square()).expand_as(inside))


def mask(side: int, middle: int = 12, seed: int = 0) -> Tensor:
    """A third of all places and the middle ones, bool (H, W)."""
    drawn = torch.rand(side, side, generator=torch.Generator().manual_seed(seed)) < 0.35
    first = side // 2 - middle // 2
    drawn[first : first + middle, first : first + middle] = True
    return drawn


def covariance(coils: int) -> Tensor:
    """Of coils of different levels, neighbours correlated, complex128 (C, C)."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(coils, coils, dtype=torch.complex128, generator=generator)
    mixing = torch.eye(coils, dtype=torch.complex128) + 0.3 * mixing
    return mixing @ mixing.mH


def noise(coils: int, count: int, level: float, seed: int = 0) -> Tensor:
    """Noise of that covariance times the level squared, complex128 (C, N)."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(2, coils, count, dtype=torch.float64, generator=generator)
    return level * torch.linalg.cholesky(covariance(coils)) @ torch.complex(white[0], white[1])


def kspace(coils: int = 4, side: int = 32, level: float = 0.01) -> Tensor:
    """Undersampled k-space (C, H, W) of the picture, with noise; deepinv's centred transform."""
    clean = deepinv.physics.MultiCoilMRI.fft(maps(coils, side) * picture(side), dim=(-2, -1))
    noisy = clean + noise(coils, side * side, level).reshape(coils, side, side)
    return noisy * mask(side)
