"""Problems beyond denoising: physics of deepinv, Poisson data, masks, and what is refused."""

from __future__ import annotations

import math
from functools import cache

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.functionals.data import PoissonData, probe_spectrum
from icgn.regularizers import PerChannel, RidgeICGN
from icgn.solvers import (
    LBFGS,
    AcceleratedGradient,
    ConjugateGradient,
    GradientDescent,
    NewtonCG,
    NmAPG,
    Problem,
    Status,
    solve,
)
from icgn.solvers.certificate import certify

SIDE = 24
physics = deepinv.physics


def picture(batch=2, channels=1, dtype=torch.float32):
    t = torch.linspace(0, 1, SIDE, dtype=dtype)
    base = 0.2 + 0.5 * (t[:, None] > 0.4).to(dtype) + 0.2 * torch.sin(5 * t)[None, :] ** 2
    return base.expand(batch, channels, SIDE, SIDE).clone()


def ridge(dtype=torch.float32):
    return RidgeICGN(filters=6, size=5).to(dtype).requires_grad_(False)


def disc(radius=1.5):
    t = torch.arange(-3, 4.0)
    kernel = torch.exp(-(t[:, None] ** 2 + t[None, :] ** 2) / (2 * radius**2))
    return (kernel / kernel.sum())[None, None]


PHYSICS = {
    "blur, circular": lambda: physics.BlurFFT((1, SIDE, SIDE), filter=disc()),
    "blur, valid": lambda: physics.Blur(filter=disc(), padding="valid"),
    "downsampling": lambda: physics.Downsampling((1, SIDE, SIDE), filter="bicubic", factor=2, padding="circular"),
    "inpainting": lambda: physics.Inpainting((1, SIDE, SIDE), mask=0.5),
    "tomography": lambda: physics.Tomography(angles=12, img_width=SIDE, normalize=True),
}


def measured(name, noise=0.01):
    torch.manual_seed(0)
    operator = PHYSICS[name]()
    y = operator.A(picture())
    return operator, y + noise * torch.randn_like(y)


@pytest.mark.parametrize("name", PHYSICS)
def test_every_physics_is_solved_with_a_certified_gap(name):
    operator, y = measured(name)
    problem = Problem(y, operator, ridge(), sigma=0.1, noise=0.03, box=(0, 1))
    solution = solve(problem, gap_tol=1e-2, max_iter=2000)
    assert solution.converged and (solution.certificate.relative_gap <= 1e-2).all()
    assert solution.x.min() >= 0 and solution.x.max() <= 1
    # No other feasible picture is lower than the certificate allows.
    bound = solution.certificate.objective - solution.certificate.objective_gap
    for other in (picture(), solution.x * 0.99, solution.x.roll(1, -1)):
        assert (problem.objective.fn(other).double() >= bound * (1 - 1e-4)).all()


@cache
def tightly_boxed(name):
    """A problem with a box at which many pixels end, and its solution."""
    operator, y = measured(name)
    problem = Problem(y.double(), operator.double(), ridge(torch.float64), sigma=0.1, noise=0.05, box=(0.3, 0.6))
    return problem, solve(problem, gap_tol=1e-8, max_iter=20000)


@pytest.mark.parametrize("name", ["blur, circular", "inpainting"])
@pytest.mark.parametrize(
    "method", [GradientDescent(), AcceleratedGradient(), NmAPG(), ConjugateGradient(), NewtonCG()], ids=lambda m: m.name
)
def test_boxed_methods_find_the_same_minimizer(name, method):
    problem, exact = tightly_boxed(name)
    assert exact.converged and ((exact.x == 0.3) | (exact.x == 0.6)).double().mean() > 0.2
    rough = solve(problem, method=method, gap_tol=1e-4, max_iter=20000)
    assert rough.converged
    excess = rough.certificate.objective - exact.certificate.objective
    assert (excess <= rough.certificate.objective_gap).all()


def test_a_mask_sharpens_the_gap():
    operator, y = measured("inpainting")
    problem = Problem(y.double(), operator.double(), ridge(torch.float64), 0.1, noise=0.05, box=(0, 1))
    x = solve(problem, max_iter=10).x
    with_mask = certify(problem.objective, x, box=problem.box)
    g = problem.objective.grad(x)
    frank_wolfe = torch.where(g > 0, g * x, g * (x - 1)).flatten(1).sum(1)
    exact = solve(problem, gap_tol=1e-8, max_iter=5000)
    assert (with_mask.objective_gap < frank_wolfe).all()
    assert (with_mask.objective - exact.certificate.objective <= with_mask.objective_gap).all()


def test_probed_spectrum_resembles_the_exact_one():
    operator, y = measured("blur, circular")
    data = Problem(y, operator, ridge(), 0.1).objective.terms[0]
    exact = operator.mask[0, :, :, :, 0].square()
    probed = probe_spectrum(data, probes=8, window=1)[0]
    torch.testing.assert_close(probed, exact, atol=1e-3, rtol=1e-2)


def poisson(gain=1.0 / 60, background=0.0, denormalize=True):
    torch.manual_seed(0)
    clean = picture(dtype=torch.float64)
    clean[..., :3, :3] = 0
    counts = torch.poisson(clean / gain)
    fidelity = deepinv.optim.PoissonLikelihood(gain=gain, bkg=background, denormalize=denormalize)
    y = counts * gain if denormalize else counts
    return Problem(
        y, physics.Denoising(), ridge(torch.float64), sigma=0.1, data_fidelity=fidelity, box=(0, 2), weight=0.3
    )


@pytest.mark.parametrize("denormalize", [True, False])
@pytest.mark.parametrize("background", [0.0, 0.5])
def test_poisson_data_in_closed_form(background, denormalize):
    problem = poisson(background=background, denormalize=denormalize)
    y = problem.y
    flat = Problem(
        y, problem.physics, problem.regularizer, 0.1, data_fidelity=problem.data_fidelity, weight=0.0, box=(0, 2)
    )
    solution = solve(flat, gap_tol=1e-6, max_iter=5000)
    counts = y * 60 if denormalize else y
    expected = ((counts - background) / 60).clamp(0, 2)
    torch.testing.assert_close(solution.x, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", [AcceleratedGradient(), GradientDescent()], ids=lambda m: m.name)
def test_poisson_respects_the_domain(method):
    problem = poisson()
    assert (problem.y == 0).any()
    rough = solve(problem, method=method, gap_tol=1e-3, max_iter=5000)
    assert rough.converged and rough.x.min() >= 0 and torch.isfinite(rough.certificate.objective).all()
    exact = solve(problem, gap_tol=1e-6, tol=1e-6, max_iter=5000)
    assert (rough.certificate.objective - exact.certificate.objective <= rough.certificate.objective_gap).all()


@pytest.mark.parametrize("method", [ConjugateGradient(), LBFGS(), NewtonCG(), NmAPG()], ids=lambda m: m.name)
def test_methods_of_line_searches_refuse_a_domain(method):
    problem = Problem(
        picture(), physics.Denoising(), ridge(), 0.1, data_fidelity=deepinv.optim.PoissonLikelihood(gain=0.1)
    )
    with pytest.raises(ValueError, match=f"{method.name} assumes|got a box"):
        solve(problem, method=method)
    assert solve(problem, max_iter=2).stats.method == "AcceleratedGradient"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), gain=st.floats(0.01, 3), background=st.floats(0, 2))
def test_poisson_derivatives_agree_with_finite_differences(seed, gain, background):
    g = torch.Generator().manual_seed(seed)
    y = torch.poisson(5 * torch.rand(2, 1, 3, 3, generator=g, dtype=torch.float64), generator=g) * gain
    data = PoissonData(y, physics.Denoising(), (1.0, 1.0), gain, background, counted=False)
    x = 0.1 + torch.rand(y.shape, generator=g, dtype=torch.float64)
    d = torch.randn(y.shape, generator=g, dtype=torch.float64)
    h = 1e-6
    numeric = (data.fn(x + h * d) - data.fn(x - h * d)) / (2 * h)
    torch.testing.assert_close((data.grad(x) * d).flatten(1).sum(1), numeric, rtol=1e-5, atol=1e-5)
    numeric = (data.grad(x + h * d) - data.grad(x - h * d)) / (2 * h)
    torch.testing.assert_close(data.hvp(x, d), numeric, rtol=1e-4, atol=1e-4)
    assert (data.fn(x) >= 0).all()


class NotTheAdjoint(physics.LinearPhysics):
    def A(self, x, **kwargs):  # noqa: N802
        return x.roll(1, -1)

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return y.roll(1, -1)


class NotLinear(physics.LinearPhysics):
    def A(self, x, **kwargs):  # noqa: N802
        return x.abs()

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return y


class Nothing(physics.LinearPhysics):
    def A(self, x, **kwargs):  # noqa: N802
        return 0 * x

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return 0 * y


BAD = {
    "adjoint": ({"physics": NotTheAdjoint()}, ValueError, "A_adjoint is not the adjoint"),
    "nonlinear": ({"physics": NotLinear()}, ValueError, "not linear"),
    "nonlinear physics": ({"physics": physics.PhaseRetrieval(B=Nothing())}, TypeError, "LinearPhysics"),
    "zero": ({"physics": Nothing()}, ValueError, "maps every image to 0"),
    "zero kernel": (
        {"physics": physics.BlurFFT((1, SIDE, SIDE), filter=torch.zeros(1, 1, 3, 3))},
        ValueError,
        "maps every image to 0",
    ),
    "shape": ({"physics": physics.Tomography(angles=12, img_width=SIDE, normalize=True)}, ValueError, "y: got shape"),
    "complex": ({"y": torch.zeros(1, 1, SIDE, SIDE, dtype=torch.complex64)}, TypeError, "complex"),
    "negative counts": (
        {"y": picture() - 0.5, "data_fidelity": deepinv.optim.PoissonLikelihood()},
        ValueError,
        "negative values down to -0.3",
    ),
    "gain": ({"data_fidelity": deepinv.optim.PoissonLikelihood(gain=0.0)}, ValueError, "gain of 0"),
    "dark box": (
        {"data_fidelity": deepinv.optim.PoissonLikelihood(), "box": (-1, 0)},
        ValueError,
        "every image in the box is measured as 0",
    ),
    "weight": ({"weight": -1}, ValueError, "weight"),
    "empty box": ({"box": (0.7, 0.2)}, ValueError, "empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_problems_are_refused(case):
    changes, kind, message = BAD[case]
    arguments = {"y": picture(), "physics": physics.Denoising(), "regularizer": ridge(), "sigma": 0.1} | changes
    with pytest.raises(kind, match=message):
        Problem(**arguments)


def test_a_weight_of_zero_is_least_squares():
    operator, y = measured("blur, circular")
    solution = solve(Problem(y, operator, ridge(), 0.1, weight=0.0, box=(0, 1)), max_iter=500)
    assert set(solution.status) <= {Status.CONVERGED, Status.ITERATION_LIMIT, Status.PRECISION_LIMIT}
    residual = (operator.A(solution.x) - y).square().mean().sqrt()
    assert residual < 0.011


@pytest.mark.parametrize("name", ["inpainting", "downsampling"])
def test_float32_continues_in_float64_where_rounding_stops_it(name):
    operator, y = measured(name)
    problem = Problem(y, operator, ridge(), 0.1, noise=0.03, box=(0, 1))
    solution = solve(problem, gap_tol=1e-6, tol=1e-7, max_iter=5000)
    exact = solve(problem.to(torch.float64), gap_tol=1e-9, tol=1e-9, max_iter=20000)
    assert solution.x.dtype is torch.float32 and exact.converged
    # Rounding of the image itself may cost a little more than a millionth of the objective.
    assert (solution.certificate.relative_gap < 1e-5).all()
    excess = problem.to(torch.float64).objective.fn(solution.x.double()) - exact.certificate.objective
    assert (excess <= solution.certificate.objective_gap + 1e-9).all()


def test_a_finer_certificate_never_loosens_one():
    operator, y = measured("blur, circular")
    problem = Problem(y, operator, ridge(), 0.1, noise=0.03, box=(0, 1)).to(torch.float64)
    coarse, fine = (solve(problem, max_iter=n) for n in (5, 60))
    own = certify(problem.objective, coarse.x, box=problem.box)
    both = own.beside(fine.certificate, coarse.x - fine.x)
    exact = solve(problem, gap_tol=1e-8, max_iter=20000)
    assert (both.objective_gap <= own.objective_gap).all() and (both.rms_distance <= own.rms_distance).all()
    assert (own.objective - exact.certificate.objective <= both.objective_gap * (1 + 1e-9)).all()


def test_the_physics_of_the_caller_stays_as_it_is():
    operator, y = measured("downsampling")
    before = {k: v.clone() for k, v in operator.state_dict().items()} | {"tol": operator.tol}
    state = torch.random.get_rng_state()
    solve(Problem(y, operator, ridge(), 0.1, noise=0.05), method="admm", max_iter=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert operator.tol == before.pop("tol")
    for key, value in operator.state_dict().items():
        assert torch.equal(value, before[key]) and value.dtype == before[key].dtype


def test_batched_physics_parameters_belong_to_their_images():
    masks = torch.ones(2, 1, SIDE, SIDE)
    masks[0, :, ::2], masks[1, :, :, ::3] = 0, 0
    operator = physics.Inpainting((1, SIDE, SIDE), mask=masks)
    y = operator.A(picture())
    together = solve(Problem(y, operator, ridge(), 0.1, box=(0, 1)), gap_tol=1e-4, max_iter=2000)
    for i in range(2):
        alone = physics.Inpainting((1, SIDE, SIDE), mask=masks[i : i + 1])
        one = solve(Problem(y[i : i + 1], alone, ridge(), 0.1, box=(0, 1)), gap_tol=1e-4, max_iter=2000)
        torch.testing.assert_close(one.x[0], together.x[i], atol=3e-2, rtol=0)
        assert math.isclose(float(one.certificate.objective), float(together.certificate.objective[i]), rel_tol=1e-3)


class Gains(physics.LinearPhysics):
    """A factor per channel, or, with `turned`, one per image in a buffer whose last side is the batch."""

    def __init__(self, gain, turned=False):
        super().__init__()
        self.register_buffer("gain", gain)
        self.turned = turned

    def A(self, x, **kwargs):  # noqa: N802
        return x * (self.gain.T[:, :, None, None] if self.turned else self.gain)

    A_adjoint = A


@pytest.mark.parametrize("batch", [2, 3])
def test_parameters_that_all_images_share_are_not_taken_for_those_of_images(batch):
    """Although there are as many channels as images, which end one after the other."""
    gain = torch.tensor([1.0, 0.2, 0.5])[:batch].reshape(-1, 1, 1).double()
    reg = PerChannel(ridge(torch.float64))
    y = picture(batch, batch, torch.float64)
    y[1:] *= 0.1
    together = solve(Problem(y, Gains(gain), reg, 0.1, box=(0, 1)), gap_tol=1e-6, max_iter=5000)
    assert len(set(together.stats.iterations.tolist())) > 1
    for i in range(batch):
        alone = solve(Problem(y[i : i + 1], Gains(gain), reg, 0.1, box=(0, 1)), gap_tol=1e-6, max_iter=5000)
        excess = together.certificate.objective[i] - alone.certificate.objective[0]
        assert abs(float(excess)) <= float(together.certificate.objective_gap[i] + alone.certificate.objective_gap[0])


def test_parameters_of_images_that_cannot_be_told_apart_are_refused():
    gain = torch.rand(2, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    with pytest.raises(ValueError, match=r"physics: the buffers gain of Gains are neither shared .* each of the 2"):
        solve(Problem(picture(2, 2), Gains(gain, turned=True), PerChannel(ridge()), 0.1, box=(0, 1)))


def test_primal_dual_where_the_data_do_not_count():
    y = picture(2, dtype=torch.float64)
    problem = Problem(y, physics.Denoising(), ridge(torch.float64), torch.tensor([0.0, 0.1]), noise=0.1)
    assert torch.isfinite(solve(problem, method="primal-dual", max_iter=200).certificate.objective_gap).all()
