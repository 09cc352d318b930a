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
# A step that is guessed from a part of the responses is cut to this part: one beyond the minimizer needs another trial.
_SHORT = 0.9
# A slope so small counts as 0: the step may end on either side of the minimizer.
_LEVEL = 1e-3
# Where several steps are tried at once: parts of the guess, multiples of the last step where all were too short, and
# how far the ends of an enclosure may be level: slopes as parts of the first.
_AROUND = (0.5, 0.8, 1.2, 1.8)
_BEYOND = (2.0, 4.0, 8.0, 16.0)
_ENCLOSED = 0.5


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
        if self._cheap and self.objective.trials(self.u) > 1:
            found = enclosed_step(lambda t: self.objective.slopes_along(self.u, self.q, t), slope, guess)
        elif self._cheap:
            found = exact_step(self._slope, slope, guess)
        else:
            found = exact_step(self._slope, slope, self._sampled(slope, guess), rough)
        return torch.where(slope < 0, found, 0.0)

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
        return self.objective.advance_grad(self.u, self.q, t, self.d.shape)

    def _sampled(self, slope: Tensor, guess: Tensor) -> Tensor:
        """A guess from the slopes of a part of the responses, if there are some: nothing depends on it but time."""
        at_zero = self.objective.sampled_slopes(self.u, self.q, torch.zeros_like(guess)[None])
        if at_zero is None:
            return guess

        def slopes(t: Tensor) -> Tensor:
            found = self.objective.sampled_slopes(self.u, self.q, t)
            assert found is not None
            return found - at_zero + slope

        found = _SHORT * enclosed_step(slopes, slope, guess)
        return torch.where(found > 0, found, guess)

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


def enclosed_step(slopes_at: Callable[[Tensor], Tensor], slope: Tensor, guess: Tensor, passes: int = 8) -> Tensor:
    r"""Step t > 0 to a minimizer of convex :math:`\phi`, per image, where several slopes cost as much as one.

    Each pass tries four steps. :math:`\phi'` is nondecreasing, so that the largest step of negative slope, l, and the
    smallest of another, h, enclose a minimizer, and :math:`\phi'(l) \le \phi'(t) \le \phi'(h)` for each t between,
    which needs no trial of its own: t is where the secant of both vanishes. It is taken when the slopes of l and h are
    at most half of :math:`|\phi'(0)|`, with the proof that :math:`\phi(t) \le \phi(0)`:
    :math:`l\,\phi'(l) + (t - l)\,\phi'(h) \le 0`, as in :func:`exact_step`; a step is also taken whose own slope is a
    thousandth of :math:`|\phi'(0)|`. If `passes` passes do not suffice, it is the largest step known to be too short.

    Parameters
    ----------
    slopes_at : callable
        :math:`\phi'` at several steps per image, (T, B), shape of the steps.
    slope : Tensor
        :math:`\phi'(0) < 0`, shape (B,).
    guess : Tensor
        first trial, positive, shape (B,).
    """
    tried, slopes = torch.zeros_like(guess)[None], slope[None]
    around, beyond = (slope.new_tensor(parts)[:, None] for parts in (_AROUND, _BEYOND))
    steps = around * guess
    found, taken = torch.zeros_like(guess, dtype=torch.bool), torch.zeros_like(guess)
    for _ in range(passes):
        new = slopes_at(steps)
        tried, slopes = torch.cat([tried, steps]), torch.cat([slopes, torch.where(torch.isfinite(new), new, torch.inf)])
        short = slopes < 0
        low, slope_low = _at(torch.where(short, tried, -torch.inf).argmax(0), tried, slopes)
        high, slope_high = _at(torch.where(short, torch.inf, tried).argmin(0), tried, slopes)
        enclosed = ~short.all(0)
        t = torch.where(enclosed, low - slope_low * (high - low) / (slope_high - slope_low), low)
        near = enclosed & (slope_low >= _ENCLOSED * slope) & (slope_high <= -_ENCLOSED * slope)
        near &= low * slope_low + (t - low) * slope_high <= 0
        best, least = _at(slopes.abs().argmin(0), tried, slopes)
        level = least.abs() <= -_LEVEL * slope
        taken = torch.where(found, taken, torch.where(near, t, torch.where(level, best, low)))
        found = found | near | level
        if bool(found.all()):
            break
        t = torch.maximum(torch.minimum(t, high - 1e-3 * (high - low)), low + 1e-3 * (high - low))
        before, after = 0.1 * (t - low), 0.1 * (high - t)
        # Close to the root of the secant, and to both ends: at a kink the secant is far off.
        inside = torch.stack([low + before, t - before, t + after, high - after])
        steps = torch.where(enclosed, inside, beyond * steps.amax(0))
    return taken


def _at(index: Tensor, tried: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The step with an index of each image, and its slope."""
    return tried.gather(0, index[None])[0], slopes.gather(0, index[None])[0]


def step_along(x: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """The images x + t d with one t per image."""
    return torch.addcmul(x, d, per_image(t, x))
