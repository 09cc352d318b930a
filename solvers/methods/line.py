"""Searches along a line."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses, dot, per_image

# The slope that a search may leave, as a part of the first.
_FINE = 0.1
# A first secant step is cut to this part.
_SHY = 0.97
# A slope so small counts as 0: the step may end on either side of the minimizer.
_LEVEL = 1e-3


class Line:
    r"""The pictures :math:`x + t d`, one t per image.

    Slopes of F come from responses. Where such a slope costs as much as a gradient
    (no :attr:`Capability.RESPONSES`), the gradient is computed, and that of the last trial serves the next
    iteration, if the search ends there.

    Parameters
    ----------
    objective : ConvexFunctional
        F.
    u : Responses
        of x; :meth:`end` uses up their memory.
    d : Tensor
        (B, C, H, W).

    Attributes
    ----------
    work : int
        gradients computed so far, less the one that any iteration needs.
    """

    def __init__(self, objective: ConvexFunctional, u: Responses, d: Tensor) -> None:
        self.objective, self.u, self.d = objective, u, d
        self.q = objective.linear(d)
        self._cheap = Capability.RESPONSES in objective.capabilities
        self.work = 0
        self._last: tuple[Tensor, Responses, Tensor] | None = None

    def search(self, slope: Tensor, guess: Tensor, rough: float) -> Tensor:
        """The step :func:`exact_step` along directions that have these slopes at 0; 0 where they do not descend.

        `rough` is how much too short a step may be (`shortfall`) where each trial costs a gradient.
        """
        shortfall = _FINE if self._cheap else rough
        return torch.where(slope < 0, exact_step(self._slope, slope, guess, shortfall), 0.0)

    def newton_step(self, slope: Tensor) -> Tensor:
        """The step -slope / curvature at 0, and 1 where the curvature vanishes."""
        curvature = self.objective.curvature(self.u, self.q)
        tiny = torch.finfo(slope.dtype).tiny
        return torch.where(curvature > 0, -slope / curvature.clamp_min(tiny), torch.ones_like(slope))

    def end(self, t: Tensor) -> tuple[Responses, Tensor]:
        """Responses and gradient at t."""
        if self._last is not None and torch.equal(self._last[0], t):
            self.work -= 1
            return self._last[1:]
        u = self.objective.advance(self.u, self.q, t)
        return u, self.objective.grad_from(u, self.d.shape)

    def _slope(self, t: Tensor) -> Tensor:
        if self._cheap:
            return self.objective.slope(self.u, self.q, t)
        u = self.objective.move(self.u, self.q, t)
        grad = self.objective.grad_from(u, self.d.shape)
        self.work += 1
        self._last = t, u, grad
        return dot(self.d, grad)


def exact_step(
    slope_at: Callable[[Tensor], Tensor],
    slope: Tensor,
    guess: Tensor,
    shortfall: float = _FINE,
    passes: int = 10,
) -> Tensor:
    r"""Step t > 0 with `shortfall` :math:`\phi'(0) \le \phi'(t) \le 0.1 |\phi'(0)|`, :math:`\phi` convex, per image.

    :math:`\phi'` is nondecreasing, so that two values of opposite sign enclose a minimizer. Secant steps inside the
    enclosure, with Illinois' correction against a stuck end. A step beyond the minimizer is taken only with a proof
    that :math:`\phi(t) \le \phi(0)`: :math:`\phi(t) - \phi(0) \le l\,\phi'(l) + (t - l)\,\phi'(t)` for the lower end
    l, since at a kink :math:`\phi'` may have jumped right after 0; or where :math:`\phi'(t)` is a thousandth of
    :math:`|\phi'(0)|`, so that rounding decides nothing. A point outside the domain of h, where the slope is not
    finite, is too far: halfway back from there. If `passes` evaluations do not suffice, the largest step known to be
    too short is taken. F does not increase, but for that thousandth, and the method goes on.

    Parameters
    ----------
    slope_at : callable
        :math:`\phi'` at one t per image, shape (B,).
    slope : Tensor
        :math:`\phi'(0) < 0`, shape (B,).
    guess : Tensor
        first trial, positive, shape (B,).
    shortfall : float
        how much of the slope may be left by a step that is too short, less than 1; a longer one could let F grow.
    """
    t = guess
    low, high = torch.zeros_like(t), torch.full_like(t, float("inf"))
    slope_low, slope_high = slope, torch.full_like(t, float("inf"))
    found = torch.zeros_like(t, dtype=torch.bool)
    was_short = found
    for i in range(passes):
        s = slope_at(t)
        s = torch.where(torch.isfinite(s), s, torch.inf)
        descends = (s <= -_LEVEL * slope) | (low * slope_low + (t - low) * s <= 0)
        found = found | ((s >= shortfall * slope) & (s <= -_FINE * slope) & descends)
        # Reading the flags stalls a GPU, but for less time than a pass over the responses takes.
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
        # A trial that ends a little short needs no proof.
        inside = torch.where(low == 0, _SHY * inside, inside)
        inside = torch.where(torch.isfinite(slope_high), inside, (low + high) / 2)
        # Without an upper end, follow the secant from 0, at most to four times the step.
        beyond = t * torch.where(s > slope, slope / (slope - s), torch.inf).clamp(1.1, 4.0)
        t = torch.where(found, t, torch.where(torch.isfinite(high), inside, beyond))
    return torch.where(found, t, low)


def step_along(x: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """The images x + t d with one t per image."""
    return torch.addcmul(x, d, per_image(t, x))
