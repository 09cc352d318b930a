"""The noise that patches are disturbed by, the table ``[noise]`` of a recipe."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.datasets import luma, simulate_camera
from icgn.functionals.noise import Poisson, PoissonGaussian, removal
from icgn.training.kinds import Kind
from icgn.training.ranges import PART, Range, is_number

NOISES: dict[str, type[TrainingNoise]] = {}
"""The kinds of noise by their ``type`` in a recipe; every subclass of :class:`TrainingNoise` adds itself."""


@keyword_only
@dataclass(frozen=True, eq=False)
class Disturbed:
    """A patch with noise.

    Attributes
    ----------
    clean : Tensor
        what is to be restored, (C, P, P), intensities in [0, 1].
    y : Tensor
        the measurement.
    sigma : float
        the level that the regularizer is asked to remove, in intensities.
    """

    clean: Tensor
    y: Tensor
    sigma: float


class TrainingNoise(Kind):
    """A kind of noise; subclasses are frozen dataclasses of its parameters, the keys of ``[noise]`` in a recipe.

    Attributes
    ----------
    measures : bool
        whether it disturbs measurements of every physics, or pictures alone.

    Raises
    ------
    RecipeError
        if a parameter is out of its range.
    """

    known: ClassVar[dict[str, Any]] = NOISES
    measures: ClassVar[bool] = True

    @abstractmethod
    def disturb(self, clean: Tensor, measured: Tensor, sigma: float, generator: torch.Generator) -> Disturbed:
        """Disturb a patch.

        Parameters
        ----------
        clean : Tensor
            the patch (C, P, P), intensities in [0, 1].
        measured : Tensor
            its noiseless measurement; the patch itself for denoising.
        sigma : float
            root mean square of the noise, in intensities.
        generator : torch.Generator
            of everything random, on the CPU.
        """


@dataclass(frozen=True)
class WhiteNoise(TrainingNoise, name="white"):
    r"""White Gaussian noise, the default: :math:`y = A x + \sigma n`."""

    def disturb(self, clean: Tensor, measured: Tensor, sigma: float, generator: torch.Generator) -> Disturbed:
        noise = torch.randn(measured.shape, generator=generator).to(measured)
        return Disturbed(clean=clean, y=measured + sigma * noise, sigma=sigma)


@keyword_only
@dataclass(frozen=True)
class CountNoise(TrainingNoise, name="poisson-gaussian"):
    r"""Counts with read-out noise, of variance :math:`a\, A x + b^2`.

    Attributes
    ----------
    share : float
        the part of the mean variance :math:`\sigma^2` that is due to counts, from above 0 to 1, which is Poisson noise.
    """

    ranges: ClassVar[dict[str, Range]] = {
        "share": (lambda v: is_number(v) and 0 < v <= 1, "a number from above 0 to 1")
    }
    share: float = 1.0

    def disturb(self, clean: Tensor, measured: Tensor, sigma: float, generator: torch.Generator) -> Disturbed:
        gain = self.share * sigma**2 / max(float(measured.clamp_min(0).mean()), 1e-3)
        read = sigma * math.sqrt(1 - self.share)
        noise = Poisson(gain) if read == 0 else PoissonGaussian(gain, read)
        return Disturbed(clean=clean, y=noise.draw(measured.clamp_min(0), generator), sigma=sigma)


@keyword_only
@dataclass(frozen=True)
class CameraNoise(TrainingNoise, name="camera"):
    """Noise of simulated cameras (:func:`icgn.datasets.simulate_camera`), which see the patch as their scene.

    Attributes
    ----------
    white : float
        the part of the patches that have white noise instead, as in a picture that no camera has processed.
    spread : float
        standard deviation of the logarithm of the level that the regularizer is given over the right one: levels are
        estimated where it is used.
    """

    ranges: ClassVar[dict[str, Range]] = {"white": PART, "spread": PART}
    measures: ClassVar[bool] = False
    white: float = 0.15
    spread: float = 0.2

    def disturb(self, clean: Tensor, measured: Tensor, sigma: float, generator: torch.Generator) -> Disturbed:
        is_white, factor = torch.rand((), generator=generator), torch.randn((), generator=generator)
        if float(is_white) < self.white:
            return WhiteNoise().disturb(clean, measured, sigma, generator)
        shot = simulate_camera(clean.expand(3, -1, -1), sigma, generator)
        clean, noisy = (p if len(clean) == 3 else luma(p) for p in (shot.clean, shot.noisy))
        level = removal(shot.effective, shot.correlation) * math.exp(self.spread * float(factor))
        return Disturbed(clean=clean, y=noisy, sigma=level)
