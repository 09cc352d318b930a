"""K-space of one slice as a scanner measured it, and everything that can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from icgn.scanners.grid import Grid

# A coil that lacks more of the measured places than this part has measured something else than the others.
_LACKING = 0.01
# The largest sample lies within this part of the size of k-space from its middle.
_MIDDLE = 1 / 8


class Measured(Protocol):
    """What noise is found in: k-space on a grid or along a trajectory."""

    @property
    def noise(self) -> Tensor | None:
        """A noise scan."""

    @property
    def coils(self) -> int:
        """How many coils there are."""

    @property
    def measured(self) -> tuple[Tensor, Tensor]:
        """All samples, (C, N), and how far from the middle of k-space they are, (N,)."""


@dataclass(frozen=True, eq=False)
class KSpace:
    """K-space of one slice, with the zero frequency at (H // 2, W // 2); make it by :meth:`of`, which checks.

    Attributes
    ----------
    samples : Tensor
        complex128 (C, H, W), one part for each coil, in the unit of the file; 0 where nothing was measured.
    mask : Tensor
        bool (H, W): where it was measured.
    noise : Tensor or None
        complex128 (C, N): samples of the same receivers without a signal.
    picture : (int, int) or None
        height and width of the part in the middle that is the picture, where a file says it: readouts are oversampled.
    words : str
        what was read.
    """

    samples: Tensor
    mask: Tensor
    noise: Tensor | None = None
    picture: tuple[int, int] | None = None
    words: str = ""

    @classmethod
    def of(
        cls,
        samples: Tensor,
        *,
        noise: Tensor | None = None,
        picture: tuple[int, int] | None = None,
        words: str = "",
    ) -> KSpace:
        """Check k-space, and find its mask: a place was measured if any coil is not zero there.

        Parameters
        ----------
        samples : Tensor
            complex (C, H, W), or (H, W) of a single coil.
        noise : Tensor, optional
            complex (C, ...).
        picture, words
            as the attributes.

        Raises
        ------
        TypeError
            for numbers that are not complex.
        ValueError
            for another shape, NaN or infinite samples, coils that measured nothing or other places than the others,
            and where the middle of k-space is not in the middle.
        """
        if not samples.is_complex():
            raise TypeError(
                f"kspace: got {samples.dtype}, expected complex numbers: of real and imaginary parts in a last axis,"
                " x[..., 0] + 1j * x[..., 1]"
            )
        samples = samples[None] if samples.ndim == 2 else samples
        _check_shape(samples)
        bad = int((~torch.isfinite(torch.view_as_real(samples))).any(-1).sum())
        if bad:
            raise ValueError(f"kspace: got {bad} NaN or infinite samples of {samples.numel()}, expected finite ones")
        mask = (samples != 0).any(0)
        _check_coils(samples, mask)
        _check_middle(samples)
        if noise is not None:
            noise = checked_noise(noise, len(samples))
        return cls(samples.to(torch.complex128), mask, noise, picture, words)

    @property
    def coils(self) -> int:
        """How many coils there are."""
        return len(self.samples)

    @property
    def measured(self) -> tuple[Tensor, Tensor]:
        """All samples, (C, N), and how far from the middle they are relative to the sides of k-space, squared, (N,)."""
        rows, columns = torch.nonzero(self.mask, as_tuple=True)
        height, width = self.mask.shape
        far = ((rows - height // 2) / (height / 2)).square() + ((columns - width // 2) / (width / 2)).square()
        return self.samples[:, rows, columns], far

    @property
    def sampling(self) -> Grid:
        """Where it was measured."""
        return Grid(self.mask)

    def middle(self) -> KSpace:
        """K-space on a grid, whose middle maps and phase are estimated from: itself."""
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Coils, height and width."""
        return (self.coils, *self.mask.shape)

    @property
    def extent(self) -> str:
        """How much was measured, in words."""
        return f"{100 / self.acceleration:.3g} % measured"

    @property
    def acceleration(self) -> float:
        """All places over those that were measured."""
        return self.mask.numel() / float(self.mask.sum())


def checked_noise(noise: Tensor, coils: int) -> Tensor:
    """A noise scan as complex128 (C, N).

    Raises
    ------
    TypeError
        for numbers that are not complex.
    ValueError
        for another number of coils, fewer samples than ten for each coil, samples that are not finite, or a coil that
        is zero throughout.
    """
    if not noise.is_complex():
        raise TypeError(f"noise: got {noise.dtype}, expected complex samples of a scan without a signal")
    if noise.ndim < 1 or len(noise) != coils:
        raise ValueError(
            f"noise: got a scan of shape {tuple(noise.shape)}, expected {coils} coils first, as in k-space"
        )
    flat = noise.reshape(coils, -1).to(torch.complex128)
    if not bool(torch.isfinite(torch.view_as_real(flat)).all()):
        raise ValueError("noise: got NaN or infinite samples, expected finite ones")
    flat = flat[:, (flat != 0).any(0)]
    if flat.shape[1] < 10 * coils:
        raise ValueError(f"noise: got {flat.shape[1]} samples for {coils} coils, expected at least {10 * coils}")
    silent = [i for i in range(coils) if not bool((flat[i] != 0).any())]
    if silent:
        raise ValueError(f"noise: coil {silent[0]} is zero throughout, expected noise in every coil")
    return flat


def _check_shape(samples: Tensor) -> None:
    if samples.ndim != 3 or samples.numel() == 0:
        raise ValueError(f"kspace: got shape {tuple(samples.shape)}, expected (coils, height, width) of one slice")
    coils, height, width = samples.shape
    if coils > min(height, width):
        raise ValueError(
            f"kspace: got shape {tuple(samples.shape)}, expected (coils, height, width): coils come first, and are"
            " fewer than rows and columns"
        )


def _check_coils(samples: Tensor, mask: Tensor) -> None:
    measured = int(mask.sum())
    if measured == 0:
        raise ValueError("kspace: got zeros only, expected measured samples")
    lacking = ((samples == 0) & mask).flatten(1).sum(1).tolist()
    for coil, missing in enumerate(lacking):
        if missing == measured:
            raise ValueError(f"kspace: coil {coil} is zero throughout, expected samples; leave the coil out")
        if missing > _LACKING * measured:
            raise ValueError(
                f"kspace: coil {coil} is zero at {missing} of the {measured} places where other coils are not, expected"
                " all coils to be measured at the same places"
            )


def _check_middle(samples: Tensor) -> None:
    """The largest sample is near the middle; after a transform without shifts it lies in a corner."""
    strength = samples.abs().square().sum(0)
    row, column = divmod(int(strength.argmax()), strength.shape[1])
    height, width = strength.shape
    if abs(row - height // 2) > _MIDDLE * height or abs(column - width // 2) > _MIDDLE * width:
        raise ValueError(
            f"kspace: the largest sample is at row {row} and column {column} of {height} x {width}, expected it near"
            f" the middle, ({height // 2}, {width // 2}), the zero frequency; numpy.fft.fftshift brings it there from"
            " the corner"
        )
