"""Simulated measurements of whole pictures, and the error of the pictures restored from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import add_noise
from icgn.training.noise import Disturbed, TrainingNoise, WhiteNoise


def measure(clean: Tensor, sigma: float, seed: int, physics: Any, device: torch.device) -> Tensor:
    """Simulate measurements (1, ...) of a picture (C, H, W), with white noise that depends on the seed alone."""
    return add_noise(physics.A(clean[None].to(device)), sigma, seed)


def disturbed(
    clean: Tensor, sigma: float, seed: int, physics: Any, noise: TrainingNoise, device: torch.device
) -> Disturbed:
    """Simulate measurements (1, ...) of a picture (C, H, W) with a kind of noise; what to restore is (C, H, W)."""
    if isinstance(noise, WhiteNoise):
        return Disturbed(clean=clean, y=measure(clean, sigma, seed, physics, device), sigma=sigma)
    measured = physics.A(clean[None].to(device)).cpu()
    drawn = noise.disturb(clean, measured[0], sigma, torch.Generator().manual_seed(seed))
    return replace(drawn, y=drawn.y[None].to(device))


def psnr(x: Tensor, clean: Tensor) -> float:
    """PSNR in dB of a picture in [0, 1], at most 120; nan if the picture has NaN."""
    error = float((x - clean).square().mean())
    return -10 * math.log10(max(error, 1e-12))
