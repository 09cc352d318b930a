"""Batches of tensors: what ``icgn.deblur`` and ``icgn.inpaint`` return is the minimizer of the stated objective."""

import deepinv
import pytest
import torch

import icgn
from icgn.datasets import add_noise, bundled
from icgn.functionals import Poisson, White
from icgn.functionals.noise import Correlated
from icgn.pictures import make_kernel, read_kernel, solving
from icgn.pictures.levels import level_to_remove
from icgn.pictures.missing import nearest_known
from icgn.solvers import Status

NOISE = 2 / 255


@pytest.fixture(scope="module")
def model():
    return icgn.load_pretrained("ridge-gray-small")


def scene(side=40, pictures=2):
    image = bundled(gray=True).find("camera").image
    return torch.stack([image[:, 100 : 100 + side, left : left + side] for left in (180, 230)[:pictures]]).clone()


def blurred(kernel, **kept):
    y = deepinv.physics.Blur(kernel.float(), padding="valid").A(scene(40 + kernel.shape[-1] - 1))
    return add_noise(y, NOISE, 0).to(**kept)


def holes(pictures=1, side=40):
    return torch.rand(pictures, 1, side, side, generator=torch.Generator().manual_seed(1)) > 0.3


def inner(x, like):
    margin = (x.shape[-1] - like.shape[-1]) // 2
    return x[..., margin : x.shape[-1] - margin, margin : x.shape[-1] - margin] if margin else x


@pytest.mark.parametrize("border", ["valid", "circular"])
def test_deblurring_minimizes_the_stated_objective(model, border):
    kernel = read_kernel("gaussian:0.8")
    y = blurred(kernel, dtype=torch.float64)
    solution = icgn.deblur(y, kernel, NOISE, border=border, sigma=10 / 255, regularizer=model, gap_tol=1e-3)
    if border == "valid":
        physics = deepinv.physics.Blur(kernel, padding="valid")
    else:
        physics = deepinv.physics.BlurFFT((1, 40, 40), filter=kernel)
    problem = icgn.Problem(y, physics, model, 10 / 255, noise=NOISE, box=(0, 1))
    exact = icgn.solve(problem, gap_tol=1e-5)
    assert solution.converged and solution.x.shape == y.shape and solution.x.dtype == y.dtype
    assert torch.allclose(solution.certificate.objective, exact.certificate.objective, rtol=1e-3)
    assert (solution.x - inner(exact.x, y)).square().mean().sqrt() < 4e-3
    truth = inner(scene(40 + kernel.shape[-1] - 1), y)
    assert (solution.x - truth).square().mean() < 0.7 * (y - truth).square().mean() or border == "circular"


def test_a_kernel_of_one_pixel_is_denoising_and_the_distance_is_proved(model):
    y = add_noise(scene(), 10 / 255, 0).double()
    solution = icgn.deblur(
        y, torch.ones(1, 1), 10 / 255, sigma=10 / 255, regularizer=model, tol=1e-4, border="circular"
    )
    exact = icgn.denoise(y, 10 / 255, regularizer=model, tol=1e-6)
    distance = (solution.x - exact.x.clamp(0, 1)).square().flatten(1).mean(1).sqrt()
    assert (solution.certificate.rms_distance <= 1e-4).all()
    # The box of deblurring moves few pixels, and those but little.
    assert (distance < 3e-3).all()


def test_a_distance_over_the_whole_is_scaled_to_the_frame(model):
    whole = icgn.denoise(add_noise(scene(), NOISE, 0), NOISE, regularizer=model)
    framed = solving._framed(whole, (20, 30))
    assert torch.equal(framed.x, whole.x[..., 10:30, 5:35])
    assert torch.allclose(framed.certificate.rms_distance, whole.certificate.rms_distance * (1600 / 600) ** 0.5)
    assert framed.certificate.objective_gap is whole.certificate.objective_gap


def test_sigma_follows_the_noise_within_the_trained_range(model):
    kernel = read_kernel("gaussian:0.8")
    y = blurred(kernel)
    default = icgn.deblur(y, kernel, NOISE, regularizer=model)
    asked = icgn.deblur(y, kernel, NOISE, sigma=7.5 * NOISE, regularizer=model)
    assert torch.equal(default.x, asked.x)
    with pytest.warns(UserWarning, match=r"sigma: 7.5 times the noise.* trained range, 0.003922 to 0.1961"):
        most = icgn.deblur(y, kernel, 0.1, regularizer=model)
    assert torch.equal(most.x, icgn.deblur(y, kernel, 0.1, sigma=model.sigma_range[1], regularizer=model).x)


def test_pictures_of_a_batch_have_noise_and_masks_of_their_own(model):
    y, known, noise = add_noise(scene(), NOISE, 0), holes(2), torch.tensor([NOISE, 3 * NOISE])
    both = icgn.inpaint(y, known, noise=noise, regularizer=model)
    for i in range(2):
        one = icgn.inpaint(y[i : i + 1], known[i], noise=float(noise[i]), regularizer=model)
        assert torch.allclose(both.x[i : i + 1], one.x, atol=2e-3)


def test_what_stands_at_missing_pixels_does_not_matter(model):
    y, known = add_noise(scene(pictures=1), NOISE, 0), holes()
    filled = [
        icgn.inpaint(torch.where(known, y, value), mask, noise=NOISE, regularizer=model)
        for value, mask in ((0.0, known), (0.7, known[0]), (torch.nan, known[0, 0]), (torch.inf, known.float()))
    ]
    assert all(f.converged and torch.equal(f.x, filled[0].x) for f in filled)
    missing = ~known
    error, naive = ((x - scene(pictures=1))[missing].square().mean() for x in (filled[0].x, nearest_known(y, known)))
    assert error < naive / 2


def test_a_missing_pixel_begins_as_the_nearest_known_one():
    y = torch.arange(12.0).reshape(1, 1, 3, 4)
    known = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    known[..., 0, 0] = known[..., 2, 3] = True
    found = nearest_known(y, known)[0, 0]
    assert found[0, 1] == 0 and found[2, 2] == 11 and found[1, 3] == 11 and found[1, 0] == 0


def test_channels_may_have_masks_of_their_own():
    y = torch.arange(24.0).reshape(1, 2, 3, 4)
    known = torch.ones(1, 2, 3, 4, dtype=torch.bool)
    known[0, 0, 1, 1] = False
    found = nearest_known(y, known)
    assert found[0, 0, 1, 1] in (1, 4, 6, 9) and torch.equal(found[known], y[known])
    known[0, 1] = False  # a slice of which nothing is known takes the one beside it
    assert torch.equal(nearest_known(y, known)[0, 1, 0], y[0, 0, 0])
    options = {"noise": 0.02, "regularizer": icgn.PerChannel(icgn.TotalVariation())}
    filled = icgn.inpaint(y / 24, known, **options)
    assert filled.x.shape == y.shape and bool(torch.isfinite(filled.x).all())
    with pytest.raises(ValueError, match=r"mask: got shape .*expected \(1, 1, 3, 4\) or \(1, 2, 3, 4\)"):
        icgn.inpaint(y, torch.ones(1, 3, 3, 4, dtype=torch.bool), **options)


def test_gray_in_three_channels_is_restored_as_gray():
    y = add_noise(scene(24, 1), NOISE, 0)
    gray = icgn.inpaint(y, holes(side=24), noise=NOISE)
    colour = icgn.inpaint(y.expand(-1, 3, -1, -1), holes(side=24), noise=NOISE)
    assert torch.allclose(colour.x, gray.x.expand(-1, 3, -1, -1), atol=5e-3)
    # Some processors round the images of a batch differently.
    torch.testing.assert_close(colour.x[:, 0], colour.x[:, 1], atol=1e-6, rtol=0)


def test_a_callback_stops_it(model):
    y, known = add_noise(scene(), NOISE, 0), holes(2)
    events = []
    stopped = icgn.inpaint(
        y, known, noise=NOISE, regularizer=model, callback=lambda e: events.append(e) or len(events) == 3
    )
    assert stopped.status == (Status.STOPPED,) * 2 and len(events) == 3


IMAGE = torch.full((1, 1, 16, 16), 0.5)
KNOWN = torch.ones(16, 16, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: icgn.deblur(255 * IMAGE, "gaussian:1", 0.01, regularizer=m), ValueError, "divide images in 0..255"),
        (lambda m: icgn.inpaint(255 * IMAGE, KNOWN, noise=0.01, regularizer=m), ValueError, "divide images in 0..255"),
        (lambda m: icgn.deblur(IMAGE[0], "gaussian:1", 0.01, regularizer=m), ValueError, "y: got"),
        (lambda m: icgn.deblur(IMAGE.byte(), "gaussian:1", 0.01, regularizer=m), TypeError, "y: got torch.uint8"),
        (lambda m: icgn.deblur(IMAGE, "gaussian:1", 0.0, regularizer=m), ValueError, "noise: got"),
        (
            lambda m: icgn.deblur(IMAGE, "gaussian:1", 0.01, sigma=torch.zeros(0), regularizer=m),
            ValueError,
            "sigma: got a tensor of shape .0,.",
        ),
        (
            lambda m: icgn.denoise(1e19 * (1 + IMAGE), sigma=torch.zeros(0), regularizer=m),
            ValueError,
            "sigma: got a tensor of shape .0,.",
        ),
        (
            lambda m: icgn.inpaint(IMAGE, KNOWN, noise=torch.zeros(0), regularizer=m),
            ValueError,
            "noise: got a tensor of shape .0,.",
        ),
        (
            lambda m: icgn.deblur(IMAGE, "gaussian:1", 0.01, regularizer=m, border="odd"),
            ValueError,
            "border: got 'odd'",
        ),
        (lambda m: icgn.deblur(IMAGE, torch.ones(17, 3), 0.01, regularizer=m), ValueError, "kernel: got 17 x 3 pixels"),
        (
            lambda m: icgn.deblur(IMAGE, torch.zeros(3, 3), 0.01, regularizer=m),
            ValueError,
            "kernel: got values of sum 0",
        ),
        (
            lambda m: icgn.deblur(IMAGE, torch.ones(3), 0.01, regularizer=m),
            ValueError,
            "kernel: got torch.float32 of sh",
        ),
        (lambda m: icgn.deblur(IMAGE, [[1.0]], 0.01, regularizer=m), TypeError, "kernel: got list"),
        (lambda m: icgn.inpaint(IMAGE, ~KNOWN, noise=0.01, regularizer=m), ValueError, "without any known pixel"),
        (
            lambda m: icgn.inpaint(IMAGE, KNOWN * 255, noise=0.01, regularizer=m),
            ValueError,
            "values other than 0 and 1",
        ),
        (lambda m: icgn.inpaint(IMAGE, KNOWN[:8], noise=0.01, regularizer=m), ValueError, r"mask: got shape \(8, 16\)"),
        (
            lambda m: icgn.inpaint(IMAGE, KNOWN.expand(2, 1, 16, 16), noise=0.01, regularizer=m),
            ValueError,
            "mask: got shape",
        ),
        (lambda m: icgn.inpaint(IMAGE, "mask", noise=0.01, regularizer=m), TypeError, "mask: got str"),
        (lambda m: icgn.inpaint(IMAGE * torch.nan, KNOWN, noise=0.01, regularizer=m), ValueError, "NaN"),
        (lambda m: icgn.inpaint(IMAGE.expand(1, 2, 16, 16), KNOWN), ValueError, "y: got 2 channels"),
    ],
)
def test_bad_input_is_refused_by_name(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


def test_a_kernel_is_scaled_and_centred():
    values = torch.zeros(4, 6)
    values[2, 3:5] = 2.0
    kernel = make_kernel(values)
    assert kernel.shape == (1, 1, 1, 3) and torch.allclose(kernel[0, 0, 0], torch.tensor([0.0, 0.5, 0.5]).double())
    assert torch.equal(make_kernel(kernel), kernel)


def test_noise_is_whatever_a_problem_takes_for_one(model):
    y = add_noise(scene(pictures=1), 0.1, 0)
    expected = icgn.denoise(y, 0.1, regularizer=model).x
    levels = torch.full((1, 1, 40, 40), 0.1)
    for noise in (0.1, torch.tensor([0.1]), White(0.1), deepinv.physics.GaussianNoise(0.1)):
        assert torch.equal(icgn.denoise(y, noise=noise, regularizer=model).x, expected)
    assert torch.allclose(icgn.denoise(y, noise=levels, regularizer=model).x, expected, atol=2e-3)
    with pytest.raises(TypeError, match="noise: got dict, expected a number"):
        icgn.denoise(y, noise={}, regularizer=model)


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_noise_in_words_is_in_the_unit_of_the_pictures(model, scale):
    y, options = scale * add_noise(scene(pictures=1), 0.1, 0), {"regularizer": model, "range": (0, scale)}
    for words, same in [
        (f"white:{0.1 * scale}", White(0.1 * scale)),
        (f"{0.1 * scale}", 0.1 * scale),
        (f"correlated:{0.04 * scale},0.5", Correlated.gaussian(0.04 * scale, 0.5)),
        ("auto", icgn.estimate_noise(y[0] / scale).level * scale),
    ]:
        found = icgn.denoise(y, noise=words, **options).x
        assert torch.allclose(found, icgn.denoise(y, noise=same, **options).x, rtol=0, atol=2e-4 * scale)
    level = {"sigma": 0.1 * scale, "gap_tol": 0.05, **options}
    blurred = icgn.deblur(y, "gaussian:1", f"correlated:{0.1 * scale}", **level)
    assert torch.equal(blurred.x, icgn.deblur(y, "gaussian:1", 0.1 * scale, **level).x)
    with pytest.raises(ValueError, match="noise: got 'poison', expected auto, LEVEL or white:LEVEL"):
        icgn.denoise(y, noise="poison", **options)


def test_noise_that_is_found_counts_as_one_that_suits_the_model(model):
    """A picture of one colour has no noise, and is deblurred, filled in and of that colour afterwards."""
    y, least = torch.full((1, 1, 32, 32), 0.4), model.sigma_range[0]
    assert icgn.estimate_noise(y[0]).level == 0
    deblurred = icgn.deblur(y, "gaussian:1", "auto", regularizer=model)
    filled = icgn.inpaint(y, holes()[..., :32, :32], noise="auto", regularizer=model)
    for solution, smoothing in ((deblurred, 7.5), (filled, 6.0)):
        assert (solution.x - 0.4).abs().max() < least / smoothing, solution


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_counts_in_words_are_in_the_unit_of_the_pictures(model, gain):
    y = Poisson(gain).draw(60 * gain * scene(), torch.Generator().manual_seed(0))
    expected = icgn.denoise(y, noise=Poisson(gain), regularizer=model, tol=1e-3).x
    for words in ("poisson", f"poisson:{gain}", f"poisson-gaussian:{gain},0"):
        found = icgn.denoise(y, noise=words, regularizer=model, tol=1e-3).x
        assert torch.allclose(found, expected, rtol=0, atol=1e-3 * gain), words
    with pytest.raises(ValueError, match="no common distance as counts have, expected poisson:GAIN"):
        icgn.denoise(torch.rand(1, 1, 40, 40), noise="poisson", regularizer=model)
    known, options = holes(), {"regularizer": model, "gap_tol": 0.05, "sigma": 10 * gain}
    hidden = torch.where(known, y, 0.123)
    filled = icgn.inpaint(hidden, known, noise="poisson", **options)
    assert torch.allclose(filled.x, icgn.inpaint(hidden, known, noise=Poisson(gain), **options).x)


def test_the_level_that_is_found_is_the_one_that_is_removed(model):
    clean = bundled(gray=True).find("camera").image
    g = torch.Generator().manual_seed(0)
    found = icgn.estimate_noise(Correlated.gaussian(0.05, 0.6).draw(clean[None], g)[0])
    assert level_to_remove(found.noise, clean[None]).item() == pytest.approx(found.sigma)


def test_described_noise_of_a_measurement_has_its_root_mean_square(model):
    noise, known = Poisson(1 / 200), holes()
    clean, options = scene(), {"regularizer": model, "gap_tol": 0.05, "sigma": 0.1}
    y = noise.draw(clean, torch.Generator().manual_seed(0))
    level = (y / 200).mean((1, 2, 3)).sqrt()
    found = icgn.deblur(y, "gaussian:1", noise, border="circular", **options)
    same = icgn.deblur(y, "gaussian:1", level, border="circular", **options)
    torch.testing.assert_close(found.x, same.x)
    # What stands under the mask does not count.
    level = torch.stack([(p[known[0]] / 200).mean().sqrt() for p in y])
    found = icgn.inpaint(y.masked_fill(~known, 40.0), known, noise=noise, range=(0, 1), **options)
    same = icgn.inpaint(y, known, noise=level, range=(0, 1), **options)
    torch.testing.assert_close(found.x, same.x)


def test_a_map_of_levels_weights_the_measurement(model):
    y, levels = add_noise(scene(pictures=1), 0.02, 0), torch.full((1, 1, 40, 40), 0.02)
    levels[..., 20:] = 0.2
    found = icgn.deblur(y, "gaussian:1", levels, border="circular", sigma=0.1, regularizer=model, gap_tol=1e-3)
    kernel, weight = read_kernel("gaussian:1").double(), (0.1 / levels.double()).square()
    physics = deepinv.physics.BlurFFT((1, 40, 40), filter=kernel).double()

    def objective(x):
        return float((weight * (physics.A(x) - y).square()).sum() / 2 + model.double().fn(x, 0.1))

    try:
        x, g = found.x.double(), torch.Generator().manual_seed(0)
        for _ in range(10):
            other = (x + 0.02 * torch.randn(x.shape, generator=g, dtype=torch.float64)).clamp(0, 1)
            assert objective(x) <= objective(other)
        assert objective(x) == pytest.approx(float(found.certificate.objective[0]), rel=1e-4)
    finally:
        model.float()


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_noise_between_scattered_missing_pixels_is_found(share):
    clean = bundled(gray=True).find("camera").image[:, 60:220, 120:300]
    y = add_noise(clean, 0.06, 0)
    missing = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < share
    assert 0.045 < icgn.estimate_noise(y.masked_fill(missing, torch.nan)).level < 0.075
