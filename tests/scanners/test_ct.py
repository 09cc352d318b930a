"""CT: counts, geometry in millimetres, certificates, and data that cannot be meant."""

import copy
import json
import math

import deepinv
import pytest
import torch

from icgn.functionals.noise import White
from icgn.regularizers import RidgeICGN
from icgn.scanners import (
    Geometry,
    RayMatrix,
    Sinogram,
    axis_offset,
    cell_gains,
    parse_angles,
    prepare_rays,
    read_geometry,
    reconstruct_ct,
    rings,
    solve_prepared,
)
from icgn.scanners.cells import CellOffsets, FreeCells
from icgn.solvers import Problem, solve

SIDE, VIEWS, SPACING = 32, 24, 2.0
ANGLES = torch.arange(VIEWS, dtype=torch.float64) * 180 / VIEWS


@pytest.fixture(scope="module")
def reg():
    torch.manual_seed(0)
    made = RidgeICGN(filters=4, size=3, channels=1, sigma_range=(1 / 255, 50 / 255)).requires_grad_(False)
    made.log_lambda += 2.0
    return made


def disc(size, spacing, radius, at=(0.0, 0.0), fine=8):
    """The part of every pixel that lies in a disc; millimetres, the middle of the picture is (0, 0)."""
    t = (torch.arange(size * fine, dtype=torch.float64) - (size * fine - 1) / 2) * spacing / fine
    inside = ((t[:, None] - at[0]).square() + (t - at[1]).square() <= radius**2).double()
    return torch.nn.functional.avg_pool2d(inside[None, None], fine)[0, 0]


@pytest.fixture(scope="module")
def parallel():
    return Geometry(ANGLES, SIDE, SPACING)


@pytest.fixture(scope="module")
def truth():
    """1/cm."""
    return (
        0.2 * disc(SIDE, SPACING, 24)
        + 0.2 * disc(SIDE, SPACING, 6, (8.0, -6.0))
        - 0.1 * disc(SIDE, SPACING, 5, (-9, 3))
    )


@pytest.fixture(scope="module")
def integrals(parallel, truth):
    return 0.1 * SPACING * parallel.physics().A(truth[None, None])[0, 0].T


@pytest.fixture(scope="module")
def counts(integrals):
    return torch.poisson(2e4 * (-integrals).exp(), generator=torch.Generator().manual_seed(0))


def test_rays_through_a_disc_have_the_length_of_chords_in_a_parallel_beam(parallel):
    found = 0.1 * SPACING * parallel.physics().A(disc(SIDE, SPACING, 20.0)[None, None])[0, 0].T
    away = (torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2) * SPACING
    chords = 0.1 * 2 * (400 - away.square()).clamp_min(0).sqrt()
    assert float((found - chords).abs().max()) < 0.35 * 0.1 * 2 * 20 / 2
    assert float((found - chords).abs().mean()) < 0.06


@pytest.mark.parametrize("magnified", [1.2, 2.0])
def test_rays_through_a_disc_have_the_length_of_chords_in_a_fan(magnified):
    source, cells, size = 120.0, 61, 64
    geometry = Geometry(
        ANGLES, cells, 1.5 * magnified, beam="fan", source_distance=source, detector_distance=source * (magnified - 1),
        size=size, pixel_spacing=1.25,
    )  # fmt: skip
    data = prepare_rays(Sinogram.of_integrals(torch.ones(VIEWS, cells) + torch.eye(VIEWS, cells), 0.1), geometry)
    at = (11.0, -7.0)
    pixels = data.physics.A(disc(size, 1.25, 15.0, at)[None, None])[0, 0].T
    found = 0.125 * pixels * geometry.slant
    expected = torch.zeros(VIEWS, cells, dtype=torch.float64)
    tangent = (torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2) * 1.5 * magnified / (source * magnified)
    best = []
    for sign_x in (1, -1):
        for sign_y in (1, -1):
            for turn in (1, -1):
                for view, angle in enumerate(torch.deg2rad(ANGLES).tolist()):
                    # The source, and rays from it, in the frame of the object; which way angles turn is a convention.
                    c, s = math.cos(turn * angle), math.sin(turn * angle)
                    direction = torch.stack([c - s * tangent, s + c * tangent], 1)
                    direction = direction / direction.norm(dim=1, keepdim=True)
                    to = torch.tensor([sign_x * at[1] + source * c, sign_y * at[0] + source * s], dtype=torch.float64)
                    off = (direction[:, 0] * to[1] - direction[:, 1] * to[0]).abs()
                    expected[view] = 0.1 * 2 * (15.0**2 - off.square()).clamp_min(0).sqrt()
                best.append(float((found - expected).abs().mean() / expected.mean()))
    assert min(best) < 0.02


def test_the_matrix_is_the_operator_and_its_transpose(parallel):
    physics = parallel.physics()
    made = RayMatrix.of(physics)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, SIDE, SIDE, dtype=torch.float64, generator=generator)
    y = torch.randn(2, 1, SIDE, VIEWS, dtype=torch.float64, generator=generator)
    assert isinstance(made, RayMatrix) and torch.allclose(made.A(x), physics.A(x), atol=1e-12)
    assert torch.allclose(made.A_adjoint(y), physics.A_adjoint(y), atol=1e-12)
    assert float((made.A(x) * y).sum()) == pytest.approx(float((x * made.A_adjoint(y)).sum()), rel=1e-12)


def test_an_operator_with_other_tables_is_left_as_it_is(parallel):
    physics = deepinv.physics.Tomography(ANGLES, SIDE, normalize=True)  # a circle around the picture, and scaled
    assert RayMatrix.of(physics) is physics


def test_counts_are_expanded_at_their_logarithm(counts):
    made = Sinogram.of_counts(counts, 2e4)
    assert torch.allclose(made.integrals, torch.log(2e4 / counts)) and torch.allclose(made.levels, counts.rsqrt())


def test_the_expansion_has_value_slope_and_curvature_of_the_likelihood(counts):
    at = (torch.log(2e4 / counts) + 0.05).requires_grad_()

    def likelihood(p):
        return (2e4 * (-p).exp() + counts * p).sum()

    made = Sinogram.of_counts(counts, 2e4).expanded(at.detach())
    (slope,) = torch.autograd.grad(likelihood(at), at)
    quadratic = (at.detach() - made.integrals) / made.levels.square()
    assert torch.allclose(slope, quadratic) and torch.allclose(made.levels.square().reciprocal(), 2e4 * (-at).exp())


def test_a_slice_is_found_in_its_unit(counts, parallel, truth, reg):
    found = reconstruct_ct(Sinogram.of_counts(counts, 2e4), parallel, regularizer=reg, gap_tol=1e-2)
    error = ((found.x - truth) * parallel.circle).square().mean().sqrt()
    data = prepare_rays(Sinogram.of_counts(counts, 2e4), parallel)
    rough, unit = data.rough[0, 0], data.unit
    assert float(error) < 0.9 * float(((unit * rough - truth) * parallel.circle).square().mean().sqrt())
    assert found.solution.converged and found.solution.certificate.dtype is torch.float64
    assert found.errors["this"] < found.errors["least squares"] and 0.8 < found.misfit < 1.2 and not found.rings


@pytest.mark.parametrize("scale", [1e-6, 4000.0])
def test_units_of_length_and_of_attenuation_change_that_of_the_slice_only(integrals, parallel, reg, scale):
    noisy = integrals + 0.02 * torch.randn(VIEWS, SIDE, generator=torch.Generator().manual_seed(0))
    base, found, other = (
        reconstruct_ct(Sinogram.of_integrals(s * noisy, s * 0.02), g, regularizer=reg, sigma=0.05, gap_tol=1e-2)
        for s, g in ((1, parallel), (1, Geometry(ANGLES, SIDE, SPACING / scale)), (scale, parallel))
    )
    assert torch.allclose(found.x, scale * base.x, rtol=1e-6)
    assert torch.allclose(other.x, scale * base.x, rtol=1e-4, atol=1e-5 * scale)
    assert torch.equal(found.solution.stats.iterations, base.solution.stats.iterations)


def test_the_gap_is_at_least_the_true_one(counts, parallel, reg):
    data = prepare_rays(Sinogram.of_counts(counts, 2e4), parallel)
    rough = solve_prepared(data, reg, 0.05, gap_tol=0.1)
    problem = Problem(
        data.y, data.physics, reg, 0.05 * data.width, noise=White(data.levels), box=(0, 2 * data.width),
        range=(0, data.width),
    )  # fmt: skip
    exact = solve(problem, gap_tol=1e-7, max_iter=3000)
    true = float(problem.objective.fn(rough.x) - problem.objective.fn(exact.x))
    assert 0 <= true <= float(rough.certificate.objective_gap[0]) * (1 + 1e-6)


def test_minimizing_over_the_offsets_of_cells_leaves_a_quadratic_of_the_slice(integrals, parallel):
    generator = torch.Generator().manual_seed(0)
    levels = 0.02 + 0.01 * torch.rand(VIEWS, SIDE, dtype=torch.float64, generator=generator)
    gains = 0.03 * torch.rand(SIDE, dtype=torch.float64, generator=generator)
    residual = torch.randn(VIEWS, SIDE, dtype=torch.float64, generator=generator)
    cells = CellOffsets.of(levels, gains)
    c = cells.offsets(residual)
    joint = ((residual - c) / levels).square().sum() + (c / gains).square().sum()
    assert torch.allclose((cells.apply(residual) / levels).square().sum(), joint, rtol=1e-12)
    # c is where the gradient of the joint objective vanishes.
    assert torch.allclose(((c - residual) / levels.square()).sum(0) + c / gains.square(), torch.zeros(SIDE).double())
    physics = FreeCells(RayMatrix.of(parallel.physics()), cells)
    x = torch.randn(1, 1, SIDE, SIDE, dtype=torch.float64, generator=generator)
    y = torch.randn(1, 1, SIDE, VIEWS, dtype=torch.float64, generator=generator)
    assert float((physics.A(x) * y).sum()) == pytest.approx(float((x * physics.A_adjoint(y)).sum()), rel=1e-12)


def test_gains_of_cells_are_found_and_leave_no_rings(counts, parallel, truth, reg):
    drawn = torch.randn(SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    made = Sinogram.of_counts((counts * (0.05 * drawn).exp()).round(), 2e4)
    assert cell_gains(made.integrals, made.levels) == pytest.approx(0.05, rel=0.4)
    weak = copy.deepcopy(reg)
    weak.log_lambda -= 2.0
    found, ringed = (reconstruct_ct(made, parallel, regularizer=weak, gains=g, sigma=0.02) for g in (None, 0.0))
    error, without = (float(((f.x - truth) * parallel.circle).square().mean().sqrt()) for f in (found, ringed))
    assert error < 0.7 * without and found.solution.converged
    assert bool(found.offsets.all()) and not bool(ringed.offsets.any())
    with pytest.raises(ValueError, match=r"gains: .*expected one number >= 0, or 32"):
        reconstruct_ct(made, parallel, regularizer=reg, gains=-0.1, sigma=0.05)


def test_cells_that_differ_in_all_views_are_told(integrals):
    noise = 0.02 * torch.randn(VIEWS, SIDE, generator=torch.Generator().manual_seed(0))
    noise[:, 11] += 0.1
    assert [cell for cell, _ in rings(noise.double(), torch.full((VIEWS, SIDE), 0.02))] == [11]


@pytest.mark.parametrize("beam", ["parallel", "fan"])
@pytest.mark.parametrize("moved", [0, 2, -3])
def test_the_axis_is_found_whatever_the_object(truth, beam, moved):
    angles = torch.arange(40, dtype=torch.float64) * (180 if beam == "parallel" else 360) / 40
    fan = {"beam": "fan", "source_distance": 120.0, "detector_distance": 60.0, "size": SIDE, "pixel_spacing": SPACING}
    geometry = Geometry(angles, 2 * SIDE if beam == "fan" else SIDE, SPACING, **(fan if beam == "fan" else {}))
    inner = truth * disc(SIDE, SPACING, 24)
    integrals = (0.1 * SPACING * geometry.slant * geometry.physics().A(inner[None, None])[0, 0].T).roll(moved, 1)
    offset, error = axis_offset(Sinogram.of_integrals(integrals, 0.01), geometry)
    assert offset == pytest.approx(moved, abs=0.1) and error < 0.1


def test_the_axis_is_not_found_in_too_few_views(integrals):
    half = Sinogram.of_integrals(integrals[:12], 0.01)
    assert axis_offset(half, Geometry(ANGLES[:12], SIDE, SPACING)) is None


def test_angles_are_spread_or_read(tmp_path):
    assert parse_angles("0,180", 4).tolist() == [0, 45, 90, 135]
    (tmp_path / "a.txt").write_text("0, 30\n70 90\n")
    assert parse_angles(str(tmp_path / "a.txt"), 4).tolist() == [0, 30, 70, 90]
    with pytest.raises(ValueError, match=r"a.txt: got 4 angles for 5 views"):
        parse_angles(str(tmp_path / "a.txt"), 5)
    with pytest.raises(ValueError, match="expected FIRST,LAST in degrees, or a file"):
        parse_angles("half", 5)


def test_a_geometry_is_read_from_toml_and_json(tmp_path):
    fan = {"beam": "fan", "detector_spacing": 1.0, "source_distance": 300, "detector_distance": 200}
    (tmp_path / "g.json").write_text(json.dumps(fan))
    (tmp_path / "g.toml").write_text("\n".join(f"{k} = {v!r}" for k, v in fan.items()))
    found = [read_geometry(tmp_path / name, ANGLES, 40) for name in ("g.json", "g.toml")]
    assert found[0].source_distance == found[1].source_distance == 300 and found[0].size == 40
    # What all views see, at the axis, of a detector 39 mm wide.
    assert found[0].pixel_spacing * 40 == pytest.approx(600 * math.sin(math.atan(19.5 / 500)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beam = 'cone'\ndetector_spacing = 1", "beam: got 'cone', expected 'parallel' or 'fan'"),
        ("beam = 'fan'\ndetector_spacing = 1", "has no 'source_distance'"),
        ("pitch = 2", "has 'pitch', expected of beam"),
        ("detector_spacing = -1", "detector_spacing: got -1, expected a positive number"),
        ("detector_spacing = 'one'", "detector_spacing: got 'one', expected a number"),
        ("detector_spacing = 1\nsize = 20", "expected those of the detector"),
        ("detector_spacing", ""),
        ("beam='fan'\ndetector_spacing=9\nsource_distance=20\ndetector_distance=9\npixel_spacing=2", "more than half"),
    ],
)
def test_a_geometry_that_cannot_be_meant_is_refused(tmp_path, text, words):
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(ValueError, match=f"g.toml: .*{words}"):
        read_geometry(tmp_path / "g.toml", ANGLES, 40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.deg2rad, "look like radians"),
        (torch.rad2deg, "converted twice"),
        (lambda a: a * torch.nan, "expected finite degrees"),
        (lambda a: a[:1], "expected finite degrees"),
    ],
)
def test_angles_in_another_unit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Geometry(change(ANGLES), SIDE, SPACING)


def changed(counts, change):
    counts = counts.clone()
    change(counts)
    return counts


def negative(counts):
    counts[3, 4] = -2


def broken(counts):
    counts[3, 4] = torch.nan


def dead(counts):
    counts[:, 5] = 0


def empty(counts):
    counts[7] = 0


@pytest.mark.parametrize(
    ("change", "words"), [(lambda p: -p, "change their sign"), (lambda p: changed(p, empty), "view 7 is 0 in any cell")]
)
def test_line_integrals_that_cannot_be_meant_are_refused(integrals, change, words):
    with pytest.raises(ValueError, match=words):
        Sinogram.of_integrals(change(integrals), 0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: changed(c, negative), "1 negative counts down to -2"),
        (lambda c: changed(c, broken), "1 NaN or infinite counts"),
        (lambda c: changed(c, dead), "cell 5 counted nothing"),
        (lambda c: c.T, "transposed"),
        (lambda c: 10 * c, "times those without an object"),
        (lambda c: c[0], r"expected \(views, cells\)"),
        (lambda c: 1e-6 * c, "expected photons, at least 10, not scaled"),
        (lambda c: changed(c, empty), "view 7 counted nothing in any cell"),
    ],
)
def test_counts_that_cannot_be_meant_are_refused(counts, change, words):
    with pytest.raises(ValueError, match=words):
        Sinogram.of_counts(change(counts), 2e4)


@pytest.mark.parametrize(
    ("value", "words"), [(-1.0, "not positive"), (torch.ones(7), r"expected one number, 32 of cells")]
)
def test_counts_without_an_object_must_fit(counts, value, words):
    with pytest.raises(ValueError, match=words):
        Sinogram.of_counts(counts, value)


def test_what_does_not_fit_the_geometry_is_refused(integrals, parallel, reg):
    made = Sinogram.of_integrals(integrals, 0.02)
    with pytest.raises(ValueError, match=r"got shape \(24, 32\), expected \(12, 32\)"):
        prepare_rays(made, Geometry(ANGLES[:12], SIDE, SPACING))
    few = made.of_views(torch.arange(VIEWS) % 3 == 0)
    with pytest.raises(ValueError, match="got 8 views, expected at least 10"):
        reconstruct_ct(few, Geometry(ANGLES[::3], SIDE, SPACING), regularizer=reg)
    with pytest.raises(ValueError, match="not attenuated anywhere"):
        prepare_rays(Sinogram.of_integrals(0 * integrals, 0.02), parallel)
    with pytest.raises(ValueError, match=r"need tables of .* GiB"):
        Geometry(torch.arange(2000.0, dtype=torch.float64) / 10, 1000, 1.0)
