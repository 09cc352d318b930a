"""Derivatives of minimizers: implicit = unrolled = finite differences."""

from __future__ import annotations

import deepinv
import pytest
import torch

from icgn.regularizers import RidgeICGN
from icgn.solvers import Problem, solve


def smooth_ridge():
    # A smooth activation: the minimizer is a smooth function of everything.
    torch.manual_seed(0)
    return RidgeICGN(filters=4, size=3, activation="tanh").double()


def target(y):
    return torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y) * 0.3


def outer(x):
    return ((x - target(x)) ** 2).sum()


def minimizer(reg, y, box=None):
    problem = Problem(y, deepinv.physics.Denoising(), reg, 0.15, box=box)
    return solve(problem, tol=1e-11, max_iter=5000, differentiable=True).x


@pytest.fixture
def y():
    return torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("name", ["bank.raw", "log_lambda", "log_tau"])
def test_parameters_against_finite_differences(y, name):
    reg = smooth_ridge()
    outer(minimizer(reg, y)).backward()
    parameter = dict(reg.named_parameters())[name]
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    for h in (1e-4, -1e-4):
        with torch.no_grad():
            parameter.add_(h * direction)
            values.append(float(outer(minimizer(reg, y))))
            parameter.sub_(h * direction)
    expected = (values[0] - values[1]) / 2e-4
    assert abs(float((parameter.grad * direction).sum()) - expected) <= 1e-5 * max(1.0, abs(expected))


@pytest.mark.parametrize("box", [None, (0.3, 0.7)], ids=["free", "boxed"])
def test_measurement_against_finite_differences(y, box):
    reg = smooth_ridge().requires_grad_(False)
    leaf = y.clone().requires_grad_()
    outer(minimizer(reg, leaf, box)).backward()
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = [float(outer(minimizer(reg, y + h * direction, box))) for h in (1e-6, -1e-6)]
    expected = (values[0] - values[1]) / 2e-6
    assert abs(float((leaf.grad * direction).sum()) - expected) <= 1e-4 * max(1.0, abs(expected))


def test_implicit_equals_unrolled(y):
    reg = smooth_ridge()
    outer(minimizer(reg, y)).backward()
    implicit = {n: p.grad.clone() for n, p in reg.named_parameters()}
    reg.zero_grad()
    x = y
    for _ in range(400):
        x = x - 0.3 * (x - y + reg.grad(x, 0.15))
    outer(x).backward()
    for name, p in reg.named_parameters():
        # The linear system of the implicit derivative is solved to a relative 1e-6.
        assert (implicit[name] - p.grad).abs().max() <= 2e-5 * p.grad.abs().max(), name


def test_the_value_is_that_of_the_solution(y):
    reg = smooth_ridge()
    plain = solve(Problem(y, deepinv.physics.Denoising(), reg, 0.15), tol=1e-8)
    assert not plain.x.requires_grad
    attached = solve(Problem(y, deepinv.physics.Denoising(), reg, 0.15), tol=1e-8, differentiable=True)
    assert attached.x.requires_grad and torch.equal(attached.x.detach(), plain.x)


class Cosh(deepinv.optim.Distance):
    """A convex distance that the package does not know."""

    def fn(self, x, y, *args, **kwargs):
        return torch.cosh(x - y).flatten(1).sum(1)


def test_data_of_any_fidelity_against_finite_differences(y):
    reg, fidelity = smooth_ridge(), deepinv.optim.DataFidelity(d=Cosh())

    def value(v):
        problem = Problem(v, deepinv.physics.Denoising(), reg, 0.15, data_fidelity=fidelity)
        return outer(solve(problem, tol=1e-10, max_iter=5000, differentiable=True).x)

    point = y.clone().requires_grad_()
    value(point).backward()
    d = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    difference = (value(y + 1e-4 * d) - value(y - 1e-4 * d)) / 2e-4
    torch.testing.assert_close((point.grad * d).sum(), difference.detach(), rtol=1e-4, atol=1e-6)
