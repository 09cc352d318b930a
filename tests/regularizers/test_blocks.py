"""Evaluation in blocks is the same function, and the same solution, with less memory."""

from __future__ import annotations

from dataclasses import replace

import deepinv
import pytest
import torch
from conditional_cases import conditional, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_cases import latent
from torch.utils._python_dispatch import TorchDispatchMode

from icgn.functionals import Capability
from icgn.regularizers import (
    DeepICGN,
    GroupICGN,
    LatentICGN,
    PerChannel,
    PullBack,
    RidgeICGN,
    SoftmaxICGN,
    TotalVariation,
    bank,
)
from icgn.regularizers.bank import BlockFunctional
from icgn.solvers import Problem, solve

BORDERS = ("reflect", "zero", "valid")
DENOISING = deepinv.physics.Denoising()


def network(border="reflect", units=1):
    return RidgeICGN(filters=6, size=5, border=border, units=units).double().requires_grad_(False)


def bent(reg):
    """Curves and biases that differ from filter to filter, and pictures on both sides of the knees."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in reg.named_parameters():
            if "raw" not in name:
                p += 0.3 * torch.randn(p.shape, generator=g)
        reg.log_tau += 1.5
    return reg.double().requires_grad_(False)


def conditional_at(border, sigma, shape):
    reg = conditional(border="zero" if border == "valid" else border, units=2).double().requires_grad_(False)
    return reg.at(sigma, torch.cat([masks(reg, shape[-2:], seed) for seed in range(shape[0])]))


# The functional of each kind of network at noise levels, for pictures of a shape with a border.
KINDS = {
    "ridge": lambda border, sigma, shape: bent(RidgeICGN(filters=6, size=5, units=2, border=border, knots=3)).at(sigma),
    "ridge 3": lambda border, sigma, shape: bent(RidgeICGN(filters=6, size=5, channels=3, border=border, knots=3)).at(
        sigma
    ),
    "conditional": conditional_at,
    "group": lambda border, sigma, shape: bent(GroupICGN(groups=2, members=3, size=5, border=border, knots=3)).at(
        sigma
    ),
    "softmax": lambda border, sigma, shape: bent(SoftmaxICGN(groups=2, members=2, size=3, border=border, knots=3)).at(
        sigma
    ),
    "deep": lambda border, sigma, shape: bent(DeepICGN(layers=2, filters=3, size=5, border=border, knots=3)).at(sigma),
    "deep, inner 3": lambda border, sigma, shape: bent(
        DeepICGN(layers=3, filters=3, inner_size=3, size=3, border=border, knots=3)
    ).at(sigma),
    "deep, inner 5, colour": lambda border, sigma, shape: bent(
        DeepICGN(layers=2, filters=3, inner_size=5, size=3, channels=3, activation="hardtanh", border=border, knots=3)
    ).at(sigma),
    "latent": lambda border, sigma, shape: latent(1, 2, border=border).double().requires_grad_(False).at(sigma).joint,
}
CHANNELS = {"ridge 3": 3, "deep, inner 5, colour": 3, "latent": 3}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 2**31),
    border=st.sampled_from(BORDERS),
    rows=st.integers(1, 12),
    height=st.integers(5, 21),
    width=st.integers(5, 14),
    levels=st.sampled_from([0.1, (0.05, 0.2)]),
)
def test_blocks_are_the_same_function(kind, seed, border, rows, height, width, levels):
    g = torch.Generator().manual_seed(seed)
    shape = (2, CHANNELS.get(kind, 1), height, width)
    x, v = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    whole = KINDS[kind](border, torch.tensor(levels, dtype=torch.float64), shape)
    blocks = in_blocks(whole, rows)
    for name, arguments in (("fn", (x,)), ("grad", (x,)), ("hvp", (x, v))):
        torch.testing.assert_close(getattr(blocks, name)(*arguments), getattr(whole, name)(*arguments))
    t = torch.tensor([0.1, 2.0], dtype=torch.float64)
    u, q = whole.linear(x), whole.linear(v)
    at_u, along = blocks.linear(x), blocks.linear(v)
    torch.testing.assert_close(blocks.slope(at_u, along, t), whole.slope(u, q, t))
    torch.testing.assert_close(blocks.curvature(at_u, along), whole.curvature(u, q))
    if min(height, width) >= 9:
        torch.testing.assert_close(blocks.hessian_spectrum(at_u, x.shape), whole.hessian_spectrum(u, x.shape))
    torch.testing.assert_close(blocks.lipschitz(), whole.lipschitz())
    one = blocks.select(torch.tensor([1]))
    torch.testing.assert_close(one.grad(x[1:]), whole.grad(x)[1:])
    torch.testing.assert_close(blocks.to(torch.float32).grad(x.float()), whole.grad(x).float(), rtol=1e-3, atol=1e-4)


def in_blocks(functional, rows):
    """The functional with its bank evaluated in blocks of about so many rows."""
    if hasattr(functional, "terms"):
        return type(functional)([in_blocks(functional.terms[0], rows), *functional.terms[1:]], functional.weights)
    stride = functional.bank.operator.stride
    return BlockFunctional(functional, -(-rows // stride) * stride)


@pytest.mark.parametrize("kind", KINDS)
def test_blockwise_keeps_to_its_limit(kind):
    shape = torch.Size((2, CHANNELS.get(kind, 1), 20, 13))
    functional = KINDS[kind]("reflect", torch.tensor([0.1]), shape)
    bank_of = functional.terms[0] if kind == "latent" else functional
    assert bank_of.blockwise(shape, limit=1 << 20) is bank_of
    blocks = bank_of.blockwise(shape, limit=6_000)
    bytes_of_a_row = 2 * 13 * 8 * len(bank_of.bank.operator.weight)
    assert isinstance(blocks, BlockFunctional) and blocks.rows < 20
    assert blocks.rows * bytes_of_a_row <= 6_000 or blocks.rows == bank_of.bank.operator.stride
    assert Capability.RESPONSES in bank_of.capabilities - blocks.capabilities


def test_wrappers_pass_blocks_on():
    shape = torch.Size((1, 2, 20, 13))
    reg = PerChannel(network() + 0.5 * TotalVariation())
    blur = deepinv.physics.BlurFFT((1, 20, 13), torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9)
    pulled = PullBack(LatentICGN(filters=4, size=5, latents=1).double().requires_grad_(False), blur)
    assert isinstance(reg.at(0.1).blockwise(shape, 0).inner.terms[0], BlockFunctional)
    found = pulled.at(0.1).blockwise(torch.Size((1, 1, 20, 13)), 0)
    assert isinstance(found.inner.joint.terms[0], BlockFunctional)
    x = torch.rand(1, 1, 20, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(found.grad(x), pulled.grad(x, 0.1), rtol=1e-6, atol=1e-8)


LARGE = {
    "ridge": network,
    "channels": lambda: PerChannel(network()),
    "deep": lambda: DeepICGN(layers=2, filters=3, inner_size=3, size=5, knots=3).double().requires_grad_(False),
    "latent": lambda: LatentICGN(filters=4, size=5, latents=1, knots=3).double().requires_grad_(False),
    "sum": lambda: 0.5 * GroupICGN(groups=2, members=2, size=5).double().requires_grad_(False) + network(),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_picture_has_the_solution_of_a_small_one(kind, monkeypatch):
    g = torch.Generator().manual_seed(0)
    y = torch.rand(2, 2 if kind == "channels" else 1, 40, 31, generator=g, dtype=torch.float64)
    reg, evaluated = LARGE[kind](), []

    def solution():
        return solve(Problem(y, DENOISING, reg, torch.tensor([0.05, 0.1])), tol=1e-8)

    whole = solution()
    monkeypatch.setattr(bank, "RESPONSES_LIMIT", 40_000)
    honest = BlockFunctional.grad
    monkeypatch.setattr(BlockFunctional, "grad", lambda f, x: evaluated.append(f.rows) or honest(f, x))
    blocks = solution()
    assert evaluated and max(evaluated) < 40
    torch.testing.assert_close(blocks.x, whole.x, atol=1e-6, rtol=0)
    torch.testing.assert_close(blocks.certificate.objective, whole.certificate.objective)
    assert blocks.converged


def tall(rows=640, seed=0):
    """A picture (1, 1, rows, 12) of smooth parts, edges and noise, about alike in all rows."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.rand(1, 1, rows // 8, 3, generator=g, dtype=torch.float64) > 0.5).double()
    x = x.repeat_interleave(8, 2).repeat_interleave(4, 3)
    return x + 0.1 * torch.randn(x.shape, generator=g, dtype=torch.float64)


def test_slopes_are_estimated_from_bands():
    reg, x, d = network(), tall(), tall(seed=1) - 0.5
    whole = reg.at(0.1)
    blocks = BlockFunctional(whole, 64)
    t = torch.tensor([[0.0], [0.5], [2.0]], dtype=torch.float64)
    found, exact = blocks.sampled_slopes(x, d, t), whole.slopes_along(whole.linear(x), whole.linear(d), t)
    torch.testing.assert_close(found - found[0], exact - exact[0], rtol=0.3, atol=0)
    assert blocks.sampled_slopes(x[..., :400, :], d[..., :400, :], t) is None, "too few bands"
    torch.testing.assert_close(whole.sampled_slopes(whole.linear(x), whole.linear(d), t), exact)


def test_estimated_slopes_cost_no_gradients_and_change_no_solution(monkeypatch):
    problem = Problem(tall(), DENOISING, network(), 0.3)
    whole = solve(problem, tol=1e-8)
    monkeypatch.setattr(bank, "RESPONSES_LIMIT", 40_000)
    blocks = solve(Problem(problem.y, DENOISING, network(), 0.3), tol=1e-8)
    monkeypatch.setattr(bank, "_FEWEST", 1000)
    without = solve(Problem(problem.y, DENOISING, network(), 0.3), tol=1e-8)
    torch.testing.assert_close(blocks.x, whole.x, atol=1e-7, rtol=0)
    assert blocks.converged and blocks.stats.work <= without.stats.work


def test_preconditioners_of_blocks_are_those_of_the_whole():
    x, whole = tall(40), network().at(0.1)
    parts = BlockFunctional(whole, 8).hessian_parts(x, x.shape), whole.hessian_parts(whole.linear(x), x.shape)
    for name in ("spectrum", "density"):
        torch.testing.assert_close(*(getattr(found[0], name) for found in parts))


def test_a_certificate_is_computed_in_blocks(monkeypatch):
    y = torch.rand(1, 1, 40, 31, generator=torch.Generator().manual_seed(0))
    problem, seen = Problem(y, DENOISING, network(), 0.1), []
    whole = solve(problem, tol=1e-4).certificate
    monkeypatch.setattr("icgn.solvers.methods.method.PROOF_BYTES", 40_000)
    honest = BlockFunctional.fn
    monkeypatch.setattr(BlockFunctional, "fn", lambda self, x: seen.append(x.dtype) or honest(self, x))
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


WIDE = {
    "ridge": lambda filters: RidgeICGN(filters=filters, size=5).at(0.1),
    "group": lambda filters: GroupICGN(groups=filters // 3, members=3, size=5).at(0.1),
    "softmax": lambda filters: SoftmaxICGN(groups=filters // 3, members=3, size=5).at(0.1),
    "deep": lambda filters: DeepICGN(layers=2, filters=filters // 2, inner_size=3, size=5).at(0.1),
}


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("filters", [6, 48])
def test_no_tensor_is_larger_than_a_few_pictures(kind, filters):
    x = torch.rand(1, 1, 512 if kind != "ridge" else 256, 64)
    with torch.no_grad():
        functional = WIDE[kind](filters)
        blocks = BlockFunctional(functional, 4)
        blocks.grad(x)
        for evaluate in (blocks.fn, blocks.grad, lambda x: blocks.slope(x, x, torch.ones(1))):
            with Largest() as largest:
                evaluate(x)
            assert largest.elements < 2 * x.numel()
        with Largest() as largest:
            functional.grad(x)
        assert largest.elements >= filters * x.numel()


def test_masks_differ_from_block_to_block():
    shape = torch.Size((1, 1, 21, 10))
    whole = conditional_at("reflect", 0.1, shape)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks = BlockFunctional(whole, 8)
    torch.testing.assert_close(blocks.grad(x), whole.grad(x))
    without = replace(whole, head=replace(whole.head, mask=None))
    assert float((BlockFunctional(without, 8).grad(x) - whole.grad(x)).abs().max()) > 1e-6
