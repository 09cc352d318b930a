import importlib.metadata
import io
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from rich.console import Console

import icgn
import icgn.regularizers
from icgn.cli import restoring, screen, single
from icgn.datasets import Picture, add_noise, bundled, read_picture, seed_of, write_picture
from icgn.pictures import models as picture_models
from icgn.pictures import solving
from icgn.regularizers import RidgeICGN

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CROP = (slice(None), slice(100, 148), slice(200, 264))


class Denoiser(RidgeICGN):
    """An untrained model that removes noise visibly, in the place of the shipped ones."""

    def __init__(self, channels):
        super().__init__(filters=8, size=5, channels=channels)
        with torch.no_grad():
            self.log_lambda += 3.0


# Two threads on pictures this small wait for each other, above all on a busy machine.


@pytest.fixture(autouse=True)
def models(monkeypatch):
    torch.manual_seed(0)
    known = {"conditional-gray": Denoiser(1), "conditional-color": Denoiser(3)}

    def load(name, device="cpu"):
        if name not in known:
            raise ValueError(f"model: got {name!r}, expected one of {', '.join(known)}")
        return known[name].to(device).requires_grad_(False)

    for name in ("load_pretrained", "load_regularizer"):
        monkeypatch.setattr(picture_models, name, load)
    return known


def photograph(gray=True):
    return bundled(gray=gray).find("camera" if gray else "coffee").image[CROP].clone()


def noisy_file(path, gray=True, sigma=25, bits=8, **kept):
    write_picture(path, Picture(add_noise(photograph(gray), sigma / 255, 1), bits=bits, **kept))
    return path


def psnr(path, clean):
    return float(-10 * torch.log10((read_picture(path).pixels - clean).square().mean()))


# Results


@pytest.mark.parametrize("gray", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_denoises_and_keeps_the_format(tmp_path, run, gray, suffix):
    deep = suffix != ".jpg"
    alpha = torch.rand(1, 48, 64).mul(255).round() / 255 if deep else None
    source = noisy_file(tmp_path / f"in{suffix}", gray, bits=16 if deep else 8, alpha=alpha, icc=None if gray else SRGB)
    target = tmp_path / f"out{suffix}"
    result = run("denoise", source, "-o", target, "--sigma", 25)
    assert result.exit_code == 0, result.output
    before, after = read_picture(source), read_picture(target)
    assert after.bits == before.bits and after.icc == before.icc and after.pixels.shape == before.pixels.shape
    assert alpha is None or torch.equal(after.alpha, before.alpha)
    assert psnr(target, photograph(gray)) > psnr(source, photograph(gray)) + 1
    assert "25.00" in result.stdout and "converged" in result.stdout


def test_the_file_is_the_certified_solution(tmp_path, run, models):
    source = noisy_file(tmp_path / "in.png", bits=16)
    assert run("denoise", source, "-o", tmp_path / "out.png", "--sigma", 25).exit_code == 0
    solution = icgn.denoise(read_picture(source).pixels[None], 25 / 255, regularizer=models["conditional-gray"])
    written = read_picture(tmp_path / "out.png").pixels
    assert (written - solution.x[0].clamp(0, 1)).abs().max() < 0.51 / 65535 + 1e-6


def test_the_weight_is_given_or_found(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    written = {}
    for weight in ("1", "1.5", "sure"):
        target = tmp_path / f"{weight}.png"
        result = run("denoise", source, "-o", target, "--sigma", 25, "--weight", weight)
        assert result.exit_code == 0 and ("found by sure" in result.stderr) == (weight == "sure")
        written[weight] = psnr(target, photograph())
    assert written["1.5"] != written["1"] and written["sure"] > max(written["1"], written["1.5"]) - 0.3


def test_the_old_name_of_the_weight_works_with_a_warning_and_is_not_shown(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    for name, options in {"old": ["--strength", "1.5"], "joined": ["--strength=1.5"], "new": ["--weight=1.5"]}.items():
        result = run("denoise", source, "-o", tmp_path / f"{name}.png", "--sigma", 25, *options)
        assert result.exit_code == 0 and ("--strength is --weight now" in result.stderr) == (name != "new")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("old", "joined", "new")}) == 1
    assert "--weight" in run("denoise", "--help").stdout and "--strength" not in run("denoise", "--help").stdout


def test_a_gray_model_takes_each_channel(tmp_path, run, models):
    source = noisy_file(tmp_path / "in.png", gray=False, bits=16)
    assert run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 25, "--model", "conditional-gray").exit_code == 0
    channels = read_picture(source).pixels[:, None]
    expected = torch.cat(
        [icgn.denoise(c[None], 25 / 255, regularizer=models["conditional-gray"]).x[0] for c in channels]
    )
    # Both within the certified 1e-4 RMS of the same minimizer.
    assert (read_picture(tmp_path / "o.png").pixels - expected.clamp(0, 1)).square().mean().sqrt() < 2.1e-4


def test_gray_that_is_stored_as_colour_is_restored_as_gray(tmp_path, run):
    gray = noisy_file(tmp_path / "gray.png")
    with Image.open(gray) as stored:
        stored.convert("RGB").save(tmp_path / "colour.png")
    Image.fromarray((photograph().expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().numpy()).save(
        tmp_path / "clean.png"
    )
    for name in ("gray", "colour"):
        arguments = ["denoise", tmp_path / f"{name}.png", "-o", tmp_path / f"{name}-out.png", "--sigma", 25]
        result = run(*arguments, *(["--reference", tmp_path / "clean.png"] * (name == "colour")))
        assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "gray-out.png") as one, Image.open(tmp_path / "colour-out.png") as three:
        assert (one.mode, three.mode) == ("L", "RGB")
        assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(three))


def test_sixteen_bits_that_jpeg_cannot_hold_are_told(tmp_path, run):
    source = noisy_file(tmp_path / "in.png", bits=16)
    said = "o.jpg: written with 8 bits instead of 16, all that JPEG holds"
    assert said in run("denoise", source, "-o", tmp_path / "o.jpg", "--sigma", 25).stderr
    assert "8 bits" not in run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 25).stderr


def test_the_luma_of_a_colour_jpeg_decides_what_is_removed(tmp_path, run):
    # Compression leaves the noise of the luma and takes that of the colours: see docs/noise.md.
    levels = (add_noise(photograph(gray=False), 25 / 255, 1).clamp(0, 1) * 255).round().byte()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(tmp_path / "in.jpg", quality=95)
    write_picture(tmp_path / "clean.png", Picture(photograph(gray=False)))
    measured = run("denoise", tmp_path / "in.jpg", "-o", tmp_path / "o.png", "--reference", tmp_path / "clean.png")
    level = float(re.search(r"sigma ([\d.]+) gray levels, measured", measured.stderr).group(1))
    removed = float(re.search(r"in.jpg\s+([\d.]+)", measured.stdout).group(1))
    assert measured.exit_code == 0 and 14 < level < 22 and 22 < removed < 30


def test_a_colour_model_refuses_gray(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    result = run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 25, "--model", "conditional-color")
    assert (
        result.exit_code == 1
        and "in.png: gray picture" in result.stderr
        and "--model conditional-gray" in result.stderr
    )


def test_sigma_zero_returns_the_picture(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    assert run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 0).exit_code == 0
    assert torch.equal(read_picture(tmp_path / "o.png").pixels, read_picture(source).pixels)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_picture_stays_what_it_is(tmp_path, run, value):
    write_picture(tmp_path / "in.png", Picture(torch.full((1, 20, 20), value)))
    for arguments in (["--sigma", 25], []):
        assert run("denoise", tmp_path / "in.png", "-o", tmp_path / "o.png", *arguments).exit_code == 0
        assert torch.equal(read_picture(tmp_path / "o.png").pixels, read_picture(tmp_path / "in.png").pixels)


# The noise level


def test_sigma_is_estimated_and_printed(tmp_path, run):
    result = run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png")
    level = float(re.search(r"noise estimated: white, ([\d.]+) gray levels", result.stderr).group(1))
    shown = float(re.search(r"in.png\s+([\d.]+)", result.stdout).group(1))
    assert result.exit_code == 0 and 20 < level < 30 and shown == pytest.approx(level, abs=0.06)


def test_sigma_is_clamped_with_a_warning(tmp_path, run):
    result = run("denoise", noisy_file(tmp_path / "in.png", sigma=90), "-o", tmp_path / "o.png")
    assert result.exit_code == 0 and "clamped to 50, the trained range being 1 to 50" in result.stderr
    assert "50.00" in result.stdout


@pytest.mark.parametrize("words", ["white:25", "25", "correlated:12", "poisson-gaussian:2,20", "auto"])
def test_noise_is_described_in_words(tmp_path, run, words):
    source = noisy_file(tmp_path / "in.png")
    result = run("denoise", source, "-o", tmp_path / "o.png", "--noise", words, "--tol", "1e-3")
    assert result.exit_code == 0 and ("estimated" in result.stderr) == (words == "auto")
    assert psnr(tmp_path / "o.png", photograph()) > psnr(source, photograph()) + 2


def test_noise_that_cannot_be_is_refused(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    for words in ("poisson:0", "blue:3", "poisson-gaussian:1"):
        result = run("denoise", source, "-o", tmp_path / "o.png", "--noise", words)
        assert result.exit_code == 2 and "--noise: got" in result.stderr and not (tmp_path / "o.png").exists()


def test_a_reference_gives_sigma_and_quality(tmp_path, run):
    write_picture(tmp_path / "clean.png", Picture(photograph(), bits=16))
    source = noisy_file(tmp_path / "in.png", bits=16)
    result = run("denoise", source, "-o", tmp_path / "o.png", "--reference", tmp_path / "clean.png")
    assert result.exit_code == 0 and "measured against the reference" in result.stderr
    before, after = (float(v) for v in re.search(r"([\d.]+)>([\d.]+)", result.stdout).groups())
    assert before == pytest.approx(psnr(source, photograph()), abs=0.01)
    assert after == pytest.approx(psnr(tmp_path / "o.png", photograph()), abs=0.01) and after > before + 1


def test_sigma_outside_the_trained_range_is_told(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    result = run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 0.1)
    assert result.exit_code == 0 and "outside the trained range 1 to 50; did you mean 25.5" in result.stderr
    assert "outside the" not in run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 50).stderr


@pytest.mark.parametrize("sigma", ["-1", "nan", "inf", "256", "many"])
def test_senseless_sigma_is_a_usage_error(tmp_path, run, sigma):
    result = run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png", "--sigma", sigma)
    assert result.exit_code == 2 and "--sigma" in result.stderr and not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    "option", [["--tol", "0"], ["--tol", "nan"], ["--weight", "-1"], ["--model", "none"], ["--device", "abacus"]]
)
def test_senseless_options_are_usage_errors(tmp_path, run, option):
    result = run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png", *option)
    assert result.exit_code == 2 and option[1] in result.stderr and not (tmp_path / "o.png").exists()


# Folders and bad files


def test_a_folder_does_what_it_can(tmp_path, run):
    folder, out = tmp_path / "in", tmp_path / "new" / "out"
    folder.mkdir()
    good = [noisy_file(folder / f"good{i}.png") for i in range(2)]
    (folder / "zero.png").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.png").write_bytes(good[0].read_bytes()[:-400])
    write_picture(folder / "tiny.png", Picture(torch.rand(1, 3, 3)))
    (folder / "notes.txt").write_text("no picture, no error")
    result = run("denoise", folder, "-o", out, "--sigma", 25)
    assert result.exit_code == 1 and "4 of 6 pictures failed" in result.stderr
    assert sorted(f.name for f in out.iterdir()) == ["good0.png", "good1.png"]
    for name, reason in (("zero", "empty"), ("text", "not a PNG"), ("cut", "cannot be read"), ("tiny", "3 x 3 pixels")):
        line = next(x for x in result.stderr.splitlines() if x.startswith("error: ") and f"{name}.png" in x)
        assert reason in line
    assert "good0.png" in result.stdout and "good1.png" in result.stdout


def test_a_missing_file_does_not_stop_the_others(tmp_path, run):
    source = noisy_file(tmp_path / "in.png")
    result = run("denoise", tmp_path / "none.png", source, "-o", tmp_path / "out", "--sigma", 25)
    assert result.exit_code == 1 and "none.png" in result.stderr and (tmp_path / "out" / "in.png").exists()


def test_a_failed_write_leaves_nothing_half_written(tmp_path, run, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    source = noisy_file(tmp_path / "in.png")
    monkeypatch.setattr(os, "fsync", fail)
    result = run("denoise", source, "-o", tmp_path / "out" / "o.png", "--sigma", 25)
    assert result.exit_code == 1 and "o.png: cannot be written: no space left" in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_solver_that_fails_is_reported_by_file(tmp_path, run, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(solving, "solve", fail)
    result = run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png", "--sigma", 25)
    assert result.exit_code == 1 and "in.png: out of memory" in result.stderr


def test_ctrl_c_ends_with_130_and_says_what_is_written(tmp_path, run, monkeypatch):
    honest = single.restore_picture
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        noisy_file(tmp_path / "in" / f"{name}.png")

    def interrupted(*arguments, **options):
        if (tmp_path / "out" / "a.png").exists():
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(single, "restore_picture", interrupted)
    result = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--sigma", 25)
    assert result.exit_code == 130 and "interrupted: 1 of 2 pictures are written" in result.stderr
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_terminal_sees_how_far_a_picture_is(tmp_path, run, monkeypatch):
    seen = []

    class Recorded(screen.Progress):
        def update(self, task, **changes):
            super().update(task, **changes)
            seen.append(self.tasks[0].completed)

    monkeypatch.setattr(screen, "Progress", Recorded)
    for terminal in (True, False):
        shown = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        monkeypatch.setattr(screen, "console", lambda stderr=False, shown=shown: shown)
        seen.clear()
        assert run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png", "--sigma", 25).exit_code == 0
        between = [s for s in seen if 0 < s < 1]
        assert seen == sorted(seen) and (len(between) > 2) == terminal


def test_references_of_a_folder_are_matched_by_name(tmp_path, run):
    for folder in ("in", "clean"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "c"):
        noisy_file(tmp_path / "in" / f"{name}.png")
    write_picture(tmp_path / "clean" / "a.png", Picture(photograph()))
    write_picture(tmp_path / "clean" / "b.tif", Picture(photograph()))
    result = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--reference", tmp_path / "clean")
    assert result.exit_code == 1 and re.search(r"clean/c\.png.*no such file", result.stderr)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    write_picture(tmp_path / "clean" / "c.png", Picture(torch.zeros(1, 9, 9)))
    result = run("denoise", tmp_path / "in", "-o", tmp_path / "out", "--reference", tmp_path / "clean")
    assert result.exit_code == 1 and "1 x 9 x 9" in result.stderr


# Nothing is lost


def test_inputs_and_references_are_never_overwritten(tmp_path, run):
    source, clean = noisy_file(tmp_path / "in.png"), noisy_file(tmp_path / "clean.png", sigma=0)
    link = tmp_path / "link.png"
    link.symlink_to(source)
    before = {f: f.read_bytes() for f in (source, clean)}
    reference = ["--reference", clean]
    for arguments in (
        [source, "-o", source],
        [source, "-o", tmp_path],
        [source, "-o", link],
        [tmp_path, "-o", tmp_path],
        [source, "-o", clean, *reference],
        [source, "-o", tmp_path / "o.png", "--compare", source],
        [source, "-o", tmp_path / "o.png", "--compare", clean, *reference],
    ):
        result = run("denoise", *arguments, "--sigma", 25)
        assert result.exit_code == 2 and "would overwrite" in result.stderr, arguments
    assert before == {f: f.read_bytes() for f in before} and not (tmp_path / "o.png").exists()


def test_two_inputs_with_one_output_are_refused(tmp_path, run):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        noisy_file(tmp_path / folder / "x.png")
    result = run("denoise", tmp_path / "a", tmp_path / "b" / "x.png", "-o", tmp_path / "out", "--sigma", 25)
    assert result.exit_code == 2 and "would both be written" in result.stderr and not (tmp_path / "out").exists()


def test_outputs_that_make_no_sense_are_usage_errors(tmp_path, run):
    a, b = noisy_file(tmp_path / "a.png"), noisy_file(tmp_path / "b.png")
    (tmp_path / "empty").mkdir()
    cases = [
        ([a, "-o", tmp_path / "o.gif"], "o.gif"),
        ([a, b, "-o", tmp_path / "o.png"], "o.png"),
        ([a, "-o", a / "out" / "o.png"], str(a / "out")),
        ([a, b, "-o", a / "out"], str(a / "out")),
        ([tmp_path / "empty", "-o", tmp_path / "out"], "empty"),
        ([a, b, "-o", tmp_path / "out", "--compare", tmp_path / "f.png"], "f.png"),
        ([a, b, "-o", tmp_path / "out", "--reference", a], "a.png"),
        ([a, "-o", tmp_path / "o.png", "--compare", tmp_path / "o.png"], "o.png"),
        ([a, "-o", tmp_path / "o.png", "--compare", tmp_path / "f.svg"], "f.svg"),
    ]
    for arguments, word in cases:
        result = run("denoise", *arguments, "--sigma", 25)
        assert result.exit_code == 2 and word in result.stderr, (arguments, result.output)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.png", "b.png", "empty"]


# Everything else


def test_compare_draws_the_panels(tmp_path, run):
    source = noisy_file(tmp_path / "in.png", gray=False)
    assert (
        run("denoise", source, "-o", tmp_path / "o.png", "--sigma", 25, "--compare", tmp_path / "f.png").exit_code == 0
    )
    sheet = np.asarray(Image.open(tmp_path / "f.png"))
    assert sheet.shape[1] >= 3 * 64
    for name in ("in.png", "o.png"):
        part = np.asarray(Image.open(tmp_path / name))
        windows = np.lib.stride_tricks.sliding_window_view(sheet, part.shape)
        assert (windows[:, :, 0, 0, 0, 0] == part[0, 0, 0]).any()
        assert any(
            np.array_equal(windows[i, j, 0], part) for i, j in np.argwhere(windows[:, :, 0, 0, 0, 0] == part[0, 0, 0])
        )


def test_unconverged_pictures_are_written_and_told(tmp_path, run, monkeypatch):
    honest = solving.solve
    monkeypatch.setattr(solving, "solve", lambda *a, **k: honest(*a, **{**k, "max_iter": 0}))
    result = run("denoise", noisy_file(tmp_path / "in.png"), "-o", tmp_path / "o.png", "--sigma", 25)
    assert result.exit_code == 0 and "in.png: iteration limit: the tolerance was not reached" in result.stderr
    assert "iteration limit" in result.stdout and (tmp_path / "o.png").exists()


def test_names_with_markup_are_printed_as_they_are(tmp_path, run):
    result = run("denoise", noisy_file(tmp_path / "[bold]x.png"), "-o", tmp_path / "o.png", "--sigma", 25)
    assert result.exit_code == 0 and "[bold]x.png" in result.stdout


def test_demo_writes_its_pictures(tmp_path, run, monkeypatch):
    monkeypatch.setattr(restoring, "DEMO_PICTURES", {"camera": True})
    result = run("demo", "-o", tmp_path / "demo")
    assert result.exit_code == 0 and "proved to lie within" in result.stdout
    assert {f.name for f in (tmp_path / "demo").iterdir()} == {
        f"camera-{k}.png" for k in ("noisy", "restored", "compare")
    }
    noisy = add_noise(bundled(gray=True).find("camera").image, 25 / 255, seed_of("camera"))
    assert (read_picture(tmp_path / "demo" / "camera-noisy.png").pixels - noisy.clamp(0, 1)).abs().max() < 0.51 / 255
    (tmp_path / "file").touch()
    assert run("demo", "-o", tmp_path / "file" / "demo").exit_code == 2


def test_version_and_info(run):
    assert run("--version").stdout.strip() == f"icgn {icgn.__version__}"
    assert "deepinv" in run("info").stdout


def test_info_says_how_to_get_what_is_missing(run, monkeypatch):
    honest = importlib.metadata.version

    def version(name):
        if name == "gradio":
            raise importlib.metadata.PackageNotFoundError(name)
        return honest(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "not installed: pip install 'icgn[app]'" in run("info").stdout


def test_a_real_process_answers_fast_and_reports_errors(tmp_path):
    def process(*arguments):
        return subprocess.run(
            [sys.executable, "-P", "-c", "from icgn.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    code = "import sys, icgn.cli; print(sorted({'torch', 'deepinv', 'skimage'} & set(sys.modules)))"
    lean = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert lean.stdout.strip() == "[]"
    begin = time.perf_counter()
    assert "denoise" in process("--help").stdout and time.perf_counter() - begin < 30
    module = subprocess.run([sys.executable, "-P", "-m", "icgn", "--version"], capture_output=True, text=True)
    assert module.stdout == process("--version").stdout and module.returncode == 0
    failed = process("denoise", tmp_path / "in.png", "-o", tmp_path / "o.png", "--sigma", "-3")
    assert failed.returncode == 2 and "--sigma: got -3" in failed.stderr and "Traceback" not in failed.stderr
