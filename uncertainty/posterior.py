r"""The posterior density whose maximum a solution is, up to a factor: exp(-f), f the objective over sigma squared.

:class:`icgn.Problem` minimizes :math:`F = \sigma^2 D + w R`, and D is the negative logarithm of the likelihood, so that
:math:`f = F / \sigma^2 = D + (w / \sigma^2) R`. It is convex: the posterior is log-concave. A box is a part of the
prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.solvers import Problem, Solution, Status
from icgn.solvers.objective import Objective

# Rounding error of a sum of many numbers, as a multiple of the sum and of its precision.
_ROUNDING = 32.0


@dataclass(frozen=True, eq=False)
class Posterior:
    """The negative logarithm f of a posterior density, and the picture that was found where it is largest.

    Attributes
    ----------
    objective : Objective
        F, in float64 where the physics can, with the weight and the condition of the solution.
    sigma : Tensor
        the level that the regularizer was asked to remove, float64 (B,).
    x : Tensor
        the pictures of the solution, float64 (B, C, H, W).
    gap : Tensor
        bound of f(x) less its minimum, float64 (B,); inf where nothing is proved.
    solved : Tensor
        which pictures there are, bool (B,): measurements that are not finite have none.
    """

    objective: Objective
    sigma: Tensor
    x: Tensor
    gap: Tensor
    solved: Tensor

    @classmethod
    def of(cls, problem: Problem, solution: Solution) -> Posterior:
        """The posterior of a problem and its solution.

        Raises
        ------
        TypeError
            for anything but a problem and a solution.
        ValueError
            if the solution is not one of the problem, or for a sigma of 0, where there is no posterior density.
        """
        if not isinstance(problem, Problem):
            raise TypeError(f"problem: got {type(problem).__name__}, expected an icgn.Problem")
        if not isinstance(solution, Solution):
            raise TypeError(f"solution: got {type(solution).__name__}, expected the icgn.Solution of the problem")
        if solution.x.shape != problem.start().shape:
            raise ValueError(
                f"solution: got pictures of shape {tuple(solution.x.shape)}, expected {tuple(problem.start().shape)}"
            )
        sigma = torch.as_tensor(problem.sigma, dtype=torch.float64, device=problem.y.device).reshape(-1)
        if not bool((sigma > 0).all()):
            raise ValueError(f"sigma: got {sigma.tolist()}, expected levels > 0: without noise there is no posterior")
        sigma = sigma.expand(len(solution.x)).clone()
        posed = problem.given(weight=solution.weight, condition=solution.condition)
        solved = torch.tensor([s is not Status.INVALID_INPUT for s in solution.status], device=sigma.device)
        gap = solution.certificate.objective_gap.to(sigma) / sigma.square()
        return cls(posed.objective.to(torch.float64), sigma, solution.x.detach().double(), gap, solved)

    @property
    def box(self) -> Box | None:
        """The bounds of the pictures."""
        return self.objective.box

    @property
    def unknowns(self) -> int:
        """The number n of values of a picture."""
        return self.x[0].numel()

    @torch.no_grad()
    def energy(self, x: Tensor) -> Tensor:
        """The values f(x), float64 (B,); inf outside the box.

        Parameters
        ----------
        x : Tensor
            pictures (B, C, H, W), one for each measurement.
        """
        x = x.detach().to(self.x)
        values = self.objective.fn(x).double() / self.sigma.square()
        if self.box is None:
            return values
        low, high = self.box.bounds(x)
        inside = ((x >= low) & (x <= high)).flatten(1).all(1)
        return torch.where(inside, values, torch.inf)

    def rounding(self, energy: Tensor) -> Tensor:
        """By how much rounding may have changed values of f."""
        precision = torch.finfo(self.objective.precision(torch.float64)).eps
        return _ROUNDING * precision * energy.abs()
