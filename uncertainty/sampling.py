"""Draws from the posterior of a problem, with the evidence that there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icgn.solvers import Problem, Solution, Status
from icgn.uncertainty.chains import Chains, Target
from icgn.uncertainty.diagnostics import FEWEST, bulk_ess, mean_ess, split_rhat, tail_ess
from icgn.uncertainty.intervals import block_means
from icgn.uncertainty.posterior import Posterior

# Transitions between two looks at the chains.
_ROUND = 25
# Later looks come after so many more parts of all transitions: ranks of all draws are taken at each.
_LATER = 0.15
# Precision for which f of so many values has no rounding errors that count: beyond, float64 is used.
_ROUNDING = 1e-3
# By how much f must grow if a picture becomes brighter by so many times its noise.
_GROWTH, _BRIGHTER = 1.0, 1e4
_QUARTER = math.pi / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class PosteriorSamples:
    r"""Draws from the posterior exp(-f), :math:`f = F / \sigma^2`, of one picture.

    Chains that leave exp(-f) invariant exactly: what is computed from them is right in the limit of many draws, without
    a bias from steps. What they are worth now is measured and not proved: `rhat` and `ess` are those of the means of
    blocks.

    Attributes
    ----------
    draws : Tensor
        (chains, draws, C, H, W), float32.
    blocks : int
        side of the blocks whose means were watched.
    rhat, ess, tail : Tensor
        split R-hat, effective sample sizes of the bulk and of the tails for each block, (1, C, rows, columns), float64;
        nan with fewer than 8 draws.
    energy_rhat, energy_ess : float
        of f.
    converged : bool
        whether all of that is as good as was asked.
    gradients : int
        that each chain took, warm-up and all.
    per_draw : float
        gradients for one independent draw after the warm-up, in the median over the blocks.
    acceptance : float
        mean probability by which proposals were taken.
    given_condition : bool
        whether all is said given the condition of a conditional regularizer.
    state : Chains
        from which :func:`sample_posterior` goes on.
    """

    draws: Tensor
    blocks: int
    rhat: Tensor
    ess: Tensor
    tail: Tensor
    energy_rhat: float
    energy_ess: float
    converged: bool
    gradients: int
    per_draw: float
    acceptance: float
    given_condition: bool
    state: Chains

    @property
    def mean(self) -> Tensor:
        """The mean picture, (1, C, H, W)."""
        return self.draws.flatten(0, 1).mean(0, keepdim=True)

    @property
    def deviation(self) -> Tensor:
        """The standard deviations of the pixels, (1, C, H, W)."""
        return self.draws.flatten(0, 1).std(0, keepdim=True)

    def quantile(self, q: float) -> Tensor:
        """The pictures below whose pixels a part q of the draws is, (1, C, H, W).

        Raises
        ------
        ValueError
            unless 0 <= q <= 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q: got {q}, expected a number from 0 to 1")
        flat = self.draws.flatten(0, 1).cpu().numpy()
        return torch.from_numpy(np.quantile(flat, q, axis=0))[None].to(self.draws)

    def block_means(self) -> Tensor:
        """The means of the blocks, (chains, draws, C, rows, columns)."""
        return block_means(self.draws.flatten(0, 1), self.blocks).unflatten(0, self.draws.shape[:2])

    def block_intervals(self, alpha: float = 0.1) -> tuple[Tensor, Tensor]:
        r"""The quantiles :math:`\alpha/2` and :math:`1 - \alpha/2` of the means of the blocks, (1, C, rows, columns).

        Marginal intervals: the other pixels give way, unlike those of :func:`icgn.uncertainty.credible_intervals`.

        Raises
        ------
        ValueError
            unless 0 < alpha < 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: got {alpha}, expected a number between 0 and 1")
        flat = self.block_means().flatten(0, 1).double().cpu().numpy()
        low, high = np.quantile(flat, [alpha / 2, 1 - alpha / 2], axis=0)
        return torch.from_numpy(low)[None].to(self.draws), torch.from_numpy(high)[None].to(self.draws)

    def text(self) -> str:
        """What the draws are and what they are worth, in words."""
        given = ", given the condition that was computed from the measurement" if self.given_condition else ""
        chains, draws = self.draws.shape[:2]
        worth = "too few to judge" if draws < FEWEST else self._worth()
        end = "" if self.converged else "; fewer than was asked"
        return f"{draws} draws of each of {chains} chains from the model's posterior{given}: {worth}{end}"

    def _worth(self) -> str:
        return (
            f"means of blocks of {self.blocks} x {self.blocks} pixels have an R-hat of {float(self.rhat.max()):.3f} and"
            f" an effective sample size of {float(self.ess.min()):.0f} at worst; measured, not proved"
        )


def sample_posterior(
    problem: Problem,
    solution: Solution,
    *,
    chains: int = 4,
    blocks: int = 8,
    rhat: float = 1.02,
    ess: float = 400.0,
    max_gradients: int = 10_000,
    warmup: int = 250,
    trajectory: float = _QUARTER,
    seed: int = 0,
    state: Chains | None = None,
    callback: Callable[[Chains], object] | None = None,
) -> PosteriorSamples:
    r"""Draw from the posterior exp(-f), :math:`f = F / \sigma^2`, until the draws are worth what is asked.

    Metropolis-adjusted, preconditioned Hamiltonian Monte Carlo (:class:`icgn.uncertainty.chains.Chains`; Duane et al.
    1987; Neal 2011, arXiv:1206.1901), all chains in one batch. The warm-up finds the mass, the covariance of draws as a
    convolution with a scale at each pixel, and the step for which three of four proposals are taken. Sampling ends when
    the largest split R-hat and the smallest effective sample size of f and of the means of all blocks (Vehtari et al.
    2021, arXiv:1903.08008) are as asked.

    Parameters
    ----------
    problem : Problem
        of one measurement, without a box.
    solution : Solution
        what :func:`icgn.solve` returned for it; chains begin around it, and its weight and its condition count. It need
        not have converged.
    chains : int
        2 or more.
    blocks : int
        side of a block in pixels, 1 for single pixels.
    rhat : float
        the largest split R-hat, above 1.
    ess : float
        the smallest effective sample size, of the bulk and of the tails, of all chains together.
    max_gradients : int
        gradients of each chain, at most, up to those of one transition.
    warmup : int
        transitions of the warm-up, 50 or more.
    trajectory : float
        length of a transition: a quarter of a turn makes draws of a Gaussian independent; a length below one step makes
        it the preconditioned Metropolis-adjusted Langevin algorithm.
    seed : int
        of the random numbers.
    state : Chains, optional
        of draws of the same problem, to go on from (``samples.state``, or ``Chains.load(path)``), in place of beginning
        anew; chains, warmup, trajectory and seed are those of the state then. It is changed.
    callback : callable, optional
        called after 25 transitions or more, for example with ``lambda chains: chains.save(path)``.

    Raises
    ------
    TypeError
        for anything but a problem and a solution.
    ValueError
        for several measurements, a box (a density that ends somewhere), pictures that are not (B, C, H, W), a sigma of
        0, a solution of another problem or of none, numbers out of their range, a state of another problem, or a
        posterior that is none: without a modulus, f must grow where the picture becomes brighter everywhere.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> from icgn.uncertainty import sample_posterior
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.load_pretrained("ridge-gray-small"), sigma=0.1)
    >>> found = sample_posterior(problem, icgn.solve(problem), ess=50, rhat=1.1)
    >>> found.converged, tuple(found.mean.shape), tuple(found.block_intervals()[0].shape)
    (True, (1, 1, 16, 16), (1, 1, 2, 2))
    """
    posterior = Posterior.of(problem, solution)
    _check_numbers(chains, rhat, ess, max_gradients, warmup, trajectory)
    check_posed(posterior, solution)
    smallest = min(posterior.x.shape[-2:])
    if not isinstance(blocks, int) or not 1 <= blocks <= smallest:
        raise ValueError(f"blocks: got {blocks}, expected a side from 1 to {smallest} pixels")
    begun = state is not None
    count = chains if state is None else len(state.x)
    target, x = target_of(problem, solution, posterior, count)
    _check_proper(target, x)
    current = Chains.begin(target, x, count, seed, trajectory, warmup) if state is None else state
    if begun:
        _check_state(current, target, x)
    while True:
        found = _samples(current, blocks, rhat, ess, solution.condition is not None)
        if callback is not None and current.transitions:
            callback(current)
        if found.converged or current.gradients >= max_gradients:
            return found
        for _ in range(max(_ROUND, int(_LATER * current.transitions))):
            if current.gradients < max_gradients:
                current.advance(target)


def target_of(problem: Problem, solution: Solution, posterior: Posterior, chains: int) -> tuple[Target, Tensor]:
    """The density of several chains and the picture of a solution, in a precision in which f has no rounding errors.

    Parameters
    ----------
    problem, solution
        of one measurement.
    posterior : Posterior
        theirs.
    chains : int
        how many.
    """
    dtype = problem.y.dtype
    if torch.finfo(dtype).eps * posterior.unknowns > _ROUNDING:
        dtype = posterior.objective.precision(torch.float64)
    posed = problem.given(weight=solution.weight, condition=solution.condition).objective.to(dtype)
    index = torch.zeros(chains, dtype=torch.int64, device=problem.y.device)
    return Target(posed.select(index), float(posterior.sigma[0])), posterior.x.to(dtype)


def _samples(state: Chains, blocks: int, rhat: float, ess: float, given: bool) -> PosteriorSamples:
    """What the draws so far say."""
    draws = torch.stack(state.draws, 1) if state.draws else state.x.new_zeros(len(state.x), 0, *state.x.shape[1:])
    means = block_means(draws.flatten(0, 1), blocks) if len(state.draws) else block_means(state.x, blocks)
    shape = (1, *means.shape[1:])
    bulk = tails = split = mean = np.full(math.prod(shape) + 1, np.nan)
    if len(state.draws) >= FEWEST:
        watched = torch.stack(state.energies, 1)[..., None].cpu()
        both = torch.cat([means.unflatten(0, draws.shape[:2]).flatten(2).double().cpu(), watched], 2).numpy()
        split, bulk, tails, mean = split_rhat(both), bulk_ess(both), tail_ess(both), mean_ess(both)
    enough = bool((split <= rhat).all() and (np.minimum(bulk, tails) >= ess).all())

    def picture(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[:-1].copy()).reshape(shape)

    per_transition = max(1, round(state.trajectory / state.step))
    return PosteriorSamples(
        draws=draws,
        blocks=blocks,
        rhat=picture(split),
        ess=picture(bulk),
        tail=picture(tails),
        energy_rhat=float(split[-1]),
        energy_ess=float(bulk[-1]),
        converged=enough,
        gradients=state.gradients,
        per_draw=float(np.median(len(state.x) * state.tried * per_transition / mean[:-1])),
        acceptance=state.acceptance,
        given_condition=given,
        state=state,
    )


def _check_numbers(chains: int, rhat: float, ess: float, max_gradients: int, warmup: int, trajectory: float) -> None:
    for name, value, least in (("chains", chains, 2), ("max_gradients", max_gradients, 1), ("warmup", warmup, 50)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value}, expected an integer, {least} or more")
    for name, number, bound in (("rhat", rhat, 1.0), ("ess", ess, 0.0), ("trajectory", trajectory, 0.0)):
        if not bound < number < math.inf:
            raise ValueError(f"{name}: got {number}, expected a finite number above {bound:g}")


def check_posed(posterior: Posterior, solution: Solution) -> None:
    """Raise ``ValueError`` for a posterior that is not that of one picture of finite values without a box."""
    shape = posterior.x.shape
    if len(shape) != 4:
        raise ValueError(f"solution: got pictures of shape {tuple(shape)}, expected (1, C, H, W)")
    if shape[0] != 1:
        raise ValueError(f"problem: got {shape[0]} measurements, expected one; sample them one after the other")
    if solution.status[0] is Status.INVALID_INPUT or not bool(torch.isfinite(posterior.x).all()):
        raise ValueError(f"solution: got one that is {solution.status[0].name}, expected a picture of finite values")
    if posterior.box is not None:
        raise ValueError(
            f"box: got ({posterior.box.low:g}, {posterior.box.high:g}), expected None: a density that ends at bounds is"
            " not sampled; pose and solve the problem without a box"
        )


@torch.no_grad()
def _check_proper(target: Target, x: Tensor) -> None:
    """Refuse an f that stays finite where a picture becomes ever brighter: regularizers do not see constants."""
    if bool((target.objective.strong_convexity() > 0).all()):
        return
    like = x.expand(len(target.objective.weight), -1, -1, -1)
    here, there = (target.at(v)[0] for v in (like, like + _BRIGHTER * target.sigma))
    if not bool((there >= here + _GROWTH).all()):
        raise ValueError(
            "problem: got one whose measurement and regularizer do not see how bright the picture is, expected a"
            " posterior that is a probability"
        )


@torch.no_grad()
def _check_state(state: Chains, target: Target, x: Tensor) -> None:
    """Refuse chains of another problem: their f is another one."""
    if state.x.shape[1:] != x.shape[1:] or state.x.dtype != x.dtype:
        raise ValueError(
            f"state: got chains of {tuple(state.x.shape[1:])} in {state.x.dtype}, expected {tuple(x.shape[1:])} in"
            f" {x.dtype}"
        )
    energy = target.at(state.x)[0]
    if not torch.allclose(energy, state.energy.to(energy), rtol=1e-4, atol=1e-3):
        raise ValueError(f"state: got chains whose f is {state.energy.tolist()}, expected that of the problem there")
