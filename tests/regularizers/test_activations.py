"""Activations against their definition: psi' = (s')^2, Phi' = psi, psi(0) = Phi(0) = 0."""

import pytest
import torch

from icgn.regularizers.activations import make_activation

NAMES = ("tanh", "sigmoid", "softplus", "hardtanh")
# No point on a kink of hardtanh.
POINTS = torch.linspace(-9.03, 9.07, 401, dtype=torch.float64)


def derivative(f, t):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(f(t).sum(), t)[0]


@pytest.mark.parametrize("name", NAMES)
def test_psi_prime_is_the_square_of_the_slope_of_the_hidden_activation(name):
    a = make_activation(name)
    torch.testing.assert_close(a.psi_prime(POINTS), derivative(a.hidden, POINTS) ** 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_psi_and_potential_are_primitives_that_vanish_at_zero(name):
    a, zero = make_activation(name), torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(derivative(a.psi, POINTS), a.psi_prime(POINTS), rtol=0, atol=1e-13)
    torch.testing.assert_close(derivative(a.potential, POINTS), a.psi(POINTS), rtol=0, atol=1e-12)
    assert abs(float(a.psi(zero))) < 1e-15
    assert abs(float(a.potential(zero))) < 1e-15


@pytest.mark.parametrize("name", NAMES)
def test_potential_by_finite_differences_and_sign(name):
    a, h = make_activation(name), 1e-5
    slope = (a.potential(POINTS + h) - a.potential(POINTS - h)) / (2 * h)
    torch.testing.assert_close(slope, a.psi(POINTS), rtol=0, atol=1e-8)
    assert bool((a.potential(POINTS) >= 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_steepest_bounds_psi_prime_and_is_attained(name):
    a = make_activation(name)
    slopes = a.psi_prime(torch.linspace(-60, 60, 24001, dtype=torch.float64))
    assert float(slopes.min()) >= 0
    assert a.steepest * (1 - 1e-6) <= float(slopes.max()) <= a.steepest


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_arguments_stay_finite(name, dtype):
    a, t = make_activation(name), torch.tensor([-1e4, -100.0, 100.0, 1e4], dtype=dtype)
    for f in (a.hidden, a.psi, a.psi_prime, a.potential):
        assert f(t).dtype == dtype
        assert bool(torch.isfinite(f(t)).all())


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="activation: got 'relu', expected one of tanh, sigmoid, softplus, hardtanh"):
        make_activation("relu")
