"""Regularizers of other ranges of intensities are exactly equivariant."""

import deepinv
import pytest
import torch
from conditional_cases import conditional
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.regularizers import ICNN, PerChannel, RidgeICGN, ScaledRegularizer, TotalVariation
from icgn.solvers import Problem, solve

DENOISING = deepinv.physics.Denoising()
SIGMA = 0.1

NETWORKS = {
    "ridge": lambda: RidgeICGN(filters=3, size=3),
    "ICNN": lambda: ICNN(layers=2, filters=3, size=3),
    "conditional": lambda: conditional(),
    "sum": lambda: 0.5 * RidgeICGN(filters=3, size=3, activation="tanh") + TotalVariation(eps=0.05),
}


def picture(seed=0):
    return torch.rand(2, 1, 10, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None)
@given(low=st.floats(-1e4, 1e4), log_scale=st.floats(-10, 10))
def test_the_minimizer_is_equivariant(name, low, log_scale):
    network = NETWORKS[name]().double().requires_grad_(False)
    scale = float(torch.tensor(log_scale).exp())
    reg = ScaledRegularizer(network, low, low + scale)
    scale = reg.scale  # what rounding leaves of the width
    z = picture()
    plain = solve(Problem(z, DENOISING, network, SIGMA), tol=1e-6)
    scaled = solve(Problem(scale * z + low, DENOISING, reg, scale * SIGMA), tol=1e-6 * scale)
    rounding = 1e-15 * abs(low) / scale
    assert float(((scaled.x - low) / scale - plain.x).abs().max()) <= 1e-9 + 1e3 * rounding or rounding > 1e-9
    if rounding < 1e-12:
        assert scaled.stats.iterations.tolist() == plain.stats.iterations.tolist()
        assert scaled.status == plain.status
        distance = scaled.certificate.rms_distance / scale
        torch.testing.assert_close(distance, plain.certificate.rms_distance, rtol=1e-3, atol=1e-12)
        torch.testing.assert_close(
            scaled.certificate.objective / scale**2, plain.certificate.objective, rtol=1e-6, atol=0
        )


def test_values_gradients_and_constants_are_those_of_the_formula():
    network = ICNN(layers=2, filters=3, size=3, strong_convexity=0.1).double().requires_grad_(False)
    reg, z = ScaledRegularizer(network, -2.0, 5.0), picture()
    x, s = 7.0 * z - 2.0, 7.0 * SIGMA
    torch.testing.assert_close(reg.fn(x, s), 49.0 * network.fn(z, SIGMA))
    torch.testing.assert_close(reg.grad(x, s), 7.0 * network.grad(z, SIGMA))
    torch.testing.assert_close(reg.hvp(x, z, s), network.hvp(z, z, SIGMA))
    torch.testing.assert_close(reg.lipschitz(s), network.lipschitz(SIGMA))
    torch.testing.assert_close(reg.strong_convexity(s), network.strong_convexity(SIGMA))
    assert reg.sigma_range == tuple(7.0 * level for level in network.sigma_range)


def test_primal_dual_splitting_has_the_shifted_proximal_map():
    network = PerChannel(RidgeICGN(filters=3, size=3)).double().requires_grad_(False)
    reg = ScaledRegularizer(network, 3.0, 4.5)
    problem = Problem(1.5 * picture() + 3.0, DENOISING, reg, 1.5 * SIGMA)
    found, exact = solve(problem, method="primal-dual", tol=1e-5, max_iter=5000), solve(problem, tol=1e-9)
    assert found.converged
    assert float((found.x - exact.x).square().mean().sqrt()) <= 1e-5


@pytest.mark.parametrize("range_", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_an_empty_range_is_refused(range_):
    with pytest.raises(ValueError, match="range: got"):
        ScaledRegularizer(RidgeICGN(filters=3, size=3), *range_)
