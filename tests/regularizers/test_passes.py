"""Compiled passes are those of torch, to rounding; NaN and inf pass; what they cannot take goes to torch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.regularizers import passes
from icgn.regularizers.activations import HardTanh
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.ridge_head import RidgeHead
from icgn.solvers import Problem, solve

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def few_responses_suffice(monkeypatch):
    monkeypatch.setattr(passes, "COMPILED", 1)
    monkeypatch.setattr(passes, "_SHARE", 1)


def head_and_responses(seed, dtype, batch, places, columns, heads, masked):
    """A head with a knee per column, for all images or for each, and responses on both sides of the knees."""
    g = torch.Generator().manual_seed(seed)
    u, q = (torch.randn(batch, places, columns, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    knee = (0.1 + torch.rand(heads, 1, 1, columns, generator=g, dtype=torch.float64)).to(dtype)
    mask = torch.rand(batch, places, columns, generator=g) + 0.5 if masked else None
    return RidgeHead(HardTanh(), knee, torch.ones_like(knee), mask), u, q


def by_torch(call, monkeypatch=None):
    before, passes.COMPILED = passes.COMPILED, 1 << 62
    try:
        return call()
    finally:
        passes.COMPILED = before


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    batch=st.integers(1, 3),
    places=st.integers(1, 40),
    columns=st.integers(1, 70),
    shared=st.booleans(),
    masked=st.booleans(),
    trials=st.integers(1, 6),
    threads=st.integers(1, 3),
)
@torch.no_grad()
def test_passes_are_those_of_torch(seed, dtype, batch, places, columns, shared, masked, trials, threads):
    head, u, q = head_and_responses(seed, dtype, batch, places, columns, 1 if shared else batch, masked)
    t = torch.randn(trials, batch, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert head.compiled(u)
        for h in (head, head.prepared()):
            for call in (
                lambda h=h: h.value(u),
                lambda h=h: h.grad(u),
                lambda h=h: h.hvp(u, q),
                lambda h=h: h.slope(u, q, t[0]),
                lambda h=h: h.slopes(u, q, t),
                lambda h=h: h.curvature(u, q),
                lambda h=h: h.diagonal_sum(u),
                lambda h=h: h.step(moved := u.clone(), q, t[0]) + moved,
            ):
                found, expected = call(), by_torch(call)
                assert found.dtype is dtype
                scale = float(expected.abs().max()) + float(u.abs().sum() * q.abs().max())
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=2 * torch.finfo(dtype).eps * scale)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("stride", "side"), [(1, 3), (2, 10), (4, 12)])
@torch.no_grad()
def test_overlapping_patches_are_summed(stride, side, dtype):
    rows, cols = 5, 7
    patches = torch.randn(2, rows * cols, side**2, generator=torch.Generator().manual_seed(0)).to(dtype)
    size = (rows - 1) * stride + side, (cols - 1) * stride + side
    found = passes.overlapped(patches, size, cols, stride)
    assert found.dtype is dtype
    torch.testing.assert_close(found, F.fold(patches.mT, size, side, stride=stride))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_nan_and_inf_are_noticed(dtype):
    head, u, q = head_and_responses(0, dtype, 2, 5, 40, 1, True)
    u[1, 3, 17] = torch.nan
    q[0, 2, 9] = torch.inf
    slopes = head.slopes(u, q, torch.ones(4, 2).to(dtype))
    assert torch.isinf(slopes[:, 0]).all() and torch.isnan(slopes[:, 1]).all()
    assert torch.isnan(head.grad(u)[1, 3, 17]) and torch.isnan(head.value(u)).tolist() == [False, True]


def test_what_is_differentiated_or_not_one_clip_is_left_to_torch():
    head, u, _ = head_and_responses(0, torch.float64, 1, 5, 8, 1, False)
    assert not head.compiled(u)  # a graph may be recorded
    with torch.no_grad():
        assert head.compiled(u) and not head.compiled(u.to("meta")) and not head.compiled(u.half())
        two = replace(head, knee=head.knee.repeat(1, 2, 1, 1), ratio=head.ratio.repeat(1, 2, 1, 1))
        assert not two.compiled(u)
        assert torch.equal(torch.func.vmap(head.grad)(u[None])[0], by_torch(lambda: head.grad(u)))
    tracked = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head.value(tracked).sum(), tracked)
    torch.testing.assert_close(gradient, head.grad(u))


def sharp(**options):
    reg = RidgeICGN(filters=5, size=5, **options).double().requires_grad_(False)
    with torch.no_grad():
        reg.log_lambda += 1.5
    return reg


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(9, 23), cols=st.integers(9, 23))
def test_solutions_are_the_same(seed, rows, cols):
    import deepinv

    y = torch.rand(2, 1, rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    problem = Problem(y, deepinv.physics.Denoising(), sharp(), 0.1)
    fused = solve(problem, tol=1e-6)
    plain = by_torch(lambda: solve(problem, tol=1e-6))
    for solution in (fused, plain):
        assert [s.name for s in solution.status] == ["CONVERGED"] * 2
    apart = (fused.x - plain.x).square().mean((1, 2, 3)).sqrt()
    assert (apart <= fused.certificate.rms_distance + plain.certificate.rms_distance).all()


@pytest.mark.parametrize("shape", [(1, 1, 9, 14), (2, 1, 13, 11)])
@torch.no_grad()
def test_the_functional_of_the_bank_is_the_same(shape):
    g = torch.Generator().manual_seed(0)
    x, d = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    functional = sharp().at(0.1)
    u, q = functional.linear(x), functional.linear(d)
    t = torch.tensor([0.3, 0.7][: len(x)], dtype=torch.float64)
    for call in (
        lambda: functional.advance_grad(u.clone(), q, t, x.shape)[1],
        lambda: functional.advance_grad(u.clone(), q, t, x.shape)[0],
        lambda: functional.slopes_along(u, q, torch.stack([t, 2 * t])),
        lambda: functional.slopes(u, x.shape),
        lambda: functional.potential(u),
        lambda: functional.curvature(u, q),
        lambda: functional.hvp(x, d),
    ):
        torch.testing.assert_close(call(), by_torch(call))
    assert functional.trials(u) == passes.TRIALS and by_torch(lambda: functional.trials(u)) == 1


SOLVE = """
import sys, torch
from icgn.regularizers import passes
{before}
passes.COMPILED = 1
import icgn
y = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
print(icgn.denoise(y, 0.1).status[0].name, passes.kernels() is not None)
"""


@pytest.mark.parametrize(
    ("before", "compiled"), [("", True), ("sys.modules['numba'] = None", False)], ids=["numba", "without"]
)
def test_a_process_restores_with_and_without_numba(before, compiled, tmp_path):
    """The machine code is kept where NUMBA_CACHE_DIR says."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SOLVE.format(before=before)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["CONVERGED", str(compiled)], done.stderr
    assert any(tmp_path.rglob("*.nbc")) is compiled


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    batch=st.integers(1, 2),
    filters=st.integers(1, 7),
    phases=st.sampled_from([1, 4, 16]),
    colours=st.integers(1, 3),
    masked=st.booleans(),
)
@torch.no_grad()
def test_diagonals_summed_over_filters_are_those_of_torch(seed, dtype, batch, filters, phases, colours, masked):
    head, u, _ = head_and_responses(seed, dtype, batch, 9, filters * phases, 1, masked)
    g = torch.Generator().manual_seed(seed)
    for images in (1, batch):
        weights = torch.rand(images, filters, colours, generator=g, dtype=torch.float64).to(dtype)

        def mix(values, weights=weights):
            parts = values.unflatten(-1, (filters, phases))
            return (parts[..., None, :] * weights[:, None, :, :, None]).sum(2).flatten(2)

        found = head.mixed_diagonal(u, weights, mix)
        assert found.shape == (batch, 9, colours * phases)
        torch.testing.assert_close(found, mix(head.diagonal(u)))
