"""``icgn deblur``, ``icgn inpaint`` and ``icgn restore``, run as on the command line, with the shipped small model."""

import math
import re

import deepinv
import numpy as np
import pytest
import safetensors.torch
import scipy.signal
import tifffile
import torch

import icgn
from icgn.cli.options import parse_weight
from icgn.datasets import Picture, add_noise, bundled, read_picture, write_picture
from icgn.pictures import Deblur, load_kernel, read_kernel, restore_picture

# Two threads on pictures this small wait for each other, above all on a busy machine.

# A sigma above the noise and a loose gap: the mathematics is the same, and a fraction of the iterations suffices.
QUICK = ["--model", "ridge-gray-small", "--gap", "0.05", "--noise", "2", "--sigma", "8"]
MARGIN, SIDE = 8, 48
FACTORY = """
import deepinv

def half(img_size, device):
    c, h, w = img_size
    return deepinv.physics.Downsampling(img_size=(c, 2 * h, 2 * w), filter="bilinear", factor=2, device=device)

def nothing(img_size, device):
    return None

def whole(img_size, device):
    return deepinv.physics.Downsampling(img_size=(1, 30, 30), filter=None, factor=2, device=device)

class Complex(deepinv.physics.LinearPhysics):
    def A(self, x, **kwargs):
        return x.real

    def A_adjoint(self, y, **kwargs):
        return y + 0j

def waves(img_size, device):
    return Complex()

def fails(img_size, device):
    raise KeyError("no such camera")

NUMBER = 3
"""


def scene(gray=True):
    """A photograph with a margin around the frame."""
    name, top, left = ("camera", 100, 200) if gray else ("coffee", 60, 200)
    side = SIDE + 2 * MARGIN
    return bundled(gray=gray).find(name).image[:, top : top + side, left : left + side].clone()


def clean(gray=True):
    return scene(gray)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def blurred(kernel, gray=True, border="valid"):
    """The frame of the blurred scene, by scipy, with noise of two gray levels."""
    k = read_kernel(str(kernel))[0, 0].numpy()
    if border == "valid":
        planes = [scipy.signal.convolve2d(c, k, mode="same") for c in scene(gray).double()]
        y = torch.from_numpy(np.stack(planes))[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    else:
        planes = [scipy.signal.convolve2d(c, k, mode="same", boundary="wrap") for c in clean(gray).double()]
        y = torch.from_numpy(np.stack(planes))
    return add_noise(y.float(), 2 / 255, 1)


def picture(path, pixels, bits=16, **kept):
    write_picture(path, Picture(pixels, bits=bits, **kept))
    return path


def holes():
    known = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) > 0.4
    known[:, 20:26, 20:26] = False
    return known


def lopsided():
    """A kernel that is no mirror image of itself, of even sides and away from its centre."""
    kernel = np.zeros((6, 8))
    kernel[3, 4:7], kernel[4, 6] = (3, 2, 1), 2
    return kernel


def psnr(pixels, truth):
    return -10 * math.log10(float((pixels - truth).square().mean()))


def gain(source, target, truth):
    return psnr(read_picture(target).pixels, truth) - psnr(read_picture(source).pixels, truth)


def proved(result, name):
    """The cell of the table."""
    return re.search(rf"{re.escape(name)}\s+\S+\s+\S+\s+\S+\s+(gap \S+|\S+)", result.stdout).group(1)


# Deblurring


@pytest.mark.parametrize(
    ("kernel", "border", "least"),
    [
        ("gaussian:1.2", "valid", 1.5),
        ("gaussian:1.2", "circular", 1.5),
        ("motion:7,30", "valid", 2.5),
        ("k.npy", "valid", 2),
        ("k.npy", "circular", 2),
        ("k.png", "valid", 2),
    ],
)
def test_deblurring_improves_the_picture(tmp_path, run, monkeypatch, kernel, border, least):
    monkeypatch.chdir(tmp_path)
    np.save("k.npy", lopsided())
    picture(tmp_path / "k.png", torch.from_numpy(lopsided()).float()[None] / 3)
    source = picture(tmp_path / "in.png", blurred(kernel, border=border))
    reference = picture(tmp_path / "clean.png", clean())
    result = run(
        "deblur", source, "--kernel", kernel, "-o", "o.png", "--border", border, "--reference", reference, *QUICK
    )
    assert result.exit_code == 0, result.output
    assert gain(source, tmp_path / "o.png", clean()) > least
    assert "gap met" in result.stdout and "8.00" in result.stdout and "blurred > restored" in result.stdout
    assert proved(result, "in.png").startswith("gap ") and float(proved(result, "in.png")[4:]) <= 0.05


@pytest.mark.parametrize(
    ("command", "sigma"), [("deblur --kernel gaussian:1", 7.5 * 2), ("inpaint --mask mask.png", 6.0 * 2)]
)
def test_a_task_has_its_own_smoothing_within_the_trained_range(tmp_path, run, monkeypatch, command, sigma):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "mask.png", holes().float())
    source = picture(tmp_path / "in.png", blurred("gaussian:1"))
    quick = ["--model", "ridge-gray-small", "--gap", "0.05", "-o", "o.png"]
    result = run(*command.split(), source, *quick, "--noise", 2)
    assert result.exit_code == 0 and f" {sigma:.2f} " in result.stdout
    assert " 50.00 " in run(*command.split(), source, *quick, "--noise", 20).stdout
    assert " 3.00 " in run(*command.split(), source, *quick, "--noise", 2, "--sigma", 3).stdout


@pytest.mark.parametrize("border", ["valid", "circular"])
def test_the_blur_is_a_convolution_centred_in_the_kernel(tmp_path, border):
    np.save(tmp_path / "k.npy", lopsided())
    kernel = read_kernel(str(tmp_path / "k.npy"))
    x = scene()[None].double()
    r = [s // 2 for s in kernel.shape[-2:]]
    inside = (..., slice(r[0], -r[0]), slice(r[1], -r[1]))
    pose = Deblur(kernel, border=border).pose(x[inside] if border == "valid" else x)
    measured = pose.physics.A(x)
    expected = scipy.signal.convolve2d(x[0, 0], lopsided() / lopsided().sum(), mode="full")
    # In the full convolution the centre (3, 4) of the kernel moves every pixel by (3, 4).
    expected = torch.from_numpy(expected[3 : 3 + x.shape[-2], 4 : 4 + x.shape[-1]])
    measured = measured[0, 0] if border == "valid" else measured[0, 0][inside]
    assert torch.allclose(measured, expected[inside], atol=1e-12)


def test_a_colour_picture_keeps_alpha_and_depth(tmp_path, run):
    alpha = torch.rand(1, SIDE, SIDE).mul(255).round() / 255
    source = picture(tmp_path / "in.png", blurred("gaussian:1", gray=False), alpha=alpha)
    result = run("deblur", source, "--kernel", "gaussian:1", "-o", tmp_path / "o.png", *QUICK)
    after = read_picture(tmp_path / "o.png")
    assert result.exit_code == 0 and gain(source, tmp_path / "o.png", clean(gray=False)) > 1
    assert after.bits == 16 and torch.allclose(after.alpha, alpha, atol=1e-4)


def test_the_gap_is_that_of_the_file(tmp_path):
    """The certificate of all channels together: F of the result exceeds that of no other picture by more."""
    kernel = read_kernel("gaussian:0.8")
    y = blurred("gaussian:0.8", gray=False)
    model = icgn.load_pretrained("ridge-gray-small")
    task = Deblur(kernel, border="circular")
    result = restore_picture(y, task=task, noise=2 / 255, sigma=8 / 255, regularizer=model, gap_tol=0.05)
    pose = task.pose(y[:, None])
    problem = icgn.Problem(pose.y, pose.physics, model, sigma=8 / 255, noise=2 / 255, box=(0, 1))
    x = result.picture.pixels[:, None]
    best = icgn.solve(problem, gap_tol=1e-3, x0=x)
    values = [float(problem.objective.fn(x.double()).sum()) for x in (x, best.x)]
    assert result.iterations > 0 and 0 <= result.relative_gap <= 0.05
    assert values[0] - values[1] <= result.relative_gap * values[0] + 1e-6


def test_noise_is_estimated_and_weight_is_a_factor(tmp_path, run):
    source = picture(tmp_path / "in.png", add_noise(clean(), 5 / 255, 0))
    quick = ["--model", "ridge-gray-small", "--kernel", "gaussian:0.3", "--tol", "1e-3"]
    smooth = []
    for weight in ("0", "1", "5"):
        result = run("deblur", source, "-o", tmp_path / "o.png", *quick, "--weight", weight)
        assert result.exit_code == 0 and re.search(r"noise estimated: white, \d+\.\d+ gray levels", result.stderr)
        smooth.append(float(read_picture(tmp_path / "o.png").pixels.diff(dim=2).square().mean()))
    assert smooth[0] > smooth[1] > smooth[2]


def test_a_blur_that_is_hardly_one_is_proved_in_gray_levels(tmp_path, run):
    source = picture(tmp_path / "in.png", blurred("gaussian:0.3", border="circular"))
    result = run("deblur", source, "--kernel", "gaussian:0.3", "--border", "circular", "-o", tmp_path / "o.png", *QUICK)
    assert result.exit_code == 0 and float(proved(result, "in.png")) <= 255e-4 and "; gap" not in result.stdout


# Kernels


def test_kernels_have_sum_one_and_odd_sides(tmp_path):
    np.save(tmp_path / "wide.npy", np.pad(np.ones((2, 2)), 20))
    for text in ("gaussian:0.1", "gaussian:2", "motion:1,0", "motion:6.5,123", f"{tmp_path}/wide.npy"):
        kernel = load_kernel(text).values
        assert kernel.dtype is torch.float64 and all(s % 2 for s in kernel.shape[-2:])
        assert float(kernel.sum()) == pytest.approx(1) and float(kernel.min()) >= 0
    # The centre of 42 pixels is the 22nd: the zeros around are cut off, as far as the centre allows.
    assert kernel.shape[-2:] == (3, 3) and float(kernel[0, 0, :2, :2].min()) == pytest.approx(0.25)


def test_a_kernel_with_a_black_level_deblurs_and_this_is_said(tmp_path, run):
    source = picture(tmp_path / "in.png", blurred("gaussian:1.2"))
    k = torch.nn.functional.pad(read_kernel("gaussian:1.2")[0], [8] * 4)
    picture(tmp_path / "k.png", (0.9 * k / k.max() + 0.06).float(), bits=8)
    result = run("deblur", source, "--kernel", tmp_path / "k.png", "-o", tmp_path / "o.png", *QUICK)
    assert result.exit_code == 0 and gain(source, tmp_path / "o.png", clean()) > 1.5
    assert "a background of 15 subtracted (the median of its border)" in result.stderr


def test_a_kernel_that_shifts_the_picture_is_warned_about_once(tmp_path, run):
    (tmp_path / "in").mkdir()
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png", blurred("gaussian:1"))
    np.save(tmp_path / "k.npy", np.ones((4, 4)))
    result = run("deblur", tmp_path / "in", "--kernel", tmp_path / "k.npy", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0 and result.stderr.count("warning: --kernel ") == 1
    assert "the centre is taken at row 2 and column 2" in result.stderr


@pytest.mark.parametrize(("length", "angle"), [(7, 0), (7, 90), (5, 30), (9.5, -60)])
def test_motion_is_a_straight_path_of_its_length_and_angle(length, angle):
    kernel = read_kernel(f"motion:{length},{angle}")[0, 0]
    rows, columns = (torch.arange(s, dtype=torch.float64) - s // 2 for s in kernel.shape)
    mean = [float((kernel.sum(1) * rows).sum()), float((kernel.sum(0) * columns).sum())]
    assert mean == pytest.approx([0, 0], abs=1e-9)
    vertical, horizontal = -rows[:, None] * kernel, columns * kernel
    covariance = float((vertical * columns).sum())
    # A segment of length L has variance L^2 / 12 along it; sharing points bilinearly leaves the covariance as it is.
    a = math.radians(angle)
    assert covariance == pytest.approx(length**2 / 12 * math.sin(a) * math.cos(a), rel=0.02, abs=1e-9)
    spread = float((horizontal * columns).sum()), float((-vertical * rows[:, None]).sum())
    assert spread[0] == pytest.approx(length**2 / 12 * math.cos(a) ** 2, abs=0.26)
    assert spread[1] == pytest.approx(length**2 / 12 * math.sin(a) ** 2, abs=0.26)


def test_weight_is_a_number():
    assert parse_weight("2.5") == 2.5 and parse_weight("0") == 0
    for text in ("-1", "nan", "inf", "much"):
        with pytest.raises(ValueError, match=f"--weight: got '{text}'"):
            parse_weight(text)


# Inpainting


@pytest.mark.parametrize("gray", [True, False])
def test_inpainting_fills_the_holes(tmp_path, run, gray):
    known = holes()
    alpha = torch.rand(1, SIDE, SIDE).mul(255).round() / 255
    source = picture(tmp_path / "in.png", clean(gray) * known, alpha=alpha)
    mask = picture(tmp_path / "mask.png", known * 127.6 / 255, bits=8)
    reference = picture(tmp_path / "clean.png", clean(gray))
    quick = [*QUICK, "--noise", "1", "--compare", tmp_path / "fig.png", "--reference", reference]
    result = run("inpaint", source, "--mask", mask, "-o", tmp_path / "o.png", *quick)
    after = read_picture(tmp_path / "o.png")
    assert result.exit_code == 0, result.output
    assert psnr(after.pixels, clean(gray)) > 24 and psnr(after.pixels[:, known[0]], clean(gray)[:, known[0]]) > 35
    assert after.bits == 16 and torch.allclose(after.alpha, alpha, atol=1e-4)
    assert proved(result, "in.png").startswith("gap ") and "masked > restored" in result.stdout
    assert read_picture(tmp_path / "fig.png").pixels.shape[-1] > 4 * SIDE


def test_what_stands_in_the_holes_does_not_matter(tmp_path, run):
    known = holes()
    mask = picture(tmp_path / "mask.png", known.float(), bits=8)
    for name, filling in (("a", 0.0), ("b", 1.0)):
        source = picture(tmp_path / f"{name}.png", torch.where(known, clean(), filling))
        assert run("inpaint", source, "--mask", mask, "-o", tmp_path / f"{name}-o.png", *QUICK).exit_code == 0
    assert torch.equal(read_picture(tmp_path / "a-o.png").pixels, read_picture(tmp_path / "b-o.png").pixels)


def test_masks_of_a_folder_are_found_by_name(tmp_path, run):
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png", clean()[:, :24, :24])
    picture(tmp_path / "masks" / "a.png", torch.ones(1, 24, 24))
    picture(tmp_path / "masks" / "b.tif", holes()[:, 10:34, 10:34].float())
    result = run("inpaint", tmp_path / "in", "--mask", tmp_path / "masks", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 1 and re.search(r"--mask \S+masks: got no mask for \S+c\.png", result.stderr)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    # Everything known: denoising, which is strongly convex.
    assert float(proved(result, "a.png")) <= 255e-4


# Any physics


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "camera.py").write_text(FACTORY)
    return f"{tmp_path / 'camera.py'}:half"


def halved(gray=True):
    physics = deepinv.physics.Downsampling(img_size=tuple(clean(gray).shape), filter="bilinear", factor=2)
    return add_noise(physics.A(clean(gray)[None])[0], 2 / 255, 1)


@pytest.mark.parametrize("gray", [True, False])
def test_restoring_a_picture_from_a_smaller_one(tmp_path, run, factory, gray):
    source = picture(tmp_path / "in.png", halved(gray), alpha=torch.ones(1, SIDE // 2, SIDE // 2))
    reference = picture(tmp_path / "clean.png", clean(gray))
    figure = tmp_path / "fig.png"
    arguments = ["--physics", factory, "--reference", reference, "--compare", figure, *QUICK]
    result = run("restore", source, "-o", tmp_path / "o.png", *arguments)
    assert result.exit_code == 0, result.output
    after = read_picture(tmp_path / "o.png")
    nearest = halved(gray).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert after.pixels.shape == clean(gray).shape and after.bits == 16 and figure.exists()
    assert psnr(after.pixels, clean(gray)) > psnr(nearest, clean(gray)) + 1
    # The measurement has another size: no quality before.
    assert re.search(r" ->\d\d\.\d\d +->0\.\d", result.stdout) and "measured > restored" in result.stdout
    assert after.alpha is None and "transparency is left out" in result.stderr


def test_a_tensor_restores_like_the_picture(tmp_path, run, factory):
    y = halved()
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "a.npy", y[0].double().numpy())
    torch.save(y[None], folder / "b.pt")
    safetensors.torch.save_file({"y": y}, folder / "c.safetensors")
    result = run("restore", folder, "-o", tmp_path / "out", "--physics", factory, *QUICK)
    assert result.exit_code == 0, result.output
    found = [read_picture(tmp_path / "out" / f"{n}.png") for n in "abc"]
    assert all(f.bits == 16 and torch.allclose(f.pixels, found[0].pixels, atol=2e-4) for f in found)
    assert psnr(found[0].pixels, clean()) > 20
    assert run("restore", folder / "a.npy", "-o", folder / "a.png", "--physics", factory, *QUICK).exit_code == 0


@pytest.mark.parametrize(("scale", "low"), [(1e-5, 0.0), (300.0, 0.0), (0.05, 0.0), (1.0, -0.5)])
def test_a_measurement_of_another_unit_keeps_it(tmp_path, run, scale, low):
    (tmp_path / "same.py").write_text(
        "import deepinv\ndef same(img_size, device): return deepinv.physics.Denoising()\n"
    )
    np.save(tmp_path / "y.npy", scale * add_noise(clean(), 5 / 255, 0)[0].double().numpy() + low)
    noise = 5 * scale
    asked = ["--physics", f"{tmp_path}/same.py:same", "--model", "ridge-gray-small", "--noise", noise, "--sigma", noise]
    result = run("restore", tmp_path / "y.npy", "-o", tmp_path / "r.npy", *asked)
    assert result.exit_code == 0, result.output
    assert psnr((torch.from_numpy(np.load(tmp_path / "r.npy")).float() - low) / scale, clean()[0]) > 30
    result = run("restore", tmp_path / "y.npy", "-o", tmp_path / "r.png", *asked)
    if scale == 0.05:
        assert result.exit_code == 0 and psnr(read_picture(tmp_path / "r.png").pixels / scale, clean()) > 30
    else:
        assert result.exit_code == 1 and "write .tif or .npy" in result.stderr and not (tmp_path / "r.png").exists()


def test_a_physics_without_float64_is_used_as_it_is(tmp_path, run):
    code = (
        "import deepinv, torch\n"
        "class Single(deepinv.physics.LinearPhysics):\n"
        "    def A(self, x, **kw):\n        return x.float() / 2\n"
        "    def A_adjoint(self, y, **kw):\n        return y.float() / 2\n"
        "def make(img_size, device):\n    return Single()\n"
    )
    (tmp_path / "single.py").write_text(code)
    source = picture(tmp_path / "in.png", add_noise(clean() / 2, 2 / 255, 0))
    result = run("restore", source, "-o", tmp_path / "o.png", "--physics", f"{tmp_path}/single.py:make", *QUICK)
    assert result.exit_code == 0 and psnr(read_picture(tmp_path / "o.png").pixels, clean()) > 25, result.output


# Errors: command, arguments, exit code, and the words that must be told


ERRORS = [
    ("deblur --kernel none.png", 2, "--kernel none.png: no such file"),
    ("deblur --kernel text.png", 2, "--kernel text.png"),
    ("deblur --kernel gaussian:0", 2, "--kernel gaussian:0: got 0"),
    ("deblur --kernel gaussian:x", 2, "--kernel gaussian:x: got 'x', expected 1 number"),
    ("deblur --kernel motion:5", 2, "--kernel motion:5: got '5', expected 2 numbers"),
    ("deblur --kernel motion:-5,0", 2, "--kernel motion:-5,0: got -5,0"),
    ("deblur --kernel motion:5,nan", 2, "--kernel motion:5,nan"),
    ("deblur --kernel zero.npy", 2, "--kernel zero.npy: got values of sum 0, expected a positive sum"),
    ("deblur --kernel black.png", 2, "--kernel black.png: got values of sum 0"),
    ("deblur --kernel negative.npy", 2, "--kernel negative.npy: got values of sum -9"),
    ("deblur --kernel nan.npy", 2, "--kernel nan.npy: got 1 NaN or infinite"),
    ("deblur --kernel flat.npy", 2, "--kernel flat.npy: cannot be read: the array has shape (3,)"),
    ("deblur --kernel objects.npy", 2, "--kernel objects.npy"),
    ("deblur --kernel big.npy", 1, "in.png: --kernel: got 31 x 31 pixels, expected at most the 24 x 24"),
    ("deblur --kernel gaussian:1 --border odd", 2, "--border"),
    ("deblur --kernel gaussian:1 --noise 0", 2, "--noise: got '0', expected a level above 0"),
    ("deblur --kernel gaussian:1 --noise nan", 2, "--noise: got 'nan'"),
    ("deblur --kernel gaussian:1 --sigma -1", 2, "--sigma: got -1"),
    ("deblur --kernel gaussian:1 --gap 0", 2, "--gap: got 0"),
    ("deblur --kernel gaussian:1 --tol inf", 2, "--tol: got inf"),
    ("deblur --kernel gaussian:1 --weight -2", 2, "--weight: got '-2'"),
    ("deblur --kernel gaussian:1 --model ridge-color", 1, "use --model conditional-gray"),
    ("deblur --kernel gaussian:1 --model none", 2, "none"),
    ("deblur", 2, "--kernel"),
    ("inpaint --mask none.png", 2, "--mask"),
    ("inpaint --mask black.png", 2, "--mask black.png: hides every pixel"),
    ("inpaint --mask wide.png", 1, "--mask wide.png: got 24 x 30 pixels, expected 24 x 24"),
    ("inpaint --mask out.png", 2, "would overwrite"),
    ("inpaint --mask empty", 2, "--mask: empty: no picture in this folder"),
    ("restore --physics camera.py", 2, "--physics: got 'camera.py', expected FILE.py:factory"),
    ("restore --physics none.py:f", 2, "--physics none.py:f: none.py: no such file"),
    ("restore --physics camera.py:full", 2, "--physics camera.py:full: no function 'full', expected one of half"),
    ("restore --physics camera.py:NUMBER", 2, "--physics camera.py:NUMBER: no function"),
    ("restore --physics broken.py:f", 2, "--physics broken.py:f: cannot be imported: SyntaxError"),
    ("restore --physics text.png:f", 2, "--physics text.png:f"),
    ("restore --physics camera.py:nothing", 1, "--physics camera.py:nothing: returned NoneType, expected a deepinv"),
    ("restore --physics camera.py:fails", 1, "--physics camera.py:fails: failed on (1, 24, 24): KeyError"),
    ("restore --physics camera.py:whole", 1, "--physics camera.py:whole: does not take shape (1, 1, 24, 24)"),
    ("restore --physics camera.py:waves", 1, "--physics camera.py:waves: A_adjoint gives torch.complex64"),
    ("restore --physics camera.py:half --reference in2.png", 1, "in2.png: got 1 x 24 x 24"),
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the files that the table of errors names."""
    monkeypatch.chdir(tmp_path)
    picture("in.png", clean()[:, :24, :24])
    picture("in2.png", clean()[:, :24, :24])
    picture("black.png", torch.full((1, 24, 24), 0.0))
    picture("wide.png", torch.ones(1, 24, 30))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "camera.py").write_text(FACTORY)
    bad = np.ones((3, 3))
    np.save("negative.npy", -bad)
    np.save("zero.npy", bad * 0)
    np.save("big.npy", np.ones((31, 31)))
    np.save("flat.npy", bad[0])
    np.save("objects.npy", np.array([[{}]]), allow_pickle=True)
    bad[1, 1] = np.nan
    np.save("nan.npy", bad)
    return tmp_path


@pytest.mark.parametrize(("words", "code", "message"), ERRORS)
def test_errors_name_the_argument_and_write_nothing(desk, run, words, code, message):
    command, *arguments = words.split()
    model = [] if "--model" in arguments else ["--model", "ridge-gray-small"]
    result = run(command, "in.png", "-o", "out.png", *arguments, *model)
    assert result.exit_code == code and message in result.output, result.output
    assert not (desk / "out.png").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2, 1, 8, 8), "got 2 measurements"),
        (torch.zeros(1, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.zeros(0, 8, 8), "expected nonempty"),
        ({"y": torch.zeros(1, 8, 8)}, "got dict, expected one tensor"),
        (print, "cannot be read"),
        (torch.full((1, 24, 24), torch.nan), "NaN"),
    ],
)
def test_measurements_that_are_none(desk, run, content, message):
    torch.save(content, "y.pt")
    result = run("restore", "y.pt", "-o", "out.png", "--physics", "camera.py:half", *QUICK)
    assert result.exit_code == 1 and "y.pt" in result.stderr and message in result.stderr, result.output
    assert not (desk / "out.png").exists()


def test_a_tensor_needs_its_noise_level(desk, run):
    torch.save(torch.zeros(1, 24, 24), "y.pt")
    result = run("restore", "y.pt", "-o", "out.png", "--physics", "camera.py:half", "--model", "ridge-gray-small")
    assert result.exit_code == 1 and "--noise: got none for y.pt" in result.stderr


def test_measurements_take_noise_in_words(desk, run):
    """A level means the same in words, counts are in values of the tensor, and none can be found in a tensor."""
    counts = torch.poisson(200 * torch.from_numpy(halved().numpy()).clamp_min(0), torch.Generator().manual_seed(0))
    torch.save(counts, "y.pt")
    command = ["restore", "y.pt", "-o", "out.npy", "--physics", "camera.py:half", "--model", "ridge-gray-small"]
    command += ["--gap", "0.05", "--sigma", 8 * 10 * 255]

    def restored(noise):
        result = run(*command, "--noise", noise)
        assert result.exit_code == 0, result.output
        return np.load("out.npy"), result.output

    (plain, _), (white, _), (shot, said) = restored(10 * 255), restored(f"white:{10 * 255}"), restored("poisson:1")
    assert np.array_equal(plain, white) and "counts" in said
    level = float(counts.mean().sqrt())
    assert np.abs(shot - restored(f"{level * 255!r}")[0]).max() < 1e-3 * np.ptp(plain)
    result = run(*command, "--noise", "auto")
    assert result.exit_code == 1 and "--noise: got auto for y.pt" in result.stderr


def test_nothing_that_is_read_is_overwritten(desk, run):
    np.save("y.npy", halved().numpy())
    before = {f: f.read_bytes() for f in desk.iterdir() if f.is_file()}
    for arguments in (
        ["deblur", "in.png", "--kernel", "gaussian:1", "-o", "in.png"],
        ["deblur", "in.png", "--kernel", "in2.png", "-o", "in2.png"],
        ["inpaint", "in.png", "--mask", "in2.png", "-o", "in2.png"],
        ["inpaint", "in.png", "--mask", "in2.png", "-o", "o.png", "--compare", "in2.png"],
        ["restore", "in.png", "--physics", "camera.py:half", "-o", "in.png"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and "would overwrite" in result.stderr, arguments
    assert before == {f: f.read_bytes() for f in before}


@pytest.mark.parametrize("rule", ["discrepancy", "sure"])
def test_a_rule_finds_the_weight_and_says_it(tmp_path, run, rule):
    source = picture(tmp_path / "in.png", add_noise(blurred("gaussian:1"), 2 / 255, 0))
    result = run("deblur", source, "-o", tmp_path / "o.png", *QUICK, "--kernel", "gaussian:1", "--weight", rule)
    assert result.exit_code == 0
    found = re.search(rf"weight (\S+), found by {rule}", result.stderr)
    assert found and float(found[1]) > 0


def test_levels_that_are_small_are_shown_by_two_digits(tmp_path, run):
    counts = 100 + 20 * add_noise(clean(), 0.1, 0)[0].numpy()
    tifffile.imwrite(tmp_path / "in.tif", counts.round().astype(np.uint16))
    source = [tmp_path / "in.tif", "-o", tmp_path / "out.tif", "--model", "ridge-gray-small"]
    sigma, _, _, proved = re.search(r"in\.tif +(\S+) +(\S+) +(\S+) +(\S+)", run("denoise", *source).stdout).groups()
    assert 0 < float(sigma) < 0.1 and 0 < float(proved) < 1e-3
    assert len(sigma.lstrip("0.")) == 2


@pytest.mark.parametrize(("most", "kind", "warned"), [(5, "u2", True), (60, "u2", False), (5, "f4", False)])
def test_few_counts_that_are_rounded_are_warned_about(tmp_path, run, most, kind, warned):
    counts = np.random.default_rng(0).poisson(most * clean()[0].double().numpy())
    np.save(tmp_path / "in.npy", counts.astype(kind))
    model = ["--model", "ridge-gray-small", "--noise", "poisson"]
    result = run("denoise", tmp_path / "in.npy", "-o", tmp_path / "out.npy", *model)
    assert result.exit_code == 0 and ("rounded to whole numbers" in result.stderr) == warned


def test_the_noise_of_a_measurement_is_told_in_words(tmp_path, run):
    counts = np.random.default_rng(0).poisson(100 * scene()[0].numpy())
    tifffile.imwrite(tmp_path / "y.tif", (3 * counts).astype(np.uint16))
    options = [tmp_path / "y.tif", "-o", tmp_path / "x.tif", "--model", "ridge-gray-small", "--gap", "0.1"]
    told = run("deblur", *options, "--kernel", "gaussian:1", "--noise", "poisson:3")
    assert told.exit_code == 0 and "each, whose noise is taken for even" in told.output
    first = tifffile.imread(tmp_path / "x.tif").astype(float)
    found = run("deblur", *options, "--kernel", "gaussian:1", "--noise", "poisson")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "x.tif"), first, atol=1)
    wrong = run("deblur", *options, "--kernel", "gaussian:1", "--noise", "shot")
    assert found.exit_code == 0 and wrong.exit_code == 2 and "--noise: got 'shot', expected auto" in wrong.output
    mask = np.full(counts.shape, 255, np.uint8)
    mask[10:14] = 0
    write_picture(tmp_path / "m.png", Picture(torch.from_numpy(mask[None] / 255)))
    filled = run("inpaint", *options, "--mask", tmp_path / "m.png", "--noise", "poisson:3")
    assert filled.exit_code == 0 and "each, whose noise is taken" in filled.output
