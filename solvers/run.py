"""One objective minimized, every image with its certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.certificate import Certificate, certify, distance_bound, optimality
from icgn.solvers.iterate import StopRule, Verdict, iterate, stopped
from icgn.solvers.methods.choice import choose
from icgn.solvers.methods.method import Method, State
from icgn.solvers.methods.projection import free_pixels
from icgn.solvers.objective import Objective
from icgn.solvers.solution import STRONG, Status
from icgn.solvers.tolerance import Tolerance

# If the gradient has not fallen by a tenth in so many iterations, rounding is tested for.
_STALL = 30


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the run of an objective ended, with one entry per image.

    Attributes
    ----------
    objective : Objective
        what was minimized: over latent pictures too, where the regularizer has some.
    v : Tensor
        the pictures that it is over; :attr:`x` is the visible part.
    status : tuple of Status
        how each image ended; invalid input where it was not run.
    certificate : Certificate
        what is proved of x.
    iterations, work : Tensor
        int64 and float64, (B,).
    method : str
        the method that ran.
    """

    objective: Objective
    v: Tensor
    status: tuple[Status, ...]
    certificate: Certificate
    iterations: Tensor
    work: Tensor
    method: str

    @property
    def x(self) -> Tensor:
        """The images (B, C, H, W); nan where the input was invalid."""
        return self.objective.seen(self.v)


@torch.no_grad()
def minimize(
    stage: str,
    objective: Objective,
    method: str | Method[Any],
    start: Tensor,
    tolerance: Tolerance,
    limit: int | Tensor,
    index: Tensor,
) -> Minimum:
    """Minimize an objective and certify every image; images in float32 that rounding stops go on in float64.

    Parameters
    ----------
    stage : str
        name in events.
    objective : Objective
        of images like `start`.
    method : str or Method
        as in :func:`icgn.solvers.solve`.
    start : Tensor
        starting images (B, C, H, W), feasible.
    tolerance : Tolerance
        what counts as converged.
    limit : int or Tensor
        iterations allowed, for all images or int64 (B,).
    index : Tensor
        places of the images to run; the others are reported as invalid input.
    """
    chosen = choose(method, objective, start)
    posed = objective if chosen.splits else objective.lifted(start.shape)
    begun = posed.start(start)
    distance = posed.tolerance(tolerance.distances(len(start), start.device))
    run = _Run(posed, chosen, replace(tolerance, distance=distance), len(start))
    reached = iterate(stage, posed, chosen, begun, run, limit, index, posed.seen)
    v, iterations, work = reached.x, reached.iterations, reached.work
    limited = [i for i, s in enumerate(run.status) if s is Status.PRECISION_LIMIT]
    left = torch.as_tensor(limit, device=v.device).expand(len(v)) - iterations
    limited = [i for i in limited if left[i] > 0]
    # An operator that cannot follow keeps its own precision.
    if limited and v.dtype is not torch.float64 and run.exact.precision(torch.float64) is torch.float64:
        finer = _Run(run.exact, chosen, run.tolerance, len(start))
        places = torch.tensor(limited, device=v.device)
        fine = iterate(stage, run.exact, chosen, v.double(), finer, left, places, posed.seen)
        for i in limited:
            run.take_over(i, v, fine.x, finer)
            iterations[i] += fine.iterations[i]
            work[i] += fine.work[i] + 1
    dtype = next(p.dtype for p in run.proofs if p is not None)
    whole = Certificate.join([p or Certificate.nothing(v.device, dtype) for p in run.proofs])
    status = tuple(Status.INVALID_INPUT if s is None else s for s in run.status)
    proved = posed.proved(whole, start[0].numel())
    return Minimum(posed, v, status, proved, iterations, work + 1, chosen.name)


class _Run(StopRule):
    """Images end when an exact certificate meets the tolerance, or when more cannot be proved."""

    def __init__(self, objective: Objective, method: Method[Any], tolerance: Tolerance, batch: int) -> None:
        self.exact = objective.to(torch.float64)
        self.method, self.tolerance = method, tolerance
        self.box = objective.box
        self.bounded = self.box is not None and self.box.bounded
        self.status: list[Status | None] = [None] * batch
        self.proofs: list[Certificate | None] = [None] * batch
        device = objective.weight.device
        self._distance = tolerance.distances(batch, device)
        # The loop's own tolerance per image, tightened where the exact certificate does not confirm an estimate.
        self._target = torch.full((batch,), 0.98, dtype=torch.float64, device=device)
        self._best = torch.full_like(self._target, torch.inf)
        self._since = torch.zeros_like(self._target, dtype=torch.int64)

    def measure(self, objective: ConvexFunctional, state: State, index: Tensor) -> Tensor:
        """How far each image is from its tolerance, as a multiple of it, in working precision; nan if diverged."""
        mu = objective.strong_convexity().to(state.x.device).expand(len(state.x))
        gap, residual = optimality(state.x, state.grad, objective.hessian_floor(state.x), self.box)
        pixels = state.x[0].numel()
        asked = self._distance[index]
        distance = distance_bound(gap.double(), mu, pixels) / asked
        if not self.bounded or bool((mu >= STRONG).all()):
            return torch.where(mu >= STRONG, distance, residual.double() / asked)
        relative = gap.double() / self._allowed_gap(objective.potential(state.u).double(), asked, pixels)
        return torch.where(mu >= STRONG, distance, torch.where(gap == 0, 0.0, relative))

    def look(self, k: int, objective: ConvexFunctional, state: State, index: Tensor, last: Tensor) -> Verdict:
        """Finish the images that have ended, and tighten the targets of those that only seemed to."""
        measure = self.measure(objective, state, index)
        stalled = self._stalled(k, measure, index)
        verdict: list[Status | None] = [None] * len(index)
        again: list[int] = []
        proofs = self._certify(torch.nonzero(measure <= self._target[index]).flatten().tolist(), state, index)
        for place, proof in proofs.items():
            at = index[place]
            verdict[place], excess = self.verdict(int(at), proof, state.x[0].numel())
            if verdict[place] is None and self._target[at] < 1e-2:
                verdict[place] = Status.PRECISION_LIMIT
            elif verdict[place] is None:
                self._target[at] *= min(0.5, 0.9 / excess)
                again.append(place)
        finite = torch.isfinite(state.x).flatten(1).all(1).tolist()
        for place, cut in enumerate(last.tolist()):
            if not finite[place]:
                verdict[place] = Status.DIVERGED
            elif verdict[place] is None and stalled[place] and self._rounding_dominates(place, state, index):
                verdict[place] = Status.PRECISION_LIMIT
            elif verdict[place] is None and cut:
                verdict[place] = Status.STOPPED if stopped() else Status.ITERATION_LIMIT
        ended = [place for place, status in enumerate(verdict) if status is not None]
        proofs |= self._certify([place for place in ended if place not in proofs], state, index)
        for place in ended:
            i = int(index[place])
            self.status[i], self.proofs[i] = verdict[place], proofs[place]
        return Verdict(torch.tensor([status is not None for status in verdict], device=index.device), again)

    def verdict(self, i: int, proof: Certificate, pixels: int) -> tuple[Status | None, float]:
        """The status that the exact certificate of image i gives, and its excess over the tolerance."""
        asked = self._distance[i]
        distance = float(proof.rms_distance / asked)
        if float(proof.strong_convexity) >= STRONG or distance <= 1:
            return (Status.CONVERGED if distance <= 1 else None), distance
        allowed = self._allowed_gap(proof.objective, asked, pixels)
        gap = float(torch.where(proof.objective_gap == 0, 0.0, proof.objective_gap / allowed))
        if self.bounded or gap <= 1:
            return (Status.CONVERGED if gap <= 1 else None), gap
        residual = float(proof.residual / asked)
        return (Status.STATIONARY if residual <= 1 else None), residual

    def _allowed_gap(self, objective: Tensor, distance: Tensor, pixels: int) -> Tensor:
        """The gap that counts as converged: relative, but not below what the distance would explain."""
        return torch.maximum(self.tolerance.gap * objective.abs(), pixels * distance * distance / 2)

    def take_over(self, i: int, v: Tensor, fine: Tensor, finer: _Run) -> None:
        """Round image i, continued in float64, to the precision of v, where it is written, and carry its proof over."""
        at = torch.tensor([i], device=v.device)
        proof = finer.proofs[i]
        assert proof is not None
        if not bool(torch.isfinite(fine[at]).all()):  # The iterate that rounding stopped is kept.
            return
        rounded = fine[at].to(v)
        v[at] = rounded if self.box is None else self.box.project(rounded)
        own = certify(self.exact.select(at), v[at].double(), box=self.box)
        own = own.beside(proof, v[at].double() - fine[at])
        self.proofs[i] = own
        verdict, _ = self.verdict(i, own, v[0].numel())
        ended = finer.status[i]
        self.status[i] = verdict or (Status.PRECISION_LIMIT if ended is Status.CONVERGED else ended)

    def _stalled(self, k: int, measure: Tensor, index: Tensor) -> list[bool]:
        """The images that have not come nearer for long; each is reported once in that time."""
        improved = measure < 0.9 * self._best[index]
        self._best[index] = torch.where(improved, measure, self._best[index])
        since = torch.where(improved, k, self._since[index])
        stalled = k - since >= _STALL
        self._since[index] = torch.where(stalled, k, since)
        return stalled.tolist()

    def _rounding_dominates(self, place: int, state: State, index: Tensor) -> bool:
        """Whether the gradient in working precision differs from the exact one by a good part of its size."""
        at = torch.tensor([place], device=state.x.device)
        # At a bound of the box the gradient does not vanish at the minimizer, so these pixels are left out.
        free = free_pixels(state.x[at], state.grad[at], self.box)
        exact = free * self.exact.select(index[at]).grad(state.x[at].double())
        error = torch.linalg.vector_norm(exact - free * state.grad[at])
        if state.x.dtype is torch.float64:
            return bool(torch.linalg.vector_norm(exact) <= 1e-12 * max(1.0, state.x[at].numel() ** 0.5))
        return bool(error >= 0.3 * torch.linalg.vector_norm(exact))

    def _certify(self, places: list[int], state: State, index: Tensor) -> dict[int, Certificate]:
        """Exact certificates of running images, by their place in the state."""
        if not places:
            return {}
        at = torch.tensor(places, device=state.x.device)
        proof = self.method.certify(self.exact.select(index[at]), state.select(at), self.box)
        return dict(zip(places, proof.split(), strict=True))
