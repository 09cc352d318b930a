"""The shape of an iterative method: `init` and `step` behind the one loop of :func:`icgn.solvers.solve`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from icgn.solvers.certificate import Certificate, certify
from icgn.solvers.functional import ConvexFunctional, Responses, per_image

if TYPE_CHECKING:
    from icgn.solvers.box import Box
    from icgn.solvers.problem import Problem

PROOF_BYTES = 1 << 26
"""Most memory of a set of responses in a certificate: it is computed once, and twice as large as those of a solver."""


@dataclass(frozen=True)
class State:
    """Where a method stands: every tensor has the batch first, so that images can leave the batch.

    Attributes
    ----------
    x : Tensor
        current images (B, C, H, W), feasible.
    u : Responses
        responses of x under the objective's linear part.
    grad : Tensor
        gradient of the objective at x.
    work : Tensor
        linear maps and adjoints applied per image so far, in pairs (one W and one W^T count 1), float, shape (B,).
    """

    x: Tensor
    u: Responses
    grad: Tensor
    work: Tensor

    def select(self: StateT, index: Tensor) -> StateT:
        """The state of the images `index`."""
        return replace(self, **{f.name: _take(getattr(self, f.name), index) for f in fields(self)})

    def put(self: StateT, index: Tensor, other: StateT) -> StateT:
        """The state with the images `index` replaced by those of another."""
        return replace(
            self, **{f.name: _put(getattr(self, f.name), index, getattr(other, f.name)) for f in fields(self)}
        )


StateT = TypeVar("StateT", bound=State)


class Method(ABC, Generic[StateT]):
    """An iterative method for min F(x) over a box. Objects hold parameters only, never the state of a run.

    Attributes
    ----------
    splits : bool
        whether it needs data term and regularizer one by one, as functions of the picture alone.
    """

    splits: bool = False

    @property
    def name(self) -> str:
        """The name under which results report the method."""
        return type(self).__name__

    def check(self, problem: Problem) -> None:
        """Raise ``ValueError``, naming the method and the assumption, if the method's theorem does not cover it."""

    @abstractmethod
    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> StateT:
        """The state at the starting images x, which are feasible."""

    @abstractmethod
    def step(self, objective: ConvexFunctional, state: StateT, box: Box | None) -> StateT:
        """One iteration."""

    def certify(self, objective: ConvexFunctional, state: StateT, box: Box | None) -> Certificate:
        """The certificate of the images of a state, by a float64 `objective`; a method may know a better one."""
        x = state.x.double()
        return certify(objective.blockwise(x.shape, PROOF_BYTES), x, box)


def evaluate(objective: ConvexFunctional, x: Tensor) -> tuple[Responses, Tensor, Tensor]:
    """Responses, gradient and a work count of 1 for the images x."""
    u = objective.linear(x)
    grad = objective.grad_from(u, x.shape)
    return u, grad, torch.ones(x.shape[0], dtype=torch.float64, device=x.device)


def exact_step(
    objective: ConvexFunctional,
    u: Responses,
    q: Responses,
    slope: Tensor,
    guess: Tensor,
    accuracy: float = 0.1,
    passes: int = 10,
) -> Tensor:
    r"""Step t > 0 with :math:`|\phi'(t)| \le` `accuracy` :math:`|\phi'(0)|`, :math:`\phi(t) = h(u + t q)`, per image.

    :math:`\phi'` is nondecreasing, so that two values of opposite sign enclose a minimizer. Secant steps inside the
    enclosure, with Illinois' correction against a stuck end. A point outside the domain of h, where the slope is not
    finite, is too far: halfway back from there. If `passes` evaluations do not suffice, the largest step known to be
    too short is taken: F never increases, and the method goes on.

    Parameters
    ----------
    u, q : Responses
        of the point and of the direction.
    slope : Tensor
        :math:`\phi'(0) < 0`, shape (B,).
    guess : Tensor
        first trial, positive, shape (B,).
    """
    t = guess
    low, high = torch.zeros_like(t), torch.full_like(t, float("inf"))
    slope_low, slope_high = slope, torch.full_like(t, float("inf"))
    found = torch.zeros_like(t, dtype=torch.bool)
    was_short = found
    for i in range(passes):
        s = objective.slope(u, q, t)
        s = torch.where(torch.isfinite(s), s, torch.inf)
        found = found | (s.abs() <= accuracy * slope.abs())
        # Reading the flags stalls a GPU, but for far less than a pass over the responses takes.
        if bool(found.all()):
            break
        short = s < 0
        # Illinois: an end that stays twice in a row counts half, so that the other end cannot creep.
        stays = (short == was_short) & (i > 0)
        low, high = torch.where(short, t, low), torch.where(short, high, t)
        slope_low, slope_high = (
            torch.where(short, s, torch.where(stays, slope_low / 2, slope_low)),
            torch.where(short, torch.where(stays, slope_high / 2, slope_high), s),
        )
        was_short = short
        inside = low - slope_low * (high - low) / (slope_high - slope_low)
        inside = torch.where(torch.isfinite(slope_high), inside, (low + high) / 2)
        # Without an upper end, follow the secant from 0, at most to four times the step.
        beyond = t * torch.where(s > slope, slope / (slope - s), torch.inf).clamp(1.1, 4.0)
        t = torch.where(found, t, torch.where(torch.isfinite(high), inside, beyond))
    return torch.where(found, t, low)


def newton_guess(objective: ConvexFunctional, u: Responses, q: Responses, slope: Tensor) -> Tensor:
    """The Newton step of a line search at t = 0: -slope / curvature, 1 where the curvature vanishes."""
    curvature = objective.curvature(u, q)
    return torch.where(
        curvature > 0, -slope / curvature.clamp_min(torch.finfo(slope.dtype).tiny), torch.ones_like(slope)
    )


def step_along(x: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """The images x + t d with one t per image."""
    return torch.addcmul(x, d, per_image(t, x))


def _take(value: Any, index: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(v, index) for v in value)
    return value[index] if isinstance(value, Tensor) else value


def _put(value: Any, index: Tensor, other: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_put(v, index, o) for v, o in zip(value, other, strict=True))
    if not isinstance(value, Tensor):
        return value
    return value.index_copy(0, index, torch.ones_like(value[index]) if other is None else other)
