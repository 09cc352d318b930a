"""K-space along a trajectory: the transform and its adjoint, a radial scan, and data that cannot be meant."""

import math

import coil_cases
import numpy as np
import pytest
import torch

from icgn.regularizers import PerChannel, RidgeICGN
from icgn.scanners import ShotKSpace, coil_noise, prepare_coils, read_shots, reconstruct_mri, solve_prepared
from icgn.solvers import Problem, solve

pytest.importorskip("sigpy")
COILS, SIDE, SHOTS = 3, 16, 24


def spokes(shots=SHOTS, side=SIDE):
    """Radial points (shots, 2 side, 2) in cycles per field of view, two samples for each."""
    angles = torch.arange(shots, dtype=torch.float64) * math.pi / shots
    k = (torch.arange(2 * side, dtype=torch.float64) - side) / 2
    return torch.stack([k * angles.sin()[:, None], k * angles.cos()[:, None]], -1)


def transformed(points):
    """The samples (C, S) of the simulated picture by the sum of the definition."""
    t = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    rows, columns = (torch.polar(torch.ones(()).double(), -2 * math.pi * points[:, i, None] * t / SIDE) for i in (0, 1))
    seen = coil_cases.maps(COILS, SIDE) * coil_cases.picture(SIDE)
    return torch.einsum("si,cij,sj->cs", rows, seen, columns) / SIDE


@pytest.fixture(scope="module")
def measured():
    points = spokes()
    clean = transformed(points.reshape(-1, 2)).reshape(COILS, SHOTS, -1)
    noisy = clean + coil_cases.noise(COILS, clean[0].numel(), 0.01).reshape(clean.shape)
    return ShotKSpace.of(noisy, points, noise=coil_cases.noise(COILS, 4000, 0.01, seed=1))


@pytest.fixture(scope="module")
def reg():
    torch.manual_seed(0)
    made = RidgeICGN(filters=4, size=3, channels=1, sigma_range=(1 / 255, 50 / 255)).requires_grad_(False)
    made.log_lambda += 2.0
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 1e-4)])
def test_the_transform_is_that_of_the_definition(measured, dtype, tolerance):
    like = torch.zeros((), dtype=dtype)
    physics = measured.trajectory.physics(coil_cases.maps(COILS, SIDE), like)
    x = torch.view_as_real(coil_cases.picture(SIDE)).movedim(-1, 0)[None].to(dtype)
    found = physics.A(x)
    expected = torch.view_as_real(transformed(measured.trajectory.points)).movedim(-1, 0)[None]
    assert found.dtype is dtype and float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


def test_the_adjoint_is_exact(measured):
    data = prepare_coils(measured, maps=coil_cases.maps(COILS, SIDE))
    physics, generator = data.physics(), torch.Generator().manual_seed(0)
    u = torch.randn(2, 2, SIDE, SIDE, dtype=torch.float64, generator=generator)
    v = torch.randn(2, *data.y.shape[1:], dtype=torch.float64, generator=generator)
    assert float((physics.A(u) * v).sum()) == pytest.approx(float((u * physics.A_adjoint(v)).sum()), rel=1e-10)


@pytest.mark.slow
def test_a_radial_picture_is_found_and_its_strength_chosen_by_spokes(measured, reg):
    found = reconstruct_mri(measured, maps=coil_cases.maps(COILS, SIDE), regularizer=reg, gap_tol=0.1)
    error = float((found.x - coil_cases.picture(SIDE)).abs().square().mean().sqrt())
    assert error < 0.1 and found.solution.converged and found.errors["this"] <= found.errors["CG-SENSE"]
    held = measured.trajectory.held_out()
    whole = held.reshape(SHOTS, -1)
    assert torch.equal(whole.any(1), whole.all(1)) and int(whole.any(1).sum()) == round(0.1 * SHOTS)


@pytest.mark.slow
def test_the_gap_is_at_least_the_true_one(measured, reg):
    data, both = prepare_coils(measured, maps=coil_cases.maps(COILS, SIDE)), PerChannel(reg)
    rough = solve_prepared(data, both, 0.05, gap_tol=0.3)
    bound, width = 2 * data.width, data.width
    problem = Problem(data.y, data.physics(), both, 0.05 * width, noise=1.0, box=(-bound, bound), range=(0, width))
    exact = solve(problem, gap_tol=1e-3, max_iter=600)
    true = float(problem.objective.fn(rough.x.double()) - problem.objective.fn(exact.x))
    assert 0 <= true <= float(rough.certificate.objective_gap[0]) * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize("scale", [1e-6, 4000.0])
def test_the_unit_of_k_space_is_that_of_its_noise(measured, scale):
    samples = scale * measured.samples.reshape(COILS, SHOTS, -1)
    scaled = ShotKSpace.of(samples, spokes(), noise=scale * measured.noise)
    base, other = (prepare_coils(k, maps=coil_cases.maps(COILS, SIDE)) for k in (measured, scaled))
    assert torch.equal(base.y, other.y) and base.width == other.width
    assert torch.allclose(base.maps, other.maps, rtol=0, atol=1e-12)
    assert other.noise.level == pytest.approx(scale * base.noise.level)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-6, 4000.0])
def test_the_unit_of_k_space_changes_the_unit_of_the_picture_only(measured, reg, scale):
    options = {"maps": coil_cases.maps(COILS, SIDE), "regularizer": reg, "sigma": 0.05, "gap_tol": 0.1}
    samples = measured.samples.reshape(COILS, SHOTS, -1)
    base = reconstruct_mri(measured, **options)
    other = reconstruct_mri(ShotKSpace.of(scale * samples, spokes(), noise=scale * measured.noise), **options)
    assert torch.allclose(other.x, scale * base.x, rtol=1e-5, atol=2e-3 * scale)


def test_maps_are_estimated_from_the_middle_that_spokes_cover(measured):
    points = spokes(40)
    clean = transformed(points.reshape(-1, 2)).reshape(COILS, 40, -1)
    middle = ShotKSpace.of(clean, points).middle()
    assert int(middle.mask.sum()) == SIDE**2
    seen = coil_cases.maps(COILS, SIDE) * coil_cases.picture(SIDE)
    grid = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(seen, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    inner = slice(SIDE // 2 - 5, SIDE // 2 + 6)
    difference = (middle.samples - grid)[:, inner, inner]
    assert float(difference.abs().square().mean() / grid[:, inner, inner].abs().square().mean()) < 1e-3


def test_noise_is_found_in_the_outer_samples():
    points, generator = spokes(), torch.Generator().manual_seed(0)
    samples = coil_cases.noise(COILS, points[..., 0].numel(), 0.01).reshape(COILS, SHOTS, -1).clone()
    samples[..., SIDE - 3 : SIDE + 3] += 10 + torch.randn(1, generator=generator)
    level = 0.01 * float(coil_cases.covariance(COILS).diagonal().real.mean().sqrt())
    assert coil_noise(ShotKSpace.of(samples, points)).level == pytest.approx(level, rel=0.2)


def write_cfl(path, array):
    sizes = " ".join(str(n) for n in array.shape)
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def test_files_of_numpy_and_bart_hold_the_same(tmp_path, measured):
    samples, points = measured.samples.reshape(COILS, SHOTS, -1).numpy(), spokes().numpy()
    np.save(tmp_path / "k.npy", samples)
    np.save(tmp_path / "t.npy", points)
    write_cfl(tmp_path / "k.cfl", samples.transpose(2, 1, 0)[None])
    flat = np.concatenate([points, 0 * points[..., :1]], -1)
    write_cfl(tmp_path / "t.cfl", flat.transpose(2, 1, 0))
    one, other = (read_shots(tmp_path / f"k.{kind}", tmp_path / f"t.{kind}") for kind in ("npy", "cfl"))
    assert one.shape == other.shape == (COILS, SIDE, SIDE)
    assert torch.allclose(one.samples, other.samples, atol=1e-5)
    assert torch.allclose(one.trajectory.points, other.trajectory.points, atol=1e-5)
    with pytest.raises(ValueError, match=r"none.npy: there is no such file"):
        read_shots(tmp_path / "k.npy", tmp_path / "none.npy")


def changed(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda s, p: (s, p[:-1]), ValueError, r"expected \(shots, readout, 2\)"),
        (lambda s, p: (s, p[..., :1]), ValueError, r"expected \(shots, readout, 2\)"),
        (lambda s, p: (s.real, p), TypeError, "expected complex samples and real points"),
        (lambda s, p: (changed(s, (1, 3, 5), torch.nan), p), ValueError, "1 NaN or infinite numbers of samples"),
        (lambda s, p: (s, changed(p, (1, 3, 0), torch.inf)), ValueError, "1 NaN or infinite numbers of points"),
        (lambda s, p: (changed(s, 1, 0), p), ValueError, "coil 1 is zero throughout"),
        (lambda s, p: (changed(s, (slice(None), 4), 0), p), ValueError, r"shot 4 is zero throughout \(1 of 24\)"),
        (lambda s, p: (s, p / SIDE), ValueError, "expected cycles per field of view"),
        (lambda s, p: (s, p * 2 * math.pi / SIDE), ValueError, "expected cycles per field of view"),
        (lambda s, p: (s.roll(SIDE, -1), p), ValueError, "expected it near the middle"),
    ],
)
def test_scans_that_cannot_be_meant_are_refused(measured, change, kind, words):
    samples = measured.samples.reshape(COILS, SHOTS, -1)
    with pytest.raises(kind, match=words):
        ShotKSpace.of(*change(samples, spokes()))


def test_a_picture_smaller_than_the_trajectory_and_too_few_shots_are_refused(measured, reg):
    samples = measured.samples.reshape(COILS, SHOTS, -1)
    with pytest.raises(ValueError, match="got 12 pixels for points up to 8, expected at least 16"):
        ShotKSpace.of(samples, spokes(), size=12)
    few = ShotKSpace.of(samples[:, :5], spokes()[:5], noise=measured.noise)
    with pytest.raises(ValueError, match="expected at least 12 x 12"):
        reconstruct_mri(few, regularizer=reg)
    with pytest.raises(ValueError, match="got 5 samples or lines that can be held out"):
        reconstruct_mri(few, maps=coil_cases.maps(COILS, SIDE), regularizer=reg)
