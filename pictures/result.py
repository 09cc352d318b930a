"""What a restoration of one picture returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from icgn.datasets import Picture
from icgn.pictures.levels import NoiseLevel, Note
from icgn.solvers import Solution, Status


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored picture, what is proved of it, and what was assumed.

    Attributes
    ----------
    picture : Picture
        the restored pixels (C, H, W), intensities, not clipped to [0, 1]; everything else is that of the picture that
        was given.
    before : Tensor or None
        pixels to compare with: the picture as it was given, without its missing pixels, or interpolated. None if the
        measurement is no picture.
    solution : Solution
        with one entry for the picture, or one for each channel where a gray regularizer took them one by one.
    noise : NoiseLevel
        level of the noise, and how it was found.
    sigma : float
        level that the regularizer was asked to remove, in intensities.
    notes : tuple of Note
        what a caller should say about the picture.
    range : (float, float)
        the intensities that were 0 and 1 to the regularizer.
    """

    picture: Picture
    before: Tensor | None
    solution: Solution
    noise: NoiseLevel
    sigma: float
    notes: tuple[Note, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def rms_distance(self) -> float:
        """Certified RMS distance to the minimizer over all channels together, in intensities; inf if unknown."""
        return float(self.solution.certificate.rms_distance.square().mean().sqrt())

    @property
    def relative_gap(self) -> float:
        """Certified gap of the objective over the objective, each summed over all channels; inf if unknown."""
        certificate = self.solution.certificate
        gap = float(certificate.objective_gap.sum())
        return gap / abs(float(certificate.objective.sum())) if gap > 0 else 0.0

    @property
    def status(self) -> Status:
        """Converged if every channel has, else how the first one ended that has not."""
        return next((s for s in self.solution.status if s is not Status.CONVERGED), Status.CONVERGED)

    @property
    def converged(self) -> bool:
        """Whether every channel has converged."""
        return self.solution.converged

    @property
    def iterations(self) -> int:
        """Iterations of the slowest channel."""
        return int(self.solution.stats.iterations.max())

    @property
    def seconds(self) -> float:
        """Wall-clock time of the solution."""
        return self.solution.stats.seconds
