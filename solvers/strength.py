r"""The weight of the regularizer, found without ground truth, or on pairs.

A weight w makes a picture :math:`x_w`; each rule below finds w per image by a one-dimensional search in log w over
loosely solved problems, each begun at the answer of the one before. Noise is white and Gaussian and its level known:
:attr:`Problem.noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.solvers.conditioning import unconditional
from icgn.solvers.functional import dot, per_image
from icgn.solvers.implicit import solve_hessian

if TYPE_CHECKING:
    from icgn.solvers.problem import Problem

# Weights that are tried, and the accuracy of a search in log w: a percent or two of w.
_LOW, _HIGH = 1e-3, 1e3
_STEPS = 18
# Of the problems solved on the way: RMS distance, relative gap, iterations.
_TOL, _GAP, _ITERATIONS = 5e-4, 1e-2, 200

Trial = Callable[[Tensor], Tensor]
"""Gives, for the logarithms of weights (B,), a number per image."""


def discrepancy(problem: Problem) -> Tensor:
    r"""The weights for which :math:`|A x_w - y|^2 = m\, \text{noise}^2`, m being the number of measurements, (B,).

    Morozov's discrepancy principle: the residual, which grows with w, is as large as the noise. Entries of y that A
    never reaches, as those under a mask, do not count. Where no weight between 1e-3 and 1e3 fits, the nearer end.

    Raises
    ------
    ValueError
        if the data term is not Gaussian.
    """
    path = _Path.of(problem, "discrepancy")
    target = path.count * path.noise.square()
    return _increasing(lambda s: path.residual(path.solve(s)) - target, path.count).exp()


def sure(problem: Problem) -> Tensor:
    r"""The weights that minimize Stein's unbiased estimate of the risk :math:`E |A x_w - A x|^2`, (B,).

    .. math::

        \mathrm{SURE}(w) = |A x_w - y|^2 - m\, \text{noise}^2 + 2\, \text{noise}^2\, \mathrm{div}_y (A x_w),

    the divergence by one random sign vector b (Ramani, Blu, Unser 2008, IEEE Trans. Image Process. 17(9)) and the
    implicit derivative: :math:`b^T A (\nabla^2 F(x_w))^{-1} s A^T b`, s the weight of the data term. For an operator
    that is not injective it is the risk of what A sees, and hardly changes where A sees little: expect small weights.

    Raises
    ------
    ValueError
        if the data term is not Gaussian.
    """
    path = _Path.of(problem, "sure")

    def risk(s: Tensor) -> Tensor:
        posed = path.solve(s)
        variance = path.noise.square()
        return path.residual(posed) - path.count * variance + 2 * variance * path.divergence(posed)

    return _smallest(risk, path.count).exp()


def best_weight(problem: Problem, clean: Tensor) -> float:
    """The one weight for all images of `problem` that gives the highest mean PSNR against the `clean` images.

    Parameters
    ----------
    problem : Problem
        measurements of `clean`; its weight does not matter.
    clean : Tensor
        (B, C, H, W), intensities.

    Raises
    ------
    ValueError
        if the shapes differ.
    """
    expected = problem.start().shape
    if clean.shape != expected:
        raise ValueError(f"clean: got shape {tuple(clean.shape)}, expected {tuple(expected)}")
    path = _Path.of(replace(problem, weight=1.0), None)

    def loss(s: Tensor) -> Tensor:
        error = path.solve(s.expand(len(clean))).x - clean
        return error.square().flatten(1).mean(1).log().mean().reshape(1).double()

    return float(_smallest(loss, path.count[:1]).exp())


def resolved(problem: Problem) -> Problem:
    """The problem with numbers for a weight that was named; those of a conditional one are of its first problem."""
    if not isinstance(problem.weight, str):
        return problem
    rule = discrepancy if problem.weight == "discrepancy" else sure
    with torch.no_grad():
        return replace(problem, weight=rule(unconditional(problem)))


@dataclass(frozen=True, eq=False)
class _Posed:
    """A problem with weights and its approximate minimizer."""

    problem: Problem
    x: Tensor


@dataclass(eq=False)
class _Path:
    """Solutions along a search: the problem, and what all of them share."""

    problem: Problem
    noise: Tensor
    seen: Tensor
    count: Tensor
    x: Tensor | None = None

    @classmethod
    def of(cls, problem: Problem, rule: str | None) -> _Path:
        if rule is not None and problem.data_fidelity is not None:
            kind = type(problem.data_fidelity).__name__
            raise ValueError(f"weight: {rule!r} assumes Gaussian data of known noise, got the data fidelity {kind}")
        level = problem.sigma if problem.noise is None else problem.noise
        noise = torch.as_tensor(level, dtype=torch.float64, device=problem.y.device).reshape(-1).expand(len(problem.y))
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(problem.start().shape, generator=generator, dtype=problem.y.dtype).to(problem.y.device)
        seen = problem.physics.A(image) != 0
        return cls(problem, noise, seen, seen.flatten(1).sum(1).double())

    def solve(self, log_weight: Tensor) -> _Posed:
        from icgn.solvers.solve import solve

        problem = replace(self.problem, weight=log_weight.exp())
        solution = solve(problem, tol=_TOL, gap_tol=_GAP, max_iter=_ITERATIONS, x0=self.x)
        # An invalid image has no solution to begin the next at.
        self.x = torch.where(torch.isfinite(solution.x), solution.x, 0.0)
        return _Posed(problem, self.x)

    def residual(self, posed: _Posed) -> Tensor:
        """|A x - y|^2 over what is measured, (B,)."""
        r = (posed.problem.physics.A(posed.x) - torch.nan_to_num(posed.problem.y)) * self.seen
        return dot(r, r).double()

    def divergence(self, posed: _Posed) -> Tensor:
        """Divergence of A x with respect to y, by one sign vector, (B,)."""
        problem, physics = posed.problem, posed.problem.physics
        generator = torch.Generator().manual_seed(1)
        signs = torch.randint(0, 2, problem.y.shape, generator=generator).to(problem.y) * 2 - 1
        pulled = physics.A_adjoint(signs * self.seen)
        scale = problem.objective.weights[0]
        tol = torch.full((len(pulled),), 1e-2).to(pulled)
        free = None if problem.box is None else problem.box.free(posed.x)  # type: ignore[union-attr]
        system = solve_hessian(problem.objective, posed.x, per_image(scale, pulled) * pulled, free, tol, 100)
        return dot(pulled, system.v).double()


def _increasing(f: Trial, like: Tensor) -> Tensor:
    """Root of an increasing function of log w per image, by bisection sped up by secants (Illinois)."""
    low, high = torch.full_like(like, math.log(_LOW)), torch.full_like(like, math.log(_HIGH))
    s, at_low, at_high = torch.zeros_like(like), None, None
    for _ in range(_STEPS):
        value = f(s)
        below = value < 0
        low, high = torch.where(below, s, low), torch.where(below, high, s)
        at_low = torch.where(below, value, -torch.inf if at_low is None else at_low)
        at_high = torch.where(below, torch.inf if at_high is None else at_high, value)
        secant = low - at_low * (high - low) / (at_high - at_low)
        # A secant is trusted between two values that were measured, and not too close to either.
        margin = 0.1 * (high - low)
        good = torch.isfinite(at_low) & torch.isfinite(at_high)
        s = torch.where(good, torch.minimum(torch.maximum(secant, low + margin), high - margin), (low + high) / 2)
        if bool((high - low < 0.02).all()):
            break
    return s


def _smallest(f: Trial, like: Tensor) -> Tensor:
    """Minimizer of a unimodal function of log w per image, by golden sections."""
    golden = (math.sqrt(5) - 1) / 2
    low, high = torch.full_like(like, math.log(_LOW)), torch.full_like(like, math.log(_HIGH))
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(_STEPS - 2):
        left = at_a < at_b
        low, high = torch.where(left, low, a), torch.where(left, b, high)
        a_next, b_next = high - golden * (high - low), low + golden * (high - low)
        value = f(torch.where(left, a_next, b_next))
        at_a, at_b = torch.where(left, value, at_b), torch.where(left, at_a, value)
        a, b = a_next, b_next
        if bool((high - low < 0.05).all()):
            break
    return (low + high) / 2
