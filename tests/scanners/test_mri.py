"""MRI with coils: noise, whitening, maps, phase, strength, certificates."""

import coil_cases
import numpy as np
import pytest
import torch

from icgn.regularizers import PerChannel, RidgeICGN
from icgn.scanners import (
    KSpace,
    coil_maps,
    coil_noise,
    prepare_coils,
    reconstruct_mri,
    solve_prepared,
    split,
)
from icgn.scanners.coils import calibration, outer_samples
from icgn.scanners.held_out import search
from icgn.solvers import Problem, solve

COILS, SIDE = 4, 32
LEVEL = 0.01 * float(coil_cases.covariance(COILS).diagonal().real.mean().sqrt())
OPTIONS = {"maps": coil_cases.maps(COILS, SIDE), "gap_tol": 1e-2}


@pytest.fixture(scope="module")
def reg():
    torch.manual_seed(0)
    made = RidgeICGN(filters=4, size=3, channels=1, sigma_range=(1 / 255, 50 / 255)).requires_grad_(False)
    made.log_lambda += 2.0
    return made


@pytest.fixture(scope="module")
def measured():
    return KSpace.of(coil_cases.kspace(), noise=coil_cases.noise(COILS, 4000, 0.01, seed=1))


def test_the_mask_is_where_any_coil_is_not_zero(measured):
    assert torch.equal(measured.mask, coil_cases.mask(SIDE))
    assert measured.acceleration == pytest.approx(SIDE**2 / float(coil_cases.mask(SIDE).sum()))


def test_whitening_makes_the_covariance_the_identity(measured):
    white = coil_noise(measured).whiten(measured.noise)
    covariance = white @ white.mH / (2 * white.shape[1])
    assert torch.allclose(covariance, torch.eye(COILS, dtype=torch.complex128), atol=1e-12)


def test_the_covariance_of_a_noise_scan_is_that_of_its_coils(measured):
    found = coil_noise(measured)
    assert found.words == "of the noise scan in the file"
    assert torch.allclose(found.covariance, 1e-4 * coil_cases.covariance(COILS), atol=2e-5)
    assert found.level == pytest.approx(LEVEL, rel=0.05)


def test_noise_is_found_in_the_outer_samples():
    samples = coil_cases.noise(COILS, 64 * 64, 0.01).reshape(COILS, 64, 64).clone()
    samples[:, 28:36, 28:36] += 10
    found = coil_noise(KSpace.of(samples))
    assert found.level == pytest.approx(LEVEL, rel=0.15) and "outer" in found.words


def test_outer_samples_are_the_farthest(measured):
    samples = torch.zeros(2, 40, 40, dtype=torch.complex128)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    samples += 100 - ((y - 20).square() + (x - 20).square()).sqrt()
    outer = outer_samples(KSpace.of(samples)).real
    assert outer.shape == (2, 40) and float(outer.max()) <= float(samples.real[0].flatten().sort().values[45])


def test_the_operator_is_that_of_maps_phase_transform_and_mask(measured):
    data = prepare_coils(measured, maps=OPTIONS["maps"])
    physics = data.physics()
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(1, 2, SIDE, SIDE, dtype=torch.float64, generator=generator)
    v = torch.randn(data.y.shape, dtype=torch.float64, generator=generator)
    assert float((physics.A(u) * v).sum()) == pytest.approx(float((u * physics.A_adjoint(v)).sum()), rel=1e-12)
    x = data.phase * torch.complex(u[0, 0], u[0, 1])
    white = coil_noise(measured).whiten(OPTIONS["maps"]) * coil_noise(measured).level
    transformed = physics.fft(white * x, dim=(-2, -1)) * measured.mask
    assert torch.allclose(torch.complex(physics.A(u)[0, 0], physics.A(u)[0, 1]), transformed, atol=1e-12)
    assert torch.allclose(data.phase.abs(), torch.ones(SIDE, SIDE, dtype=torch.float64))


def test_the_phase_that_is_divided_out_leaves_little_imaginary_part(measured):
    data = prepare_coils(measured, maps=OPTIONS["maps"])
    clean = coil_cases.picture(SIDE) / data.phase
    assert float(clean.imag.square().sum()) < 0.02 * float(clean.real.square().sum())
    assert float(coil_cases.picture(SIDE).imag.square().sum()) > 0.1 * float(clean.real.square().sum())


def test_the_picture_is_found_and_its_strength_is_chosen(measured, reg):
    found = reconstruct_mri(measured, regularizer=reg, **OPTIONS)
    clean = coil_cases.picture(SIDE)
    error = float((found.x - clean).abs().square().mean().sqrt())
    assert error < 0.1 and found.solution.converged and found.relative_gap <= 1e-2
    assert found.errors["this"] <= min(found.errors["zero filling"], found.errors["CG-SENSE"])
    assert found.errors["this"] == min(t.error for t in found.trials)


@pytest.mark.parametrize("scale", [1e-6, 4000.0])
def test_the_unit_of_k_space_changes_the_unit_of_the_picture_only(measured, reg, scale):
    base = reconstruct_mri(measured, regularizer=reg, sigma=0.05, **OPTIONS)
    scaled = KSpace.of(scale * measured.samples, noise=scale * measured.noise)
    other = reconstruct_mri(scaled, regularizer=reg, sigma=0.05, **OPTIONS)
    assert torch.allclose(other.x, scale * base.x, rtol=1e-5, atol=1e-6 * scale)
    assert other.noise.level == pytest.approx(scale * base.noise.level)
    assert torch.equal(other.solution.stats.iterations, base.solution.stats.iterations)


def test_a_phase_of_the_whole_picture_changes_nothing_else(measured, reg):
    base = reconstruct_mri(measured, regularizer=reg, sigma=0.05, **OPTIONS)
    turn = torch.polar(torch.ones((), dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))
    other = reconstruct_mri(
        KSpace.of(turn * measured.samples, noise=measured.noise), regularizer=reg, sigma=0.05, **OPTIONS
    )
    assert torch.allclose(other.x, (turn * base.x).to(torch.complex64), atol=2e-4)


def test_the_gap_is_at_least_the_true_one(measured, reg):
    data = prepare_coils(measured, maps=OPTIONS["maps"])
    both, sigma = PerChannel(reg), 0.05 * data.width
    rough = solve_prepared(data, both, 0.05, gap_tol=0.1)
    bound = 2 * data.width
    problem = Problem(data.y, data.physics(), both, sigma, noise=1.0, box=(-bound, bound), range=(0, data.width))
    exact = solve(problem, gap_tol=1e-9, max_iter=3000)
    objective = problem.objective
    true = float(objective.fn(rough.x.double()) - objective.fn(exact.x))
    assert 0 <= true <= float(rough.certificate.objective_gap[0]) * (1 + 1e-6) + 1e-6


def test_estimated_maps_are_those_of_the_coils():
    pytest.importorskip("sigpy")
    true = coil_cases.maps(COILS, 48)
    samples = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(true * coil_cases.picture(48), dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    samples = samples + coil_cases.noise(COILS, 48 * 48, 1e-4).reshape(COILS, 48, 48)
    kspace = KSpace.of(samples)
    noise = coil_noise(kspace, 1e-4)
    maps, words = coil_maps(kspace, noise)
    inside = (coil_cases.picture(48).abs() > 0.1) & (maps.abs().sum(0) > 0)
    match = (maps.conj() * true).sum(0).abs()[inside]
    assert "24 x 24" in words and float(match.median()) > 0.99


def test_the_middle_square_is_found():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[13:27, 12:28] = True
    assert calibration(mask) == 14 and calibration(torch.ones(64, 64, dtype=torch.bool)) == 24


def test_whole_lines_are_held_out_where_whole_lines_were_measured():
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[:, ::2] = True
    mask[:, 15:25] = True
    held = split(mask, keep=10)
    assert torch.equal(held.any(0), held.all(0)) and 0 < int(held.any(0).sum()) <= 2
    assert not held[:, 15:25].any() and not (held & ~mask).any()


def test_a_tenth_of_the_places_is_held_out_and_none_in_the_middle():
    mask = coil_cases.mask(64, middle=16)
    held = split(mask, keep=16)
    outside = mask.clone()
    outside[24:40, 24:40] = False
    assert int(held.sum()) == round(0.1 * int(outside.sum())) and not (held & ~outside).any()


def test_the_search_finds_the_least_of_a_valley_to_half_an_octave():
    best, trials = search(lambda s: (np.log2(s) + 4.4) ** 2, 0.25, (1e-3, 1.0))
    assert abs(np.log2(best) + 4.4) <= 0.25 and len(trials) <= 8


def bad(change):
    samples = coil_cases.kspace()
    return change(samples)


def with_nan(samples):
    samples[1, 3, 5] = torch.nan
    return samples


def without_coil(samples):
    samples[2] = 0
    return samples


def with_hole(samples):
    samples[1, :, :10] = 0
    return samples


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (with_nan, ValueError, "1 NaN or infinite samples"),
        (without_coil, ValueError, "coil 2 is zero throughout"),
        (with_hole, ValueError, "coil 1 is zero at .* same places"),
        (lambda s: s.real, TypeError, r"expected complex numbers.*1j \* x"),
        (lambda s: s.movedim(0, -1), ValueError, "coils come first"),
        (lambda s: 0 * s, ValueError, "zeros only"),
        (lambda s: s[None, None], ValueError, "of one slice"),
        (lambda s: torch.fft.ifftshift(s, dim=(-2, -1)), ValueError, "fftshift"),
    ],
)
def test_k_space_that_cannot_be_meant_is_refused(change, kind, words):
    with pytest.raises(kind, match=words):
        KSpace.of(bad(change))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": coil_cases.noise(3, 400, 1.0)}, "expected 4 coils first"),
        ({"noise": coil_cases.noise(4, 20, 1.0)}, "got 20 samples for 4 coils, expected at least 40"),
        ({"noise": -1.0}, "expected a positive number"),
        ({"noise": torch.ones(4, 100, dtype=torch.complex128)}, "combination of others"),
        ({"maps": coil_cases.maps(3, SIDE)}, r"maps: got shape \(3, 32, 32\), expected \(4, 32, 32\)"),
        ({"maps": OPTIONS["maps"] * torch.nan}, "maps: got NaN"),
        ({"maps": OPTIONS["maps"] * 0}, "maps: got zeros only"),
        ({"maps": OPTIONS["maps"], "sigma": 25.0}, "sigma: got 25, expected a part of the range"),
    ],
)
def test_what_does_not_fit_k_space_is_refused(measured, reg, options, words):
    with pytest.raises(ValueError, match=words):
        reconstruct_mri(measured, regularizer=reg, **options)


def test_maps_cannot_be_estimated_without_a_middle(reg):
    samples = coil_cases.kspace() * (torch.arange(SIDE) % 4 == 0)
    kspace = KSpace.of(samples)
    with pytest.raises(ValueError, match="maps: got 1 x 1 measured places in the middle"):
        coil_maps(kspace, coil_noise(kspace, 0.01))


def test_a_single_coil_needs_no_maps(reg):
    kspace = KSpace.of(coil_cases.kspace(coils=1)[0])
    found = reconstruct_mri(kspace, noise=0.01, regularizer=reg, sigma=0.05, gap_tol=1e-2)
    assert found.x.shape == (SIDE, SIDE) and found.maps.startswith("1,") and found.solution.converged
