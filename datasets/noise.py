"""Noise: drawn so that two runs see the same pixels, measured, and estimated."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets.picture import LUMA

# The median of the absolute value of a standard normal number.
_MEDIAN = NormalDist().inv_cdf(0.75)


@keyword_only
def seed_of(name: str, *, seed: int = 0) -> int:
    """Derive a seed for one image of a run, the same in every process: 63 bits of the SHA-256 of seed and name.

    Parameters
    ----------
    name : str
        name of the image, e.g. of its file without folder and suffix.
    seed : int
        seed of the run.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def add_noise(image: Tensor, sigma: float, seed: int) -> Tensor:
    r"""Add white Gaussian noise: :math:`y = x + \sigma n` with n standard normal; not clamped.

    n is drawn on the CPU in float32 by :class:`deepinv.physics.GaussianNoise` and depends on nothing but the seed and
    the shape: not on the device, dtype or memory layout of the image, nor on sigma or on what was drawn before.

    Parameters
    ----------
    image : Tensor
        floating point, any shape, intensities in [0, 1]. Draw image by image, not for a batch, to make the noise of
        an image independent of the others.
    sigma : float
        standard deviation in the same unit, e.g. 25 / 255.
    seed : int
        of the generator; see :func:`seed_of`.

    Raises
    ------
    TypeError
        for an image that is not floating point.
    ValueError
        for a negative or non-finite sigma.

    Examples
    --------
    >>> import torch
    >>> from icgn.datasets import add_noise
    >>> y = add_noise(torch.zeros(1, 100, 100), 0.1, seed=0)
    >>> f"{y.std():.2f}"
    '0.10'
    """
    if not image.is_floating_point():
        raise TypeError(f"image: got {image.dtype}, expected a floating-point tensor with intensities in [0, 1]")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: got {sigma}, expected a finite number >= 0, in intensities (images in [0, 1])")
    import deepinv  # takes seconds; reading pictures does without

    generator = torch.Generator().manual_seed(seed)
    # deepinv takes the first axis for the batch of sigmas; a leading one keeps any shape of image valid.
    noise: Tensor = deepinv.physics.GaussianNoise(1.0, rng=generator)(torch.zeros(1, *image.shape))[0]
    return image + sigma * noise.to(image)


def measure_sigma(noisy: Tensor, clean: Tensor) -> float:
    r"""Measure the noise of an image whose clean one is known: the standard deviation of noisy - clean, in intensities.

    Raises
    ------
    ValueError
        if the shapes differ.
    """
    if noisy.shape != clean.shape:
        raise ValueError(f"clean: got shape {tuple(clean.shape)}, expected {tuple(noisy.shape)} as the noisy image")
    return float((noisy.double() - clean.double()).std(correction=0))


def neighbour_correlation(noise: Tensor) -> float:
    r"""Correlation of the noise of neighbouring pixels, in rows and columns, from 0 for white noise to 1.

    Parameters
    ----------
    noise : Tensor
        noisy - clean, (1, H, W), or (3, H, W) of which the luma is taken. H and W at least 2.

    Raises
    ------
    ValueError
        for another shape.
    """
    if noise.ndim != 3 or len(noise) not in (1, 3) or min(noise.shape[1:]) < 2:
        raise ValueError(f"noise: got shape {tuple(noise.shape)}, expected (1, H, W) or (3, H, W) of 2 x 2 or more")
    gray = scaled_luma(noise.detach().double())[0]
    gray = gray - gray.mean()
    along = (gray[1:] * gray[:-1]).mean() + (gray[:, 1:] * gray[:, :-1]).mean()
    return float((along / 2 / gray.square().mean().clamp_min(1e-24)).clamp(0, 1))


def effective_level(noise: Tensor) -> float:
    r"""The level of independent noise of all channels that is as strong, in the channels or in the luma.

    It is the larger one of the root mean square over all channels and that of the scaled luma
    (:func:`scaled_luma`). Both are the same for independent noise of equal channels; noise that is the same in all of
    them, as much of that of photographs is, looks to a regularizer like stronger noise than its root mean square.

    Parameters
    ----------
    noise : Tensor
        noisy - clean, (1, H, W) or (3, H, W).

    Raises
    ------
    ValueError
        for another shape.
    """
    parts = noise.detach().double(), scaled_luma(noise.detach().double())
    return max(float((p - p.mean((1, 2), keepdim=True)).square().mean().sqrt()) for p in parts)


def estimate_sigma(image: Tensor) -> float:
    """Estimate the standard deviation of white Gaussian noise, in intensities, by the finest wavelets.

    The median of :math:`|d|` over that of a standard normal distribution, d the diagonal details of Daubechies' wavelet
    of two moments that are not 0 (Donoho and Johnstone 1994, Biometrika 81(3), 425, section 4.2). scikit-image has the
    same, and takes half a second to import.

    Parameters
    ----------
    image : Tensor
        (C, H, W), intensities in [0, 1]. Each channel is estimated alone, and the estimates are averaged. A channel
        without any detail is left out, because it has no estimate. A constant image has sigma 0.

    Raises
    ------
    TypeError
        for anything but a tensor.
    ValueError
        for another number of dimensions, NaN or infinite pixels.
    """
    import pywt

    if not isinstance(image, Tensor):
        raise TypeError(f"image: got {type(image).__name__}, expected a torch.Tensor (C, H, W)")
    if image.ndim != 3:
        raise ValueError(f"image: got shape {tuple(image.shape)}, expected one picture (C, H, W), not a batch")
    if not bool(torch.isfinite(image).all()):
        raise ValueError("image: got NaN or infinite pixels, expected intensities in [0, 1]")
    details = [pywt.dwt2(channel, "db2")[1][2] for channel in image.double().cpu().numpy()]
    sigmas = [float(np.median(np.abs(d[d != 0]))) / _MEDIAN for d in details if d.any()]
    return sum(sigmas) / len(sigmas) if sigmas else 0.0


def luma(image: Tensor) -> Tensor:
    """The luma of a colour picture (3, H, W), (1, H, W): the weights of Pillow, without its rounding."""
    return torch.einsum("c,chw->hw", torch.tensor(LUMA, dtype=torch.float64).to(image), image)[None]


def scaled_luma(image: Tensor) -> Tensor:
    r"""Scale the luma of a colour picture so that white noise keeps its standard deviation; a gray picture stays.

    The luma of R, G and B, the picture (3, H, W), becomes the picture (1, H, W)

    .. math::

        (w_R R + w_G G + w_B B) / \sqrt{w_R^2 + w_G^2 + w_B^2}

    JPEG stores colour differences coarsely, and hardly any noise is left in them. The luma still has the noise that the
    picture had before it was compressed, or less, if the compression is strong (quality below 80) or the noise is of
    a few gray levels.

    Raises
    ------
    ValueError
        for another number of channels or dimensions.
    """
    if image.ndim != 3 or len(image) not in (1, 3):
        raise ValueError(f"image: got shape {tuple(image.shape)}, expected one picture (1, H, W) or (3, H, W)")
    if len(image) == 1:
        return image
    return luma(image) / math.hypot(*LUMA)
