r"""Langevin methods of deepinv on the posterior of a problem, with steps from constants that are proved.

For :math:`f = F / \sigma^2`, m-strongly convex with a gradient of Lipschitz constant M, of n values, the unadjusted
Langevin algorithm with a step :math:`h \le 2 / (m + M)` comes after k iterations as near to exp(-f) as

.. math::

    W_2(\nu_k, \pi) \le (1 - m h)^k\, W_2(\nu_0, \pi) + 1.65\, \frac{M}{m} \sqrt{h n}

(Dalalyan, Karagulyan 2019, Stochastic Processes and their Applications 129, 5278, theorem 1; of the same kind: Durmus,
Moulines 2019, Bernoulli 25(4A), 2854). What does not go away with k is the bias of its step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import deepinv
from torch import Tensor

from icgn.solvers import Problem, Solution
from icgn.uncertainty.chains import Target
from icgn.uncertainty.posterior import Posterior
from icgn.uncertainty.sampling import check_posed, target_of

_METHODS = ("ula", "skrock")
# Damping of SK-ROCK.
_DAMPING = 0.05


@dataclass(frozen=True, kw_only=True)
class LangevinConstants:
    """What is proved of the posterior exp(-f) of a problem.

    Attributes
    ----------
    modulus : float
        m: f is m-strongly convex; 0 where nothing is known.
    lipschitz : float
        M: that of the gradient of f; inf where no bound is known.
    """

    modulus: float
    lipschitz: float

    @classmethod
    def of(cls, problem: Problem, solution: Solution) -> LangevinConstants:
        """Those of a problem of one measurement, with the weight and the condition of a solution.

        Raises
        ------
        TypeError, ValueError
            as :func:`icgn.uncertainty.sample_posterior`.
        """
        posterior = Posterior.of(problem, solution)
        check_posed(posterior, solution)
        square = float(posterior.sigma[0]) ** 2
        found = (posterior.objective.strong_convexity(), posterior.objective.lipschitz())
        low, high = (float(c.reshape(-1)[0]) / square for c in found)
        return cls(modulus=low, lipschitz=high)

    def step(self, method: str = "skrock", stages: int = 10) -> float:
        r"""The longest step of a method that is taken here: :math:`1 / M`, or :math:`l_s / M` with s stages.

        For SK-ROCK :math:`l_s = (s - 1/2)^2 (2 - 4 \eta / 3) - 3/2` with damping :math:`\eta = 0.05` (Pereyra, Vargas
        Mieles, Zygalakis 2020, SIAM J. Imaging Sci. 13(2), 905).

        Parameters
        ----------
        method : str
            ``"ula"`` or ``"skrock"``.
        stages : int
            gradients of an iteration of SK-ROCK, 3 or more.

        Raises
        ------
        ValueError
            for another method or number, or without a finite Lipschitz constant.
        """
        if method not in _METHODS:
            raise ValueError(f"method: got {method!r}, expected one of {', '.join(_METHODS)}")
        if not isinstance(stages, int) or stages < 3:
            raise ValueError(f"stages: got {stages}, expected an integer, 3 or more")
        if not math.isfinite(self.lipschitz):
            raise ValueError("step: got none, expected a number, since no Lipschitz constant of the problem is known")
        reach = 1.0 if method == "ula" else (stages - 0.5) ** 2 * (2 - 4 * _DAMPING / 3) - 1.5
        return reach / self.lipschitz

    def bias(self, step: float) -> float:
        r"""Bound of :math:`W_2 / \sqrt n` between exp(-f) and the limit of the unadjusted Langevin algorithm.

        :math:`1.65\, (M / m) \sqrt{h}`, in intensities: an RMS over the pixels, loose where M is much larger than m. It
        is inf without a modulus, or for a step above :math:`2 / (m + M)`. Nothing of this kind is known of SK-ROCK for
        other than Gaussian densities.

        Raises
        ------
        ValueError
            unless the step is above 0.
        """
        if not step > 0:
            raise ValueError(f"step: got {step}, expected a number above 0")
        if not (self.modulus > 0 and step <= 2 / (self.modulus + self.lipschitz)):
            return math.inf
        return 1.65 * self.lipschitz / self.modulus * math.sqrt(step)

    def iterations(self, step: float, part: float = 0.01) -> float:
        """Iterations of the unadjusted Langevin algorithm after which what is left of a start is at most this part.

        Parameters
        ----------
        step : float
            h, at most 2 / (m + M).
        part : float
            of the distance of the start, between 0 and 1.
        """
        if not math.isfinite(self.bias(step)):
            return math.inf
        return math.ceil(math.log(part) / math.log1p(-min(self.modulus * step, 1 - 1e-12)))


class PosteriorPrior(deepinv.optim.Prior):  # type: ignore[misc]
    """The negative logarithm f of a posterior as a prior of deepinv; the measurement is in it already."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.explicit_prior = True
        self.target = target

    def fn(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Values f(x), (B,)."""
        return self.target.at(x)[0]

    def grad(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The gradient of f, shape of x."""
        return self.target.at(x)[1]


def langevin(
    problem: Problem,
    solution: Solution,
    *,
    method: str = "skrock",
    stages: int = 10,
    step: float | None = None,
    chains: int = 1,
    **options: Any,
) -> deepinv.sampling.BaseSampling:
    r"""The unadjusted Langevin algorithm of deepinv, or its stabilized one, on the posterior of a problem.

    ``langevin(...).sample(y, physics, x_init=x)`` gives the mean and the variance of the draws of each chain; x are the
    starting pictures (chains, C, H, W), for example ``solution.x.expand(chains, -1, -1, -1)``; y and the physics are
    those of the problem. Both methods are biased by their step (:class:`LangevinConstants`);
    :func:`icgn.uncertainty.sample_posterior` is not.

    Parameters
    ----------
    problem : Problem
        of one measurement, without a box.
    solution : Solution
        what :func:`icgn.solve` returned for it; its weight and its condition count.
    method : str
        ``"ula"`` (:class:`deepinv.sampling.ULAIterator`) or ``"skrock"`` (:class:`deepinv.sampling.SKRockIterator`).
    stages : int
        gradients of an iteration of SK-ROCK.
    step : float, optional
        default the longest one that is stable, :meth:`LangevinConstants.step`.
    chains : int
        how many run side by side.
    **options
        of :func:`deepinv.sampling.sampling_builder`: max_iter, burnin_ratio, thinning, history_size, ...

    Raises
    ------
    TypeError, ValueError
        as :func:`icgn.uncertainty.sample_posterior`, and for a step that is not above 0 or that is not given where no
        Lipschitz constant is known.

    Examples
    --------
    >>> import deepinv, icgn, torch
    >>> from icgn.uncertainty import langevin
    >>> y = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> problem = icgn.Problem(y, deepinv.physics.Denoising(), icgn.load_pretrained("ridge-gray-small"), sigma=0.1)
    >>> solution = icgn.solve(problem)
    >>> sampler = langevin(problem, solution, max_iter=20, thinning=1)
    >>> mean, variance = sampler.sample(problem.y, problem.physics, x_init=solution.x, seed=0)
    >>> tuple(mean.shape)
    (1, 1, 16, 16)
    """
    constants = LangevinConstants.of(problem, solution)
    longest = constants.step(method, stages) if step is None else step
    if not longest > 0:
        raise ValueError(f"step: got {step}, expected a number above 0")
    if not isinstance(chains, int) or chains < 1:
        raise ValueError(f"chains: got {chains}, expected an integer, 1 or more")
    target, _ = target_of(problem, solution, Posterior.of(problem, solution), chains)
    numbers = {"step_size": longest, "alpha": 1.0, "sigma": 0.0, "inner_iter": stages, "eta": _DAMPING}
    name = {"ula": "ULA", "skrock": "SKRock"}[method]
    prior = PosteriorPrior(target)
    return deepinv.sampling.sampling_builder(name, deepinv.optim.ZeroFidelity(), prior, numbers, **options)
