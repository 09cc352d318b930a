"""Local credible intervals: between which values the mean of a block of pixels may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icgn.functionals.box import Box
from icgn.solvers import Problem, Solution
from icgn.uncertainty.changes import changes, pixels
from icgn.uncertainty.posterior import Posterior
from icgn.uncertainty.region import allowance, check_alpha

# Steps by which a bracket may be doubled, and evaluations within it.
_DOUBLINGS, _EVALUATIONS = 60, 60
# Ends of an interval are found to this part of what the data alone allow, or of the room that f has.
_FINE = 1e-6

Values = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class CredibleIntervals:
    r"""Between which values blocks of pixels may be, each on its own, within a credible region.

    :math:`[\min, \max]` of the values :math:`\xi` for which the solution with :math:`\xi` in the block, and unchanged
    elsewhere, is in the region (Cai, Pereyra, McEwen 2018, MNRAS 480(3), 4170); or, where the detail is kept, of the
    means of the block when it is shifted as it is. They are as conservative as the region, and are no marginal
    intervals: the other pixels do not give way.

    Attributes
    ----------
    low, high : Tensor
        the ends, in the unit of the picture, float64 (B, C, rows, columns) for rows x columns of blocks; infinite where
        nothing bounds them, NaN where the solution with that block flat, of its mean, is not in the region: an edge
        crosses it.
    mean : Tensor
        the means of the blocks of the solution, of that shape.
    blocks : int
        side of a block in pixels; those at the lower and right border may be smaller.
    alpha : float
        the probability that may be outside the region.
    given_condition : bool
        whether all is said given the condition of a conditional regularizer.
    shape : torch.Size
        of the pictures.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    blocks: int
    alpha: float
    given_condition: bool
    shape: torch.Size

    @property
    def width(self) -> Tensor:
        """High less low."""
        return self.high - self.low

    def picture(self) -> Tensor:
        """The widths at the pixels, (B, C, H, W)."""
        height, width = self.shape[-2:]
        wide = self.width.repeat_interleave(self.blocks, -2).repeat_interleave(self.blocks, -1)
        return wide[..., :height, :width]

    def text(self) -> str:
        """What the intervals are, in words."""
        given = ", given the condition that was computed from the measurement" if self.given_condition else ""
        return (
            f"values that blocks of {self.blocks} x {self.blocks} pixels may have within the region that holds at least"
            f" {1 - self.alpha:.4g} of the probability of the model's posterior{given}; conservative, not calibrated"
        )


@torch.no_grad()
def credible_intervals(
    problem: Problem, solution: Solution, *, blocks: int = 8, alpha: float = 0.01, keep_detail: bool = False
) -> CredibleIntervals:
    r"""Local credible intervals of the blocks of a solution, see :class:`CredibleIntervals`.

    Blocks that change different responses are evaluated at once, and what a block does not change is not evaluated: all
    of a picture costs about as much as a few hundred values of the objective. Regularizers whose responses are not
    known to be local (:func:`icgn.uncertainty.tiling.reach`) are evaluated as a whole for each block.

    Parameters
    ----------
    problem : Problem
        what was solved.
    solution : Solution
        what :func:`icgn.solve` returned for it.
    blocks : int
        side of a block in pixels, 1 for single pixels. Channels have intervals of their own.
    alpha : float
        between :math:`4 e^{-n/3}` and 1.
    keep_detail : bool
        shift the pixels of a block together, in place of setting all to one value.

    Raises
    ------
    TypeError
        for anything but a problem and a solution.
    ValueError
        for an alpha out of its range, blocks that are larger than the picture, pictures that are not (B, C, H, W), a
        sigma of 0, or a solution of another problem.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> from icgn.uncertainty import credible_intervals
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.TotalVariation(), sigma=0.1)
    >>> found = credible_intervals(problem, icgn.solve(problem), blocks=8)
    >>> tuple(found.low.shape), bool((found.low < found.mean).all())
    ((1, 1, 2, 2), True)
    """
    posterior = Posterior.of(problem, solution)
    check_alpha(alpha, posterior.unknowns)
    shape = posterior.x.shape
    if len(shape) != 4:
        raise ValueError(f"solution: got pictures of shape {tuple(shape)}, expected (B, C, H, W)")
    if not isinstance(blocks, int) or not 1 <= blocks <= min(shape[-2:]):
        raise ValueError(f"blocks: got {blocks}, expected a side from 1 to {min(shape[-2:])} pixels")
    room = allowance(alpha, posterior.unknowns)
    objective = problem.given(weight=solution.weight, condition=solution.condition).objective
    mean = block_means(posterior.x, blocks)
    start = posterior.x if keep_detail else pixels(mean, blocks, shape)
    least, most = -_largest(-start, blocks), _largest(start, blocks)
    low, high = torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan)
    for i in torch.nonzero(posterior.solved).flatten().tolist():
        at = torch.tensor([i], device=mean.device)
        x = solution.x[at].detach()
        for where, values in changes(objective.select(at), x, mean[at].to(x), blocks, keep_detail=keep_detail):
            down, up = _steps(posterior.box, least[i][where], most[i][where])
            own = _ends(values, (down.flatten(), up.flatten()), room, float(posterior.sigma[i]), blocks)
            low[i][where] = mean[i][where] - own[0].reshape(down.shape)
            high[i][where] = mean[i][where] + own[1].reshape(up.shape)
    return CredibleIntervals(
        low=low,
        high=high,
        mean=mean,
        blocks=blocks,
        alpha=float(alpha),
        given_condition=solution.condition is not None,
        shape=shape,
    )


def block_means(x: Tensor, side: int) -> Tensor:
    """Means of the blocks of pictures (B, C, H, W), (B, C, rows, columns); those at the far borders may be smaller."""
    return torch.nn.functional.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)


def _largest(x: Tensor, side: int) -> Tensor:
    """The largest values of the blocks of pictures."""
    return torch.nn.functional.max_pool2d(x, side, ceil_mode=True)


def _steps(box: Box | None, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """How far blocks of such values may go down and up within a box."""
    if box is None:
        return torch.full_like(least, torch.inf), torch.full_like(most, torch.inf)
    return (least - box.low).clamp_min(0), (box.high - most).clamp_min(0)


def _ends(values: Values, limits: tuple[Tensor, Tensor], room: float, sigma: float, side: int) -> tuple[Tensor, Tensor]:
    """How far blocks may go down and up, (n,) each: until f has changed by the room that there is, or to the limits."""

    def excess(t: Tensor) -> Tensor:
        return values(t) / (sigma**2 * room) - 1

    start = excess(torch.zeros_like(limits[0]))
    # Where pixels are measured with noise of sigma, the data alone forbid more.
    guess = sigma * math.sqrt(2 * room) / side
    down = _root(lambda t: excess(-t), start, limits[0], guess)
    return down, _root(excess, start, limits[1], guess)


def _root(excess: Values, start: Tensor, most: Tensor, guess: float) -> Tensor:
    """The largest t in [0, most] at which convex functions are not above 0, start being their values at 0; (n,).

    The values at the ends of a bracket are joined by a line, and its root, which is inside, takes the place of one of
    them; an end that stays twice counts half (the Illinois method).
    """
    inside, outside = torch.zeros_like(start), torch.minimum(torch.full_like(start, guess), most)
    below, above = start, excess(outside)
    for _ in range(_DOUBLINGS):
        growing = (above <= 0) & (outside < most)
        if not bool(growing.any()):
            break
        inside, below = torch.where(growing, outside, inside), torch.where(growing, above, below)
        outside = torch.where(growing, torch.minimum(2 * outside, most), outside)
        above = torch.where(growing, excess(outside), above)
    unbounded, before = above <= 0, torch.zeros_like(start)
    for k in range(_EVALUATIONS):
        open_ = (outside - inside > _FINE * guess) & ~unbounded
        if not bool(open_.any()):
            break
        t = inside + (outside - inside) * (below / (below - above)).nan_to_num(0.5).clamp(0, 1)
        middle = (inside + outside) / 2
        # A line may creep, as through a kink: now and then a step halves the bracket.
        t = torch.where((t > inside) & (t < outside) & (k % 8 != 7), t, middle)
        t = torch.where(open_, t, inside)
        value = excess(t)
        goes_in = open_ & (value <= 0)
        goes_out = open_ & ~goes_in
        inside, below = torch.where(goes_in, t, inside), torch.where(goes_in, value, below)
        above = torch.where(goes_in & (before > 0), above / 2, above)
        outside, above = torch.where(goes_out, t, outside), torch.where(goes_out, value, above)
        below = torch.where(goes_out & (before < 0), below / 2, below)
        before = goes_in.double() - goes_out.double()
        close = open_ & (value.abs() < _FINE)
        inside, outside = torch.where(close, t, inside), torch.where(close, t, outside)
    found = torch.where(unbounded, torch.where(outside < most, torch.inf, most), inside)
    return torch.where(start > 0, torch.nan, found)
