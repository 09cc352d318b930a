"""How close a picture is to the clean one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

_WINDOW = 7


@dataclass(frozen=True)
class Quality:
    """PSNR in dB (inf for equal images) and mean SSIM (7 x 7 windows; nan for images smaller than one)."""

    psnr: float
    ssim: float


def quality(image: Tensor, clean: Tensor) -> Quality:
    """Measure PSNR and SSIM, by scikit-image, of an image clamped to [0, 1] as it is when written.

    Parameters
    ----------
    image, clean : Tensor
        (C, H, W), intensities in [0, 1]; SSIM is averaged over the channels.

    Raises
    ------
    ValueError
        if the shapes differ.
    """
    from skimage import metrics as skimage_metrics

    metrics: Any = skimage_metrics  # untyped

    if image.shape != clean.shape:
        raise ValueError(f"clean: got shape {tuple(clean.shape)}, expected {tuple(image.shape)} as the image")
    a, b = clean.cpu().double().numpy(), image.cpu().double().clamp(0, 1).numpy()
    with np.errstate(divide="ignore"):
        psnr = float(metrics.peak_signal_noise_ratio(a, b, data_range=1))
    if min(a.shape[1:]) < _WINDOW:
        return Quality(psnr, math.nan)
    return Quality(psnr, float(metrics.structural_similarity(a, b, data_range=1, channel_axis=0, win_size=_WINDOW)))
