"""What a solver returns."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import Enum

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.solvers.certificate import Certificate


class Status(Enum):
    """How the solution of one image ended; the values are the messages."""

    CONVERGED = "converged: the certificate meets the tolerance"
    STATIONARY = (
        "stationary: the gradient is below the tolerance, but without strong convexity or a box that proves little"
    )
    ITERATION_LIMIT = "iteration limit: the tolerance was not reached; raise max_iter or the tolerance"
    PRECISION_LIMIT = "precision limit: rounding stops further progress; use float64 or a larger tolerance"
    STOPPED = "stopped: the callback asked to stop"
    DIVERGED = "diverged: the iterates became infinite or NaN"
    INVALID_INPUT = "invalid input: the measurement has NaN or infinite values; the image is NaN"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False)
class Stats:
    """Cost of a run.

    Attributes
    ----------
    iterations : Tensor
        iterations of each image, int64 (B,).
    work : Tensor
        pairs of a linear map and its adjoint applied for each image, (B,); the certificates are included.
    seconds : float
        wall-clock time of the whole batch.
    method : str
        the method that ran, also when it was chosen automatically.
    """

    iterations: Tensor
    work: Tensor
    seconds: float
    method: str


@keyword_only
@dataclass(frozen=True, eq=False)
class Solution:
    """The restored images with one entry per image in everything else.

    Attributes
    ----------
    x : Tensor
        images (B, C, H, W).
    status : tuple of Status
        how each image ended.
    certificate : Certificate
        what is proved of each image.
    stats : Stats
        what it cost.
    weight : Tensor
        weight of the regularizer of each image, (B,): as given, or as found.
    condition : Tensor or None
        the condition of a conditional regularizer, with which the problem can be posed and audited again.
    """

    x: Tensor
    status: tuple[Status, ...]
    certificate: Certificate
    stats: Stats
    weight: Tensor
    _: KW_ONLY
    condition: Tensor | None = None

    def __repr__(self) -> str:
        ended = ", ".join(f"{self.status.count(s)} {s.name}" for s in dict.fromkeys(self.status))
        distance, gap = self.certificate.rms_distance.max(), self.certificate.relative_gap.max()
        by_gap = bool(torch.isinf(distance)) and bool(torch.isfinite(gap))
        proved = f"relative_gap <= {float(gap):.3g}" if by_gap else f"rms_distance <= {float(distance):.3g}"
        took = f"{int(self.stats.iterations.max())} iterations, {self.stats.seconds:.2f} s, {self.stats.method}"
        return f"Solution(x {tuple(self.x.shape)}: {ended}; {proved}; {took})"

    @property
    def converged(self) -> bool:
        """Whether every image converged."""
        return all(s is Status.CONVERGED for s in self.status)
