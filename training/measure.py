"""Simulated measurements of whole pictures, and the error of the pictures restored from them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from icgn.datasets import add_noise


def measure(clean: Tensor, sigma: float, seed: int, physics: Any, device: torch.device) -> Tensor:
    """Simulate measurements (1, ...) of a picture (C, H, W), with noise that depends on the seed alone."""
    return add_noise(physics.A(clean[None].to(device)), sigma, seed)


def psnr(x: Tensor, clean: Tensor) -> float:
    """PSNR in dB of a picture in [0, 1], at most 120; nan if the picture has NaN."""
    error = float((x - clean).square().mean())
    return -10 * math.log10(max(error, 1e-12))
