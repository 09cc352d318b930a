r"""The weight of the regularizer, found without ground truth, or on pairs.

A weight w makes a picture :math:`x_w`; each rule below finds w per image by a one-dimensional search in log w over
loosely solved problems, each begun at the answer of the one before. Noise is white and Gaussian and its level known:
:attr:`Problem.noise`. To denoise a large picture a part of it suffices: tiles of it, spread over the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icgn.functionals.functional import dot, per_image
from icgn.functionals.intensities import checked_range
from icgn.functionals.noise import Noise
from icgn.functionals.physics import is_identity
from icgn.solvers.conditioning import conditioned, is_conditional
from icgn.solvers.implicit import solve_hessian
from icgn.solvers.problem import Problem
from icgn.solvers.run import minimize
from icgn.solvers.tolerance import Tolerance

# Weights that are tried, and evaluations of a search at most.
_LOW, _HIGH = 1e-3, 1e3
_STEPS = 18
# A search for the smallest value, in log w: its first step, and the step at which it ends.
_STRIDE, _WIDTH = 0.35, 0.05
# How far beyond three points the next may be, as a part of their width.
_REACH = 0.6
# How the problems on the way are solved: RMS distance as a part of the noise and its range, relative gap, iterations.
_PART, _FINEST, _COARSEST = 1 / 80, 1e-6, 5e-4
_GAP, _ITERATIONS = 1e-2, 200
# Pixels that a picture to be denoised is searched on, at most, and the side of the tiles they form.
_PIXELS, _TILE = 2**18, 128

Trial = Callable[[Tensor], Tensor]
"""Gives, for the logarithms of weights (B,), a number per image."""


def discrepancy(problem: Problem) -> Tensor:
    r"""The weights for which :math:`|A x_w - y|^2 = m\, \text{noise}^2`, m being the number of measurements, (B,).

    Morozov's discrepancy principle: the residual, which grows with w, is as large as the noise. Entries of y that A
    never reaches, as those under a mask, do not count. If no weight between 1e-3 and 1e3 fits, the nearer end is taken.

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
    that is not injective it is the risk of A x only. It hardly changes where A maps much to nearly 0, and the weights
    become small there.

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
    path = _Path.of(problem.given(weight=1.0), None)
    if problem.range is not None:
        low, high = checked_range(problem.range)
        clean = (clean - low) / (high - low)

    def loss(s: Tensor) -> Tensor:
        error = path.solve(s.expand(len(clean))).x - clean
        return error.square().flatten(1).mean(1).log().mean().reshape(1).double()

    return float(_smallest(loss, path.count[:1]).exp())


def resolved(problem: Problem) -> Problem:
    """The problem with the weights that its rule finds; a conditional regularizer takes those of its first problem."""
    if not isinstance(problem.weight, str):
        return problem
    rule = discrepancy if problem.weight == "discrepancy" else sure
    with torch.no_grad():
        return problem.given(weight=rule(problem))


@dataclass(frozen=True, eq=False)
class _Posed:
    """A problem with weights and its approximate minimizer."""

    problem: Problem
    x: Tensor


@dataclass(eq=False)
class _Path:
    """Solutions along a search: the problem, and what all of them share.

    The problem has `tiles` pictures in a row for each image; its noise, its weights and all sums are those of images.
    With `conditions` a conditional regularizer has them computed for each weight; rules use its first network.
    """

    problem: Problem
    noise: Tensor
    seen: Tensor
    count: Tensor
    tiles: int = 1
    conditions: bool = False
    x: Tensor | None = None

    @classmethod
    def of(cls, problem: Problem, rule: str | None) -> _Path:
        if rule is not None and problem.data_fidelity is not None:
            kind = type(problem.data_fidelity).__name__
            raise ValueError(f"weight: {rule!r} assumes Gaussian data of known noise, got the data fidelity {kind}")
        problem = problem.brought()
        level = problem.sigma if problem.noise is None else problem.noise
        noise = torch.as_tensor(level, dtype=torch.float64, device=problem.y.device).reshape(-1).expand(len(problem.y))
        batch = len(problem.y)
        problem = problem if rule is None else tiled(problem)
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(problem.start().shape, generator=generator, dtype=problem.y.dtype).to(problem.y.device)
        seen = problem.physics.A(image) != 0
        count = _of_images(seen.flatten(1).sum(1), batch)
        return cls(problem, noise, seen, count, len(problem.y) // batch, conditions=rule is None)

    def solve(self, log_weight: Tensor) -> _Posed:
        problem = self.problem.given(weight=log_weight.exp().repeat_interleave(self.tiles))
        tol = min(max(_FINEST, _PART * float(self.noise.min())), _COARSEST)
        start = problem.start() if self.x is None else self.x
        if self.conditions and is_conditional(problem):
            before = conditioned(problem, x0=start, max_iter=_ITERATIONS)
            problem, start = before.problem, before.x
        found = minimize("weight", problem.objective, "auto", start, Tolerance(tol, _GAP), _ITERATIONS, problem.index)
        # An invalid image has no solution from which the next could start.
        self.x = torch.where(torch.isfinite(found.x), found.x, 0.0)
        return _Posed(problem, self.x)

    def residual(self, posed: _Posed) -> Tensor:
        """|A x - y|^2 over what is measured, (B,)."""
        r = (posed.problem.physics.A(posed.x) - torch.nan_to_num(posed.problem.y)) * self.seen
        return _of_images(dot(r, r), len(self.noise))

    def divergence(self, posed: _Posed) -> Tensor:
        """Divergence of A x with respect to y, by one sign vector, (B,)."""
        problem, physics = posed.problem, posed.problem.physics
        generator = torch.Generator().manual_seed(1)
        # The same vector for all images: the estimate of one does not depend on its neighbours in the batch.
        signs = torch.randint(0, 2, (self.tiles, *problem.y.shape[1:]), generator=generator).to(problem.y) * 2 - 1
        signs = signs.repeat(len(self.noise), *(1 for _ in problem.y.shape[1:]))
        pulled = physics.A_adjoint(signs * self.seen)
        scale = problem.objective.data_weight
        # The error of b^T H^-1 b is the square of that of the solution.
        tol = torch.full((len(pulled),), 0.1).to(pulled)
        box = problem.objective.box
        free = None if box is None else box.free(posed.x)
        system = solve_hessian(problem.objective, posed.x, per_image(scale, pulled) * pulled, free, tol, 100)
        return _of_images(dot(pulled, system.v), len(self.noise))


def tiled(problem: Problem) -> Problem:
    """The problem of denoising tiles of the images, on an even grid, if they are larger than the tiles together.

    The tiles of an image follow one another; all other problems are returned as they are.
    """
    y = problem.y
    if not is_identity(problem.physics) or problem.condition is not None or y[0, 0].numel() <= _PIXELS:
        return problem
    height, width = (min(_TILE, side) for side in y.shape[-2:])
    count = _PIXELS // (height * width)
    down, across = y.shape[-2] // height, y.shape[-1] // width
    rows = min(max(round(math.sqrt(count * down / across)), 1), down)
    tops = _spread(y.shape[-2] - height, rows)
    lefts = _spread(y.shape[-1] - width, min(max(count // rows, 1), across))
    parts = [y[..., top : top + height, left : left + width] for top in tops for left in lefts]
    sigma, noise = _repeated(problem.sigma, len(parts)), problem.noise
    assert not isinstance(noise, Noise)  # rules refuse maps and counts
    noise = None if noise is None else _repeated(noise, len(parts))
    return replace(problem, y=torch.stack(parts, 1).flatten(0, 1), sigma=sigma, noise=noise)


def _spread(last: int, count: int) -> list[int]:
    """Whole numbers from 0 to `last` at even distances; the middle if there is one only."""
    return [last // 2] if count == 1 else [i * last // (count - 1) for i in range(count)]


def _repeated(level: float | Tensor, times: int) -> Tensor:
    """One number, or one per image, as numbers of the tiles of each image."""
    numbers = torch.as_tensor(level, dtype=torch.float64).reshape(-1)
    return numbers if len(numbers) == 1 else numbers.repeat_interleave(times)


def _of_images(values: Tensor, batch: int) -> Tensor:
    """Sums over the tiles of each image, (B,)."""
    return values.double().reshape(batch, -1).sum(1)


def _increasing(f: Trial, like: Tensor) -> Tensor:
    """Root of an increasing function of log w per image, by bisection sped up by secants."""
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
    """Minimizer of a unimodal function of log w per image: parabolas through three points, the first of them around 0.

    Each new point is where the parabola is lowest, not far beyond the three. An end of the range of weights is
    taken where the function still falls there.
    """
    end = math.log(_HIGH)
    at, values = _first(f, like)
    for _ in range(_STEPS):
        vertex, lowest = _vertex(at, values), _lowest(at, values)
        width = at[2] - at[0]
        # Over the first three points the function is not yet a parabola.
        near = ((vertex - lowest).abs() < _WIDTH) & (width < 1.6 * _STRIDE)
        done = near | (width < 2 * _WIDTH) | (lowest.abs() > end)
        if bool(done.all()):
            break
        # An image that is done waits: the values at closer points would differ by their errors only.
        tried = torch.where(done, lowest, _apart(vertex, at))
        following = _three(torch.cat([at, tried[None]]), torch.cat([values, f(tried)[None]]))
        at, values = (torch.where(done, *pair) for pair in zip((at, values), following, strict=True))
    lowest = _lowest(at, values)
    return torch.where(lowest.abs() > end, lowest, _vertex(at, values))


def _first(f: Trial, like: Tensor) -> tuple[Tensor, Tensor]:
    """Three increasing log w per image and the values, (3, B): downhill first, large weights being the slow ones."""
    one, less = torch.zeros_like(like), torch.full_like(like, -_STRIDE)
    at, values = torch.stack([less, one]), torch.stack([f(less), f(one)])
    third = torch.where(values[0] < values[1], less - _STRIDE, one + _STRIDE)
    return _three(torch.cat([at, third[None]]), torch.cat([values, f(third)[None]]))


def _three(at: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest of three or four sorted points (N, B) with its neighbours, or with the nearest two at an end."""
    at, order = at.sort(0)
    values = values.gather(0, order)
    begin = (values.argmin(0, keepdim=True) - 1).clamp(0, len(at) - 3)
    index = torch.cat([begin, begin + 1, begin + 2])
    return at.gather(0, index), values.gather(0, index)


def _vertex(at: Tensor, values: Tensor) -> Tensor:
    """Where the parabola through three points (3, B) is lowest, if anywhere, or downhill; not far from them."""
    left, right = at[1] - at[0], at[2] - at[1]
    rise_left, rise_right = (values[1] - values[0]) / left, (values[2] - values[1]) / right
    bend = (rise_right - rise_left) / (left + right)
    vertex = (at[0] + at[1]) / 2 - rise_left / (2 * bend)
    downhill = torch.where(values[0] < values[2], -torch.inf, torch.inf).to(at)
    vertex = torch.where((bend > 0) & torch.isfinite(vertex), vertex, downhill)
    # Steps grow where the way is long.
    reach, end = _REACH * (left + right), math.log(_HIGH) + _STRIDE
    return torch.minimum(torch.maximum(vertex, at[0] - reach), at[2] + reach).clamp(-end, end)


def _lowest(at: Tensor, values: Tensor) -> Tensor:
    return at.gather(0, values.argmin(0, keepdim=True))[0]


def _apart(tried: Tensor, at: Tensor) -> Tensor:
    """The points (B,), moved away from those of (3, B) that are too close to give new information."""
    nearest = at.gather(0, (at - tried).abs().argmin(0, keepdim=True))[0]
    step = tried - nearest
    return nearest + torch.where(step < 0, -1.0, 1.0) * step.abs().clamp_min(_WIDTH)
