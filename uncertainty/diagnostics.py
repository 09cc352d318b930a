r"""How far chains of a sampler agree, and how many independent draws theirs are worth.

Formulas of Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021, Bayesian Analysis 16(2), 667, arXiv:1903.08008), for
draws of K quantities, (chains, draws, K): every chain is split into two halves; ranks among all draws are brought to a
normal distribution, so that heavy tails do no harm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
# Quantiles whose effective sample size is that of the tails.
_TAILS = (0.05, 0.95)
FEWEST = 8
"""Draws of each chain that are needed."""


def split_rhat(draws: Draws) -> Draws:
    r"""The :math:`\hat R` of K quantities, (K,): 1 where chains agree with one another and with themselves.

    The larger one of that of the ranks, and of the ranks of the distances from the median.

    Parameters
    ----------
    draws : array
        (chains, draws, K), 8 draws or more.

    Raises
    ------
    ValueError
        for another shape, or fewer draws.
    """
    halves = _halves(draws)
    folded = np.abs(halves - np.median(halves, (0, 1)))
    return np.maximum(_rhat(_normal(halves)), _rhat(_normal(folded)))


def bulk_ess(draws: Draws) -> Draws:
    """The effective sample sizes of the ranks of K quantities, (K,).

    Parameters
    ----------
    draws : array
        as for :func:`split_rhat`.
    """
    return _ess(_normal(_halves(draws)))


def tail_ess(draws: Draws) -> Draws:
    """The smaller one of the effective sample sizes of the 5 % and the 95 % quantile of K quantities, (K,).

    Parameters
    ----------
    draws : array
        as for :func:`split_rhat`.
    """
    halves = _halves(draws)
    sizes = [_ess((halves <= np.quantile(halves, q, (0, 1))).astype(float)) for q in _TAILS]
    return np.minimum(*sizes)


def mean_ess(draws: Draws) -> Draws:
    """The effective sample sizes of the means of K quantities, (K,): their errors are deviations over its root.

    Parameters
    ----------
    draws : array
        as for :func:`split_rhat`.
    """
    return _ess(_halves(draws))


def _halves(draws: Draws) -> Draws:
    if draws.ndim != 3 or draws.shape[1] < FEWEST:
        raise ValueError(f"draws: got shape {draws.shape}, expected (chains, {FEWEST} draws or more, K)")
    n = draws.shape[1] // 2
    return np.concatenate([draws[:, :n], draws[:, -n:]]).astype(float)


def _normal(draws: Draws) -> Draws:
    """Ranks among all chains, brought to a normal distribution."""
    from scipy.stats import norm, rankdata  # half a second to import

    flat = draws.reshape(-1, draws.shape[-1])
    ranks = rankdata(flat, axis=0)
    found: Draws = norm.ppf((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(draws.shape)
    return found


def _rhat(draws: Draws) -> Draws:
    within, whole = _variances(draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Draws = np.where(whole == 0, 1.0, np.sqrt(whole / within))
    return found


def _variances(draws: Draws) -> tuple[Draws, Draws]:
    """The mean variance within chains, and the estimate that counts how far their means are apart."""
    n = draws.shape[1]
    within = draws.var(1, ddof=1).mean(0)
    return within, within * (n - 1) / n + draws.mean(1).var(0, ddof=1)


def _ess(draws: Draws) -> Draws:
    """By the autocorrelations of all chains (Geyer), as far as sums of pairs are positive, made monotone."""
    chains, n, _ = draws.shape
    around = draws - draws.mean(1, keepdims=True)
    transform = np.fft.rfft(around, 2 * n, axis=1)
    products = np.fft.irfft(np.abs(transform) ** 2, 2 * n, axis=1)[:, :n].mean(0) / n
    within, whole = _variances(draws)
    whole = np.where(whole == 0, 1.0, whole)
    correlations = 1 - (within - products * n / (n - 1)) / whole
    correlations[0] = 1.0
    pairs = correlations[0 : n // 2 * 2 : 2] + correlations[1 : n // 2 * 2 : 2]
    counted = np.cumprod(pairs > 0, 0)
    time = 2 * (np.minimum.accumulate(pairs, 0) * counted).sum(0) - 1
    # Chains that alternate are worth more than independent draws, but not without end.
    return chains * n / np.maximum(time, 1 / np.log10(chains * n))
