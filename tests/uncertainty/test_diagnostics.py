"""R-hat and effective sample sizes of chains whose own are known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from icgn.uncertainty.diagnostics import bulk_ess, mean_ess, split_rhat, tail_ess


def chains(correlation, count=4, draws=4000, k=6, seed=0):
    """Stationary autoregressive chains of deviation 1."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((count, draws + 200, k)) * np.sqrt(1 - correlation**2)
    return lfilter([1.0], [1.0, -correlation], white, axis=1)[:, 200:]


@pytest.mark.parametrize("correlation", [0.9, 0.5, 0.0, -0.4])
def test_effective_sizes_of_autoregressive_chains(correlation):
    """The size is N (1 - a) / (1 + a)."""
    found = chains(correlation)
    exact = 16000 * (1 - correlation) / (1 + correlation)
    for size in (mean_ess, bulk_ess):
        assert np.abs(size(found) / exact - 1).mean() < 0.12
    assert (tail_ess(found) > 0.3 * min(exact, 16000)).all()


def test_chains_that_agree_have_an_rhat_of_one():
    found = chains(0.5)
    assert np.abs(split_rhat(found) - 1).max() < 0.005
    assert (split_rhat(np.exp(3 * found)) == split_rhat(found)).all() or np.allclose(
        split_rhat(np.exp(3 * found)), split_rhat(found), atol=0.01
    )


def test_chains_that_do_not_agree_are_seen():
    found = chains(0.0, draws=500)
    found[0, :, 0] += 1.0  # one chain elsewhere
    found[:, :250, 1] += 1.0  # all drift
    found[1, :, 2] *= 3.0  # one is wider
    rhat = split_rhat(found)
    assert (rhat[:3] > 1.04).all() and (rhat[3:] < 1.01).all()
    assert mean_ess(found)[0] < 50


def test_constants_are_no_trouble_and_few_draws_are_refused():
    constant = np.ones((3, 20, 2))
    assert (split_rhat(constant) == 1).all() and np.isfinite(mean_ess(constant)).all()
    with pytest.raises(ValueError, match=r"^draws: got shape \(4, 5, 6\)"):
        split_rhat(chains(0.0, draws=5))
