"""The noise level of a picture, and the level that the regularizer is asked to remove; all in intensities."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from icgn.datasets import Picture, effective_level, measure_sigma, neighbour_correlation
from icgn.functionals.noise import Correlated, Noise, White, removal
from icgn.pictures.noise import ALIKE, COHERENT, NoiseEstimate, estimate_noise

Reach = tuple[float, float] | None
"""Trained range of a regularizer (``sigma_range``)."""


@dataclass(frozen=True)
class Note:
    """One thing that a caller should say about a picture.

    Attributes
    ----------
    topic : str
        what it is about: ``"noise"``, ``"jpeg"``, ``"clamped"``, ``"range"``, ``"weight"``, ``"alpha"``,
        ``"scale"``, ``"bounds"``, ``"mask"``, ``"kernel"``.
    template : str
        the sentence, with a format field for each level, and ``{unit}``.
    levels : tuple of float
        in intensities.
    warning : bool
        whether the result may not be what the caller wants.
    """

    topic: str
    template: str
    levels: tuple[float, ...] = ()
    warning: bool = False

    def text(self, *, scale: float = 1.0, unit: str = "of intensity") -> str:
        """The sentence with the levels times `scale`, e.g. 255 for the unit ``"gray levels"``."""
        return self.template.format(*(scale * level for level in self.levels), unit=unit)


@dataclass(frozen=True, eq=False)
class EstimateNote(Note):
    """The sentence that says which noise was found.

    Attributes
    ----------
    estimate : NoiseEstimate
        what was found.
    """

    estimate: NoiseEstimate | None = None

    def text(self, *, scale: float = 1.0, unit: str = "of intensity") -> str:
        """The sentence with the levels times `scale`."""
        assert self.estimate is not None
        return f"noise estimated: {self.estimate.text(scale, unit)}"


@dataclass(frozen=True)
class NoiseLevel:
    """The noise of a picture.

    Attributes
    ----------
    value : float
        root mean square over the picture, in intensities.
    found : {"given", "measured", "estimated"}
        how it was found.
    notes : tuple of Note
        what is to be said about it.
    noise : Noise, optional
        its description, where it is more than a level.
    removal : float, optional
        the level that a regularizer should be asked to remove, where it is not `value`: correlated noise.
    """

    value: float
    found: Literal["given", "measured", "estimated"] = "given"
    notes: tuple[Note, ...] = ()
    noise: Noise | None = None
    removal: float | None = None

    @property
    def to_remove(self) -> float:
        """The level that a regularizer should be asked to remove."""
        return self.value if self.removal is None else self.removal


def measured_level(noisy: Picture, clean: Picture, *, reach: Reach = None) -> NoiseLevel:
    """Measure the noise of a picture whose clean one is known.

    Parameters
    ----------
    noisy, clean : Picture
        of the same shape.
    reach : (float, float), optional
        trained range of the regularizer; a level above it is clamped.

    Raises
    ------
    ValueError
        if the shapes differ.
    """
    error = noisy.pixels - clean.pixels
    part = 1.0
    if noisy.nodata is not None:
        part, error = math.sqrt(float((~noisy.nodata).double().mean())), error.masked_fill(noisy.nodata, 0.0)
    value = measure_sigma(noisy.pixels, noisy.pixels - error) / part
    wanted, alike = effective_level(error) / part, neighbour_correlation(error)
    note = Note("noise", "noise of sigma {:.4g} {unit}, measured against the reference", (value,))
    more = alike >= ALIKE or wanted > COHERENT * value
    level = NoiseLevel(value, "measured", (note,), removal=removal(wanted, alike) if more else None)
    return clamped_level(level, reach)


def estimated_level(noisy: Picture, *, reach: Reach = None) -> NoiseLevel:
    """Estimate the noise of a picture by :func:`icgn.estimate_noise`.

    Parameters
    ----------
    noisy : Picture
        as it was read; pixels of any unit.
    reach : (float, float), optional
        trained range of the regularizer; a level above it is clamped.
    """
    found = estimate_noise(noisy)
    note = EstimateNote("noise", "", (found.level,), estimate=found)
    return clamped_level(NoiseLevel(found.level, "estimated", (note,), found.noise, found.sigma), reach)


def described_level(noise: Noise, pixels: Tensor) -> NoiseLevel:
    """The level of noise that is described.

    Parameters
    ----------
    noise : Noise
        its description, in the unit of the pixels.
    pixels : Tensor
        the noisy picture (C, H, W), NaN where it is missing.

    Raises
    ------
    ValueError
        if all pixels are missing.
    """
    y = pixels[None].double()
    if not bool(torch.isfinite(y).any()):
        raise ValueError("y: got NaN or infinite values only, expected finite intensities")
    value, removed = float(noise.root_mean_square(y)), float(level_to_remove(noise, y).max())
    return NoiseLevel(value, "given", (), noise, removed if removed != value else None)


def level_to_remove(noise: Noise, y: Tensor) -> Tensor:
    """The levels that a regularizer should be asked to remove, one per picture, (B,), in the precision of y.

    Parameters
    ----------
    noise : Noise
        the noise of all pictures, in their unit.
    y : Tensor
        noisy pictures (B, C, H, W).
    """
    if isinstance(noise, Correlated):
        return torch.full((len(y),), noise.removal).to(y)
    return noise.root_mean_square(y).to(y)


def model_level(noise: NoiseLevel, given: float | None, reach: Reach, smoothing: float) -> tuple[float, list[Note]]:
    """The level sigma that the regularizer is asked to remove, and what is to be said about it.

    Parameters
    ----------
    noise : NoiseLevel
        of the picture.
    given : float, optional
        sigma as given; a level outside the trained range is used, with a warning.
    reach : (float, float), optional
        trained range of the regularizer.
    smoothing : float
        without a level given, sigma is the noise times this factor, clamped to the trained range; where it is 1 a
        level below the range is kept.
    """
    if given is not None:
        outside = given > 0 and not is_within(given, reach)
        return given, [_outside(given, reach)] if outside and reach else []
    if smoothing == 1:
        clamped, said = clamped_level(NoiseLevel(noise.to_remove), reach), {n.topic for n in noise.notes}
        return clamped.value, [n for n in clamped.notes if n.topic not in said]
    level, wanted = float(scaled_level(noise.value, reach, smoothing)), smoothing * noise.value
    if is_within(wanted, reach):
        return level, []
    bound = "most" if wanted > level else "least"
    template = (
        f"sigma, {smoothing:g} times the noise by default, is {{:.4g}} {{unit}}, the {bound} of the trained range"
    )
    return level, [Note("clamped", template, (level,))]


def scaled_level(noise: float | Tensor, reach: Reach, smoothing: float) -> float | Tensor:
    """The noise times `smoothing`, clamped to the trained range."""
    low, high = reach or (0.0, math.inf)
    level = smoothing * noise
    return level.clamp(low, high) if isinstance(level, Tensor) else min(max(level, low), high)


def scaled_noise(noise: NoiseLevel, factor: float) -> NoiseLevel:
    """Noise of the same kind that is so many times as strong; counts, whose level follows the picture, stay."""
    described = noise.noise
    if isinstance(described, White | Correlated):
        described = replace(described, level=factor * described.level)  # type: ignore[arg-type]
    removal = None if noise.removal is None else factor * noise.removal
    return replace(noise, value=factor * noise.value, removal=removal, noise=described)


def clamped_level(noise: NoiseLevel, reach: Reach) -> NoiseLevel:
    """The level, at most the largest that is trained, with a note if it is not within the trained range.

    One below it is kept: the least trained level would be many times the noise of a clean picture.
    """
    if reach is None or noise.to_remove == 0 or is_within(noise.to_remove, reach):
        return noise
    if noise.to_remove < reach[0]:
        if any(n.topic == "below" for n in noise.notes):
            return noise
        below = "the level to remove, {:.4g} {unit}, is below the trained range, {:g} to {:g}; it is taken as it is"
        said = Note("below", below, (noise.to_remove, *reach))
        return replace(noise, notes=(*noise.notes, said))
    value = reach[1]
    what = "the level of the noise" if noise.removal is None else "the level to remove"
    template = what + ", {:.4g} {unit}, is clamped to {:g}, the trained range being {:g} to {:g}"
    note = Note("clamped", template, (noise.to_remove, value, *reach), warning=True)
    if noise.removal is None:
        return replace(noise, value=value, notes=(*noise.notes, note))
    return replace(noise, removal=value, notes=(*noise.notes, note))


def fitted_level(noise: NoiseLevel, reach: Reach, smoothing: float) -> NoiseLevel:
    """Noise that was found, as a task takes it, with a note where that is another level.

    Parameters
    ----------
    noise : NoiseLevel
        of the picture.
    reach : (float, float), optional
        trained range of the regularizer.
    smoothing : float
        of the task. Where it is 1 the noise is what is removed, at most the largest trained level. Otherwise sigma is
        a multiple of it, and it is at least the least trained level over `smoothing`: with less, hardly anything but
        the measurement would count, and its problem would be as ill-posed as the operator.
    """
    if smoothing == 1 or reach is None:
        return clamped_level(noise, reach)
    least = reach[0] / smoothing
    if noise.value >= least * (1 - 1e-6):
        return noise
    template = "the noise is taken for {:.3g} {unit}, " + f"the least trained level over {smoothing:g}"
    return replace(
        scaled_noise(noise, least / noise.value) if noise.value > 0 else replace(noise, noise=None),
        value=least,
        notes=(*noise.notes, Note("clamped", template, (least,))),
    )


def is_within(level: float | Tensor, reach: Reach) -> bool:
    """Whether levels are in the trained range, where there is one."""
    if reach is None:
        return True
    levels = torch.as_tensor(level, dtype=torch.float64)
    # A level that was given in another unit may miss the end of the range by rounding alone.
    return bool((levels >= reach[0] * (1 - 1e-6)).all() and (levels <= reach[1] * (1 + 1e-6)).all())


def _outside(level: float, reach: tuple[float, float]) -> Note:
    template = "sigma {:g} is outside the trained range {:g} to {:g}"
    return Note("range", template, (level, *reach), warning=True)
