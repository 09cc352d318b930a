"""Pictures in any unit are restored as the same pictures in [0, 1] are."""

import deepinv
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import icgn
from icgn.datasets import Picture
from icgn.pictures import Deblur, Denoise, Enlarge, Inpaint, Measured, intensity_range, make_kernel, restore_picture
from icgn.regularizers import RidgeICGN, ScaledRegularizer

NOISE = 0.05
KERNEL = make_kernel(torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]))
KNOWN = torch.rand(1, 12, 11, generator=torch.Generator().manual_seed(2)) > 0.2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RidgeICGN(filters=3, size=3).double().requires_grad_(False)


def scene(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    clean = torch.zeros(1, 12, 11, dtype=torch.float64)
    clean[:, 3:9, 2:8] = 0.9
    return (clean + NOISE * torch.randn(clean.shape, generator=generator, dtype=torch.float64)).to(dtype)


class Half(deepinv.physics.LinearPhysics):
    """Sums of two neighbours in a row, in units of its own."""

    def __init__(self, unit=1.0):
        super().__init__()
        self.unit = unit

    def A(self, x, **kwargs):  # noqa: N802
        return self.unit * (x[..., :, 1:] + x[..., :, :-1])

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return self.unit * (torch.nn.functional.pad(y, (1, 0)) + torch.nn.functional.pad(y, (0, 1)))


TASKS = {
    "denoise": Denoise(),
    "deblur": Deblur(KERNEL),
    "deblur, circular": Deblur(KERNEL, border="circular"),
    "inpaint": Inpaint(KNOWN),
    "enlarge": Enlarge(2),
    "measured": Measured(Half()),
}


def measured(task, z, scale, low):
    """What the task measures of the picture s z + b."""
    x = scale * z + low
    return task.physics.A(x[None])[0] if isinstance(task, Measured) else x


def restored(model, task, scale, low, dtype=torch.float64, **asked):
    y = measured(task, scene(dtype), scale, low)
    asked = {"regularizer": model.to(dtype), "range": "auto", **asked}
    return restore_picture(y, task=task, noise=scale * NOISE, **asked)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(offset=st.floats(-100, 100), log_scale=st.floats(-12, 12), single=st.booleans())
def test_a_denoised_picture_scales_and_shifts_with_the_noisy_one(model, offset, log_scale, single):
    dtype = torch.float32 if single else torch.float64
    scale = float(torch.tensor(log_scale, dtype=torch.float64).exp())
    low = scale * (offset / 100 if single else offset)
    plain = restored(model, Denoise(), 1.0, 0.0, dtype)
    moved = restored(model, Denoise(), scale, low, dtype)
    rounding = (1e-7 if single else 1e-15) * (1 + abs(low) / scale)
    difference = (moved.solution.x.double() - low) / scale - plain.solution.x.double()
    assert float(difference.abs().max()) <= 1e-5
    assert moved.solution.status == plain.solution.status and moved.iterations == plain.iterations
    assert moved.range == pytest.approx([scale * v + low for v in plain.range], abs=30 * rounding * scale)
    proved, wanted = moved.solution.certificate, plain.solution.certificate
    torch.testing.assert_close(proved.rms_distance / scale, wanted.rms_distance, rtol=0.01, atol=3 * rounding)
    torch.testing.assert_close(proved.objective / scale**2, wanted.objective, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", [n for n in TASKS if n != "denoise"])
def test_inverse_problems_scale_with_the_picture_bit_by_bit(model, name):
    task = TASKS[name]
    plain, moved = (restored(model, task, scale, 0.0, gap_tol=1e-2) for scale in (1.0, 2.0**-13))
    assert torch.equal(2.0**13 * moved.solution.x, plain.solution.x)
    assert moved.solution.status == plain.solution.status and moved.iterations == plain.iterations
    assert torch.equal(2.0**26 * moved.solution.certificate.objective, plain.solution.certificate.objective)
    # Rounding of other scales grows over many steps, but ends at the same minimum.
    other = restored(model, task, 500.0, 100.0, gap_tol=1e-2)
    assert other.solution.status == plain.solution.status
    torch.testing.assert_close(
        other.solution.certificate.objective / 500.0**2, plain.solution.certificate.objective, rtol=1e-2, atol=0
    )


def test_the_range_leaves_out_noise_and_hot_pixels():
    generator = torch.Generator().manual_seed(0)
    clean = torch.linspace(100, 600, 10_000, dtype=torch.float64)
    low, high = intensity_range(clean)
    assert (low, high) == pytest.approx((100, 600), abs=2)
    noisy = clean + 25 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    noisy[:5], noisy[5:9], noisy[9] = 1e6, torch.nan, torch.inf
    assert intensity_range(noisy, noise=25.0) == pytest.approx((100, 600), abs=40)
    assert intensity_range(7 * noisy - 3, noise=7 * 25.0) == pytest.approx(
        [7 * v - 3 for v in intensity_range(noisy, noise=25.0)], rel=1e-12
    )


def test_a_flat_picture_has_a_range():
    assert intensity_range(torch.full((5,), 3.0)) == (0, 3) and intensity_range(torch.full((5,), -3.0)) == (-3, 0)
    assert intensity_range(torch.zeros(5)) == (0, 1)
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    low, high = intensity_range(noise, noise=1.0)
    assert 5.2 <= high - low < 6.5 and abs(low + high) < 1
    with pytest.raises(ValueError, match="no finite value"):
        intensity_range(torch.full((3,), torch.nan))


def test_pictures_in_the_unit_range_are_taken_as_they_are(model):
    model.double()
    y = scene()[None]
    plain = icgn.solve(icgn.Problem(y, deepinv.physics.Denoising(), model, NOISE))
    assert torch.equal(icgn.denoise(y, NOISE, regularizer=model).x, plain.x)
    assert torch.equal(
        icgn.denoise(0.1 * y, NOISE, regularizer=model).x,
        icgn.denoise(0.1 * y, NOISE, regularizer=model, range=(0, 1)).x,
    )
    made = ScaledRegularizer(model, 0.0, 1000.0)
    assert torch.allclose(icgn.denoise(1000 * y, 1000 * NOISE, regularizer=made, tol=1e-2).x, 1000 * plain.x, atol=0.1)


def test_a_small_range_is_found_and_said(model):
    y = (100 + 500 * scene()) / 65535
    noise = 500 / 65535 * NOISE
    found = restore_picture(Picture(y.float()), noise=noise, regularizer=model.float())
    assert [n.topic for n in found.notes] == ["scale"] and "taken as the range" in found.notes[0].text()
    plain = restore_picture(scene(), noise=NOISE, regularizer=model.double(), range="auto")
    assert [65535 * v for v in found.range] == pytest.approx([100 + 500 * v for v in plain.range], rel=1e-3)
    clean = plain.picture.pixels
    assert float((found.picture.pixels * 65535 - 100 - 500 * clean).square().mean().sqrt()) < 500 * 1e-3


@pytest.mark.parametrize("unit", [1e-5, 1.0, 4000.0])
def test_a_measurement_in_any_unit_is_restored_alike(model, unit):
    physics, z = Half(unit=1e3), scene()
    y = physics.A(unit * z[None])[0]
    restored = restore_picture(
        y, task=Measured(physics), noise=1e3 * unit * NOISE, sigma=unit * NOISE, regularizer=model
    )
    error = float((restored.picture.pixels / unit - z).square().mean().sqrt())
    assert restored.converged and error < 2 * NOISE
    assert not any(n.warning for n in restored.notes)


def test_a_box_does_not_clip_what_the_blur_has_hidden(model):
    point = torch.full((1, 1, 15, 15), 100.0, dtype=torch.float64)
    point[..., 7, 7] = 9000.0
    y = deepinv.physics.Blur(KERNEL, padding="circular").A(point)
    found = icgn.deblur(y, KERNEL, 1.0, border="circular", regularizer=model, sigma=8.0, weight=1e-3, range=(0, 1000))
    assert float(found.x.max()) > 8000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y, m: icgn.denoise(255 * y, 25 / 255 / 2, regularizer=m), "divide images in 0..255"),
        (lambda y, m: icgn.deblur(255 * y, KERNEL, 2 / 255, regularizer=m), "divide images in 0..255"),
        (lambda y, m: icgn.denoise(y, 25.0, regularizer=m), "sigma: got 25"),
        (lambda y, m: icgn.denoise(y, NOISE, regularizer=m, range=(1, 0)), "range: got"),
        (lambda y, m: icgn.denoise(y, NOISE, regularizer=m, range="all"), "range: got 'all'"),
        (lambda y, m: icgn.denoise(y, NOISE, regularizer=m, range=0.5), "range: got 0.5"),
    ],
)
def test_other_units_and_ranges_are_refused_by_name(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(scene()[None], model)
