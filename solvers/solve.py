"""The one loop behind every method."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.certificate import Certificate, certify, distance_bound, optimality
from icgn.solvers.conditioning import conditioned, is_conditional
from icgn.solvers.hidden import begun, lifted, proved, seen, tolerance
from icgn.solvers.implicit import attach_gradient
from icgn.solvers.methods.choice import choose
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.projection import free_pixels
from icgn.solvers.problem import Problem
from icgn.solvers.solution import Solution, Stats, Status
from icgn.solvers.strength import resolved

Callback = Callable[[int, Tensor, Tensor], "bool | None"]

# Iterations between two convergence tests: each reads a few numbers back from the device.
_TEST_EVERY = 2
# Below this modulus a bound of the distance is out of reach in practice: |x - x*| <= |g| / mu.
STRONG = 1e-2
# Without a tenth less gradient in so many iterations, rounding is suspected and tested for.
_STALL = 30


def solve(
    problem: Problem,
    method: str | Method[State] = "auto",
    tol: float = 1e-4,
    gap_tol: float = 1e-3,
    max_iter: int = 1000,
    callback: Callback | None = None,
    x0: Tensor | None = None,
    differentiable: bool = False,
) -> Solution:
    r"""Minimize the objective of `problem` and certify every image.

    Where the objective is strongly convex (modulus at least 0.01; denoising has 1), an image has converged when its
    certificate proves :math:`|x - x^*| / \sqrt n \le` `tol`; with a smaller modulus and a box, when the gap is at most
    `gap_tol` times the objective, or :math:`n\, tol^2 / 2`, that of the distance `tol` where the modulus is 1: the
    minimum may be 0; with neither, when such a gap is proved all the same, or the RMS gradient is at most `tol`, and
    then it is reported as stationary, not as converged. Images stop one by one and do not influence each other.

    A conditional regularizer (:mod:`icgn.solvers.conditioning`) without a condition in `problem` has it computed from
    solutions on the way; the certificate is that of the last problem, convex, which :attr:`Solution.condition` poses
    again. Iterations and work are those of all solutions.

    A regularizer that is a minimum over latent pictures (:mod:`icgn.solvers.hidden`) is solved for together with them;
    the objective of the certificate is then that of both, at most the gap above F(x).

    Parameters
    ----------
    problem : Problem
        what to minimize.
    method : str or Method
        ``"auto"``, the name of a method, or a configured one.
    tol : float
        RMS distance to the minimizer, in intensities.
    gap_tol : float
        relative objective gap.
    max_iter : int
        iterations allowed per image.
    callback : callable, optional
        ``callback(iteration, x, index)`` before each iteration with the images still running and their places in the
        batch; returning True stops the run.
    x0 : Tensor, optional
        starting images; default :meth:`Problem.start`.
    differentiable : bool
        attach x to the automatic differentiation graph of the regularizer's parameters and y, by the implicit
        function theorem (:mod:`icgn.solvers.implicit`); memory does not grow with the iterations.

    Returns
    -------
    Solution
        Certificates are evaluated in float64 at the returned images where the physics allows. Images in float32 that
        rounding stops short of the tolerance are continued in float64, and returned in float32.

    Raises
    ------
    ValueError
        for a nonpositive tolerance, an unknown method, or one whose assumptions the problem breaks.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    >>> solution = icgn.solve(problem, tol=1e-3)
    >>> solution.status[0].name, bool(solution.certificate.rms_distance[0] <= 1e-3)
    ('CONVERGED', True)
    """
    _check_arguments(problem, tol, gap_tol, max_iter, x0)
    begin = time.perf_counter()
    problem = resolved(problem)
    start = problem.start() if x0 is None else problem.feasible(x0.to(problem.y))
    before = None
    if is_conditional(problem):
        before = conditioned(problem, method, start, max_iter, differentiable)
        problem, start = before.problem, before.x
    chosen = choose(method, problem)
    posed = problem if chosen.splits else lifted(problem)
    watch = None if callback is None else (lambda k, x, index: callback(k, seen(posed, x), index))
    with torch.no_grad():
        run = _Run(posed, chosen, tolerance(posed, tol), gap_tol, max_iter, watch)
        run.go(begun(posed, start.detach()))
        run.continue_in_double()
    x = attach_gradient(posed, run.x) if differentiable else run.x
    iterations, work = run.iterations, run.work
    if before is not None:
        iterations, work = iterations + before.iterations, work + before.work
    stats = Stats(iterations, work, time.perf_counter() - begin, chosen.name)
    status = tuple(Status.INVALID_INPUT if s is None else s for s in run.status)
    return Solution(
        seen(posed, x), status, proved(posed, run.certificate()), stats, problem.objective.weights[1], problem.condition
    )


@dataclass
class _Run:
    """One call of :func:`solve`: the images still running, and the results of those that have stopped."""

    problem: Problem
    method: Method[State]
    tol: float
    gap_tol: float
    max_iter: int
    callback: Callback | None
    x: Tensor = field(init=False)
    status: list[Status | None] = field(init=False)
    iterations: Tensor = field(init=False)
    work: Tensor = field(init=False)

    def go(self, start: Tensor, index: Tensor | None = None) -> None:
        """Run the images `index` of the batch, by default all valid ones, from their starting images."""
        y, device = self.problem.y, self.problem.y.device
        batch = len(y)
        self.box = self.problem.box if isinstance(self.problem.box, Box) else None
        self.bounded = self.box is not None and self.box.bounded
        self.x = torch.full_like(start, torch.nan)
        self.status = [None] * batch
        self.iterations = torch.zeros(batch, dtype=torch.int64, device=device)
        self.work = torch.zeros(batch, dtype=torch.float64, device=device)
        self.objective = self.problem.objective
        self.exact = self.objective.to(torch.float64)
        self.proofs: list[Certificate | None] = [None] * batch
        self.index = torch.nonzero(self.problem.valid).flatten() if index is None else index
        active = self.objective.select(self.index)
        state = self.method.init(active, start[self.index], self.box)
        # The loop's own tolerance per image, tightened where the exact certificate does not confirm an estimate.
        target = torch.full((len(self.index),), 0.98, dtype=torch.float64, device=device)
        best, since = torch.full_like(target, torch.inf), torch.zeros_like(self.index)
        for k in range(self.max_iter + 1):
            if k % _TEST_EVERY == 0 or k == self.max_iter:
                measure = self._measure(active, state)
                improved = measure < 0.9 * best
                best, since = torch.where(improved, measure, best), torch.where(improved, k, since)
                stalled = k - since >= _STALL
                since = torch.where(stalled, k, since)
                ended, missed = self._test(k, active, state, measure <= target, stalled, target)
                if missed:
                    state = self._restart(active, state, missed)
                keep = torch.nonzero(~ended).flatten()
                if len(keep) == 0:
                    return
                if len(keep) < len(ended):
                    active, state = active.select(keep), state.select(keep)
                    self.index, target, best, since = self.index[keep], target[keep], best[keep], since[keep]
            if self.callback is not None and self.callback(k, state.x, self.index) is True:
                for i, proof in self._certify(list(range(len(self.index))), state).items():
                    self._finish(i, k, state, Status.STOPPED, proof)
                return
            state = self.method.step(active, state, self.box)

    def continue_in_double(self) -> None:
        """Take the images that rounding has stopped further in float64, where the physics can follow.

        Images are returned in the precision of y all the same: what is proved of the minimum in float64 is carried
        over to the rounded image.
        """
        limited = [i for i, s in enumerate(self.status) if s is Status.PRECISION_LIMIT]
        left = self.max_iter - max((int(self.iterations[i]) for i in limited), default=self.max_iter)
        if not limited or left <= 0 or self.x.dtype is torch.float64:
            return
        try:
            problem = self.problem.to(torch.float64)
        except ValueError:  # the physics cannot
            return
        before = int(self.iterations.max())
        callback = self.callback
        later = None if callback is None else (lambda k, x, index: callback(before + k, x, index))
        run = _Run(problem, self.method, self.tol, self.gap_tol, left, later)
        run.go(self.x.double(), torch.tensor(limited, device=self.x.device))
        for i in limited:
            self._take_over(i, run)

    def _take_over(self, i: int, run: _Run) -> None:
        at = torch.tensor([i], device=self.x.device)
        fine, proof = run.x[at], run.proofs[i]
        assert proof is not None
        if not bool(torch.isfinite(fine).all()):  # the iterate that rounding stopped is better than none
            return
        self.x[at] = self.problem.feasible(fine.to(self.x))
        rounded = self.x[at].double()
        own = certify(run.exact.select(at), rounded, run.box)
        own = own.beside(proof, rounded - fine)
        self.proofs[i] = own
        self.iterations[at] += run.iterations[at]
        self.work[at] += run.work[at]
        verdict, _ = self._verdict(own)
        ended = run.status[i]
        self.status[i] = verdict or (Status.PRECISION_LIMIT if ended is Status.CONVERGED else ended)

    def certificate(self) -> Certificate:
        """The certificates of all images in the order of the batch; inf for invalid ones."""
        dtype = next(p.dtype for p in self.proofs if p is not None)
        return Certificate.join([p or Certificate.nothing(self.x.device, dtype) for p in self.proofs])

    def _measure(self, active: ConvexFunctional, state: State) -> Tensor:
        """How far each image is from its tolerance, as a multiple of it, in working precision; nan if diverged."""
        mu = active.strong_convexity().to(state.x.device).expand(len(state.x))
        gap, residual = optimality(state.x, state.grad, active.hessian_floor(state.x), self.box)
        distance = distance_bound(gap.double(), mu, state.x[0].numel()) / self.tol
        if not self.bounded or bool((mu >= STRONG).all()):
            return torch.where(mu >= STRONG, distance, residual.double() / self.tol)
        relative = gap.double() / self._allowed_gap(active.potential(state.u).double(), state.x[0].numel())
        return torch.where(mu >= STRONG, distance, torch.where(gap == 0, 0.0, relative))

    def _allowed_gap(self, objective: Tensor, pixels: int) -> Tensor:
        """The gap that counts as converged: relative, but not below what a distance of `tol` would explain."""
        # not tol**2, which raises an OverflowError where the product is inf
        return (self.gap_tol * objective.abs()).clamp_min(pixels * self.tol * self.tol / 2)

    def _test(
        self, k: int, active: ConvexFunctional, state: State, reached: Tensor, stalled: Tensor, target: Tensor
    ) -> tuple[Tensor, list[int]]:
        """Finish the images that have ended; returns which, and the places of those that only seemed to.

        The targets of the latter are tightened.
        """
        verdict: list[Status | None] = [None] * len(reached)
        missed: list[int] = []
        candidates = torch.nonzero(reached).flatten().tolist()
        proofs = self._certify(candidates, state)
        for i, proof in proofs.items():
            verdict[i], excess = self._verdict(proof)
            if verdict[i] is None and target[i] < 1e-2:
                verdict[i] = Status.PRECISION_LIMIT
            elif verdict[i] is None:
                target[i] *= min(0.5, 0.9 / excess)
                missed.append(i)
        finite = torch.isfinite(state.x).flatten(1).all(1).tolist()
        for i in range(len(verdict)):
            if not finite[i]:
                verdict[i] = Status.DIVERGED
            elif verdict[i] is None and stalled[i] and self._rounding_dominates(i, state):
                verdict[i] = Status.PRECISION_LIMIT
            elif verdict[i] is None and k >= self.max_iter:
                verdict[i] = Status.ITERATION_LIMIT
        ended = [i for i, v in enumerate(verdict) if v is not None]
        proofs |= self._certify([i for i in ended if i not in proofs], state)
        for i in ended:
            self._finish(i, k, state, verdict[i], proofs[i])
        mask = torch.tensor([v is not None for v in verdict], device=state.x.device)
        return mask, missed

    def _restart(self, active: ConvexFunctional, state: State, places: list[int]) -> State:
        """The state with the method started anew on some images, whose responses have drifted."""
        at = torch.tensor(places, device=state.x.device)
        fresh = self.method.init(active.select(at), state.x[at], self.box)
        return state.put(at, replace(fresh, work=fresh.work + state.work[at]))

    def _verdict(self, proof: Certificate) -> tuple[Status | None, float]:
        """What the exact certificate of one image says, and its excess over the tolerance."""
        distance = float(proof.rms_distance) / self.tol
        if float(proof.strong_convexity) >= STRONG or distance <= 1:
            return (Status.CONVERGED if distance <= 1 else None), distance
        allowed = self._allowed_gap(proof.objective, self.x[0].numel())
        gap = float(torch.where(proof.objective_gap == 0, 0.0, proof.objective_gap / allowed))
        if self.bounded or gap <= 1:
            return (Status.CONVERGED if gap <= 1 else None), gap
        residual = float(proof.residual) / self.tol
        return (Status.STATIONARY if residual <= 1 else None), residual

    def _rounding_dominates(self, i: int, state: State) -> bool:
        """Whether the gradient in working precision differs from the exact one by a good part of its size."""
        at = torch.tensor([i], device=state.x.device)
        # Where the gradient presses against a bound it does not vanish, and is no measure.
        free = free_pixels(state.x[at], state.grad[at], self.box)
        exact = free * self.exact.select(self.index[at]).grad(state.x[at].double())
        error = torch.linalg.vector_norm(exact - free * state.grad[at])
        if state.x.dtype is torch.float64:
            return bool(torch.linalg.vector_norm(exact) <= 1e-12 * max(1.0, state.x[at].numel() ** 0.5))
        return bool(error >= 0.3 * torch.linalg.vector_norm(exact))

    def _certify(self, local: list[int], state: State) -> dict[int, Certificate]:
        """Exact certificates of running images, by their place in the state."""
        if not local:
            return {}
        at = torch.tensor(local, device=state.x.device)
        proof = self.method.certify(self.exact.select(self.index[at]), state.select(at), self.box)
        return dict(zip(local, proof.split(), strict=True))

    def _finish(self, i: int, k: int, state: State, verdict: Status | None, proof: Certificate) -> None:
        at = self.index[i]
        self.x[at] = state.x[i]
        self.iterations[at] = k
        self.work[at] = state.work[i] + 1
        self.status[int(at)], self.proofs[int(at)] = verdict, proof


def _check_arguments(problem: Problem, tol: float, gap_tol: float, max_iter: int, x0: Tensor | None) -> None:
    for name, value in (("tol", tol), ("gap_tol", gap_tol)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: got {value}, expected a positive number")
    if max_iter < 0:
        raise ValueError(f"max_iter: got {max_iter}, expected at least 0")
    if x0 is not None:
        expected = problem.start().shape
        if x0.shape != expected:
            raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected {tuple(expected)}")
        if not bool(torch.isfinite(x0).all()):
            raise ValueError("x0: got NaN or infinite values, expected finite starting images")
