"""deepinv's own solvers on an objective of icgn: each gets the fused gradient and a step size found beforehand.

Nothing that makes them faster and is not a change of the algorithm is left out: the functional is built once, before
the clock starts; with backtracking, the responses computed for the cost serve the gradient at the same image, which
halves its price; without, no cost is computed, while deepinv by itself computes one, unused, in every iteration; steps
are multiples of 1 / L with L the curvature at the solution, which no user knows, a fifth of the proved bound.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import deepinv
import torch
from deepinv.optim.optimizers import AndersonAccelerationConfig, BacktrackingConfig
from torch import Tensor

from icgn import Problem
from icgn.functionals import ConvexFunctional
from icgn.functionals.functional import Responses, dot, per_image

Record = Callable[[Tensor, float], bool]


class BoundPrior(deepinv.optim.Prior):  # type: ignore[misc]
    """A functional bound to its noise level as a prior of deepinv, which counts its linear maps in pairs."""

    def __init__(self, functional: ConvexFunctional, weight: Tensor, explicit: bool) -> None:
        super().__init__()
        self.explicit_prior = explicit
        self.functional, self.weight = functional, weight
        self.work = 0.0
        self._seen: list[tuple[Tensor, Responses]] = []

    def fn(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Values, shape (B,)."""
        return self.weight.to(x) * self.functional.potential(self._responses(x))

    def grad(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The gradient, shape of x."""
        u = self._responses(x)
        self.work += 0.5
        return per_image(self.weight, x) * self.functional.grad_from(u, x.shape)

    def _responses(self, x: Tensor) -> Responses:
        """Responses of x; those of the last two images, the current one and a trial, are kept for the cost."""
        for image, u in self._seen:
            if image is x:
                return u
        u = self.functional.linear(x)
        self.work += 0.5
        if self.explicit_prior:
            self._seen = [*self._seen[-1:], (x, u)]
        return u


@dataclass(frozen=True)
class Competitor:
    """An algorithm of deepinv, the multiple of 1 / L that is its (first) step, and its options.

    `proximal` ones take gradient steps in the regularizer and the exact proximal map of the data term (the other way
    round, an iteration would be a whole solution by ours), and L is the curvature of the regularizer alone.
    """

    algorithm: Any
    step: float
    proximal: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, problem: Problem, solution: Tensor, record: Record) -> Callable[[], None]:
        """Prepare a run; calling the result performs it, until `record(x, work)` after an iteration says so."""
        _, functional = problem.objective.terms
        weight, strength = problem.objective.weights
        prior = BoundPrior(functional, strength, "backtracking" in self.options)
        scaled, factor = (functional, strength) if self.proximal else (problem.objective, torch.ones_like(strength))
        model = self.algorithm(
            data_fidelity=deepinv.optim.L2(sigma=float(weight[0]) ** -0.5),
            prior=prior,
            stepsize=self.step / largest_curvature(scaled, factor, solution),
            max_iter=10**9,
            **({"g_first": True} if self.proximal else {}),
            **self.options,
        )
        loop = model.fixed_point
        plain = loop.single_iteration

        def single_iteration(X: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            X = plain(X, *args, **kwargs)
            if record(X["est"][0], prior.work):
                loop.max_iter, loop.backtracking_config = 0, None
            return X

        loop.single_iteration = single_iteration

        def go() -> None:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model(problem.y, problem.physics)

        return go


# Chosen by trial on one picture, in favour of deepinv. FISTA was faster with 1.3 / L than with 1 / L, gradient descent
# with backtracking than with 1, 1.5 and 1.9 / L. Anderson acceleration as it comes (regularization 0.1, 10 images) is
# slower than none; of some forty settings 20 images, a regularization of 1e-12 and 8 / L, four times the stable step,
# were as fast as any to 1e-8 (32 / L took 15 percent less work to 1e-6, and more to 1e-8).
COMPETITORS = {
    "deepinv GD, backtracking": Competitor(
        deepinv.optim.GD, 4.0, False, {"backtracking": BacktrackingConfig(max_iter=100)}
    ),
    "deepinv PGD, backtracking": Competitor(
        deepinv.optim.PGD, 4.0, True, {"backtracking": BacktrackingConfig(max_iter=100)}
    ),
    "deepinv FISTA, best fixed step": Competitor(deepinv.optim.FISTA, 1.3),
    "deepinv PGD, tuned Anderson": Competitor(
        deepinv.optim.PGD,
        8.0,
        True,
        {"anderson_acceleration": AndersonAccelerationConfig(history_size=20, beta=1.0, eps=1e-12)},
    ),
}


@torch.no_grad()
def largest_curvature(functional: ConvexFunctional, weight: Tensor, x: Tensor, steps: int = 40) -> float:
    """The largest eigenvalue of weight times the Hessian at x, by power iteration, plus 2 percent."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    u = functional.linear(x)
    top = 0.0
    for _ in range(steps):
        v = v / dot(v, v).sqrt()
        product = functional.hvp_from(u, functional.linear(v), x.shape)
        top, v = float(dot(v, product)[0]), product
    return 1.02 * float(weight[0]) * top
