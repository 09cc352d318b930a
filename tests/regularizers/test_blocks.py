"""Evaluation in blocks is the same function, and the same solution, with less memory."""

from __future__ import annotations

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from icgn.regularizers import PerChannel, RidgeICGN, ridge_functional
from icgn.regularizers.blocks import BlockRidgeFunctional
from icgn.solvers import Problem, solve


def network(border="reflect", units=1):
    return RidgeICGN(filters=6, size=5, border=border, units=units).double().requires_grad_(False)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    border=st.sampled_from(["reflect", "zero", "valid"]),
    rows=st.integers(1, 12),
    height=st.integers(5, 21),
    width=st.integers(5, 14),
    units=st.integers(1, 2),
)
def test_blocks_are_the_same_function(seed, border, rows, height, width, units):
    g = torch.Generator().manual_seed(seed)
    x, v = (torch.randn(2, 1, height, width, generator=g, dtype=torch.float64) for _ in range(2))
    whole = network(border, units).at(torch.tensor([0.05, 0.2]))
    blocks = BlockRidgeFunctional(whole, rows)
    for name, arguments in (("fn", (x,)), ("grad", (x,)), ("hvp", (x, v))):
        torch.testing.assert_close(getattr(blocks, name)(*arguments), getattr(whole, name)(*arguments))
    t = torch.tensor([0.1, 2.0], dtype=torch.float64)
    u, q = whole.linear(x), whole.linear(v)
    torch.testing.assert_close(blocks.slope(x, v, t), whole.slope(u, q, t))
    torch.testing.assert_close(blocks.curvature(x, v), whole.curvature(u, q))
    if min(height, width) >= 9:
        torch.testing.assert_close(blocks.hessian_spectrum(x, x.shape), whole.hessian_spectrum(u, x.shape))
    one = blocks.select(torch.tensor([1]))
    torch.testing.assert_close(one.grad(x[1:]), whole.grad(x)[1:])


@pytest.mark.parametrize("channels", [1, 2])
def test_a_large_picture_has_the_solution_of_a_small_one(channels, monkeypatch):
    g = torch.Generator().manual_seed(0)
    y = torch.rand(2, channels, 40, 31, generator=g, dtype=torch.float64)
    reg = network() if channels == 1 else PerChannel(network())

    def solution():
        return solve(Problem(y, deepinv.physics.Denoising(), reg, torch.tensor([0.05, 0.1])), tol=1e-8)

    whole = solution()
    monkeypatch.setattr(ridge_functional, "RESPONSES_LIMIT", 0)
    monkeypatch.setattr(ridge_functional, "_BLOCK_BYTES", 40_000)
    objective = Problem(y, deepinv.physics.Denoising(), reg, 0.1).objective
    term = objective.terms[1] if channels == 1 else objective.terms[1].inner
    assert isinstance(term, BlockRidgeFunctional) and term.rows < 40
    blocks = solution()
    torch.testing.assert_close(blocks.x, whole.x, atol=1e-6, rtol=0)
    torch.testing.assert_close(blocks.certificate.objective, whole.certificate.objective)
    assert blocks.converged


def test_a_certificate_is_computed_in_blocks(monkeypatch):
    y = torch.rand(1, 1, 40, 31, generator=torch.Generator().manual_seed(0))
    problem, seen = Problem(y, deepinv.physics.Denoising(), network(), 0.1), []
    whole = solve(problem, tol=1e-4).certificate
    monkeypatch.setattr("icgn.solvers.methods.method.PROOF_BYTES", 0)
    monkeypatch.setattr(ridge_functional, "_BLOCK_BYTES", 40_000)
    honest = BlockRidgeFunctional.fn
    monkeypatch.setattr(BlockRidgeFunctional, "fn", lambda self, x: seen.append(x.dtype) or honest(self, x))
    blocks = solve(problem, tol=1e-4).certificate
    assert seen and set(seen) == {torch.float64}
    torch.testing.assert_close(blocks.rms_distance, whole.rms_distance, rtol=1e-9, atol=0)
    torch.testing.assert_close(blocks.objective, whole.objective, rtol=1e-12, atol=0)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("filters", [6, 48])
def test_no_tensor_is_larger_than_a_few_pictures(filters):
    x = torch.rand(1, 1, 256, 64)
    functional = RidgeICGN(filters=filters, size=5).requires_grad_(False).at(0.1)
    blocks = BlockRidgeFunctional(functional, 4)
    blocks.grad(x)
    for evaluate in (blocks.fn, blocks.grad, lambda x: blocks.slope(x, x, torch.ones(1))):
        with Largest() as largest:
            evaluate(x)
        assert largest.elements < 2 * x.numel()
    with Largest() as largest:
        functional.grad(x)
    assert largest.elements >= filters * x.numel()
