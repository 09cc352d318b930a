"""Credible regions of log-concave posteriors: sets of pictures that hold most of the probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.solvers import Problem, Solution
from icgn.uncertainty.posterior import Posterior
from icgn.uncertainty.structure import StructureTest, replaced


@dataclass(frozen=True, eq=False, kw_only=True)
class CredibleRegion:
    r"""A set of pictures that contains the region of highest posterior density of probability :math:`1 - \alpha`.

    .. math::

        \{x : f(x) \le f(\hat x) + n + \sqrt{16\, n \log(3 / \alpha)}\}, \qquad f = F / \sigma^2,

    n being the number of values of a picture. Pereyra (2017, SIAM J. Imaging Sci. 10(1), 285, theorem 3.1) has it with
    the minimum of f; the value at any other picture is larger, so that the set with :math:`f(\hat x)` contains that
    one, whether or not the solver had converged. Its threshold is larger than it need be by no more than `gap`.

    What is proved is proved of the posterior of the model: that the noise is as described, and pictures are distributed
    as exp(-w R / sigma^2). A conditional regularizer's is that given its condition, which was computed from y.

    Attributes
    ----------
    alpha : float
        the probability that may be outside.
    threshold : Tensor
        the largest f in the set, float64 (B,).
    energy : Tensor
        :math:`f(\hat x)`, float64 (B,).
    gap : Tensor
        bound of :math:`f(\hat x) - \min f`, float64 (B,): what the threshold is larger by than that of the theorem; inf
        where the solution proves nothing.
    given_condition : bool
        whether all is said given the condition of a conditional regularizer.
    posterior : Posterior
        f.
    problem : Problem
        what was solved.
    """

    alpha: float
    threshold: Tensor
    energy: Tensor
    gap: Tensor
    given_condition: bool
    posterior: Posterior
    problem: Problem

    def contains(self, x: Tensor) -> Tensor:
        """Whether pictures are in the set, bool (B,).

        Parameters
        ----------
        x : Tensor
            pictures (B, C, H, W), one for each measurement, or one for all.

        Raises
        ------
        ValueError
            for another shape.
        """
        expected = self.posterior.x.shape
        if not isinstance(x, Tensor) or x.shape[1:] != expected[1:] or len(x) not in (1, expected[0]):
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x: got {found}, expected pictures of shape {tuple(expected)}")
        inside: Tensor = self.posterior.energy(x.expand(expected)) <= self.threshold
        return inside

    def test(
        self, mask: Tensor, *, fill: Tensor | None = None, gap_tol: float = 1e-3, max_iter: int = 1000
    ) -> StructureTest:
        r"""Test whether the data insist on a structure: whether it can be replaced within the credible region.

        The structure is filled in from its surroundings: the missing pixels are inpainted with the same regularizer, a
        convex problem. The hypothesis is "inside the mask the picture is this filling". It is rejected where no picture
        of the hypothesis is in the region: with the pixels of the mask fixed, f is minimized over the others, and the
        least value that the certificate leaves possible is above the threshold (after Repetti, Pereyra, Wiaux 2019,
        SIAM J. Imaging Sci. 12(1), 87; Cai, Pereyra, McEwen 2018, MNRAS 480(3), 4170). A structure that is not rejected
        may be real all the same.

        Parameters
        ----------
        mask : Tensor
            True where the structure is, bool, (H, W) or something that broadcasts to (B, C, H, W).
        fill : Tensor, optional
            pictures (B, C, H, W) whose pixels in the mask take the place of the structure; default the inpainted ones.
        gap_tol : float
            relative gap of f that is proved of the picture without the structure.
        max_iter : int
            iterations allowed for each of the two problems.

        Raises
        ------
        ValueError
            for a mask that does not fit, or that is empty or everything; for a filling of another shape.
        """
        return replaced(self.posterior, self.problem, self.threshold, mask, fill, gap_tol, max_iter)

    def text(self) -> str:
        """What the region is, in words."""
        given = ", given the condition that was computed from the measurement" if self.given_condition else ""
        return (
            f"pictures of which the model's posterior has at least {1 - self.alpha:.4g} of its probability{given};"
            f" proved for the model, not for nature"
        )


@torch.no_grad()
def credible_region(problem: Problem, solution: Solution, alpha: float = 0.01) -> CredibleRegion:
    r"""The credible region of probability :math:`1 - \alpha` around a solution, see :class:`CredibleRegion`.

    Parameters
    ----------
    problem : Problem
        what was solved.
    solution : Solution
        what :func:`icgn.solve` returned for it; its weight and its condition count.
    alpha : float
        between :math:`4 e^{-n/3}` and 1.

    Raises
    ------
    TypeError
        for anything but a problem and a solution.
    ValueError
        for an alpha out of its range, a sigma of 0, or a solution of another problem.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> from icgn.uncertainty import credible_region
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    >>> region = credible_region(problem, icgn.solve(problem), alpha=0.05)
    >>> bool(region.contains(y)), bool(region.contains(10 * y))
    (True, False)
    """
    posterior = Posterior.of(problem, solution)
    check_alpha(alpha, posterior.unknowns)
    energy = posterior.energy(posterior.x)
    energy = torch.where(posterior.solved, energy, torch.nan)
    threshold = energy + posterior.rounding(energy) + allowance(alpha, posterior.unknowns)
    return CredibleRegion(
        alpha=float(alpha),
        threshold=threshold,
        energy=energy,
        gap=posterior.gap,
        given_condition=solution.condition is not None,
        posterior=posterior,
        problem=problem.given(weight=solution.weight),
    )


def allowance(alpha: float, unknowns: int) -> float:
    r"""How much f may be above its minimum: :math:`n + \sqrt{16\, n \log(3 / \alpha)}`.

    Parameters
    ----------
    alpha : float
        the probability that may be outside.
    unknowns : int
        n.
    """
    return unknowns + math.sqrt(16 * unknowns * math.log(3 / alpha))


def check_alpha(alpha: float, unknowns: int) -> None:
    r"""Raise ``ValueError`` unless :math:`4 e^{-n/3} < \alpha < 1`.

    Parameters
    ----------
    alpha : float
        the probability that may be outside.
    unknowns : int
        n.
    """
    least = 4 * math.exp(-unknowns / 3)
    if not isinstance(alpha, int | float) or not least < alpha < 1:
        raise ValueError(f"alpha: got {alpha}, expected a number above {least:.3g} (4 exp(-n / 3)) and below 1")
