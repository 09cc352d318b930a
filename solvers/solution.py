"""What a solver returns."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import Enum

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.solvers.certificate import Certificate

STRONG = 1e-2
"""With a smaller modulus mu the bound |x - x*| <= |g| / mu cannot be made small in practice: gaps count instead."""

_BOUNDS = ("rms_distance", "relative_gap", "objective_gap")


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
        took = f"{int(self.stats.iterations.max())} iterations, {self.stats.seconds:.2f} s, {self.stats.method}"
        return f"Solution(x {tuple(self.x.shape)}: {ended}; {self._proved()}; {took})"

    def _proved(self) -> str:
        """The bound by which images count as converged, of those that were solved; another one where that is inf."""
        solved = torch.tensor([s is not Status.INVALID_INPUT for s in self.status])
        proof = self.certificate
        bounds = {n: getattr(proof, n)[solved].nan_to_num(torch.inf) for n in _BOUNDS}
        if bool((proof.strong_convexity[solved] < STRONG).any()):
            bounds["rms_distance"] = bounds.pop("rms_distance")
        proved = (f"{name} <= {float(v.max()):.3g}" for name, v in bounds.items() if bool((v < torch.inf).all()))
        return next(proved, "nothing is proved") if bool(solved.any()) else "nothing is proved"

    @property
    def converged(self) -> bool:
        """Whether every image converged."""
        return all(s is Status.CONVERGED for s in self.status)
