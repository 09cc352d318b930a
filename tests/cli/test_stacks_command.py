"""Stacks, ranges and units through the command line, as files of other programs bring them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import torch

from icgn.cli import single, stacks
from icgn.datasets import open_stack
from icgn.pictures import models as picture_models
from icgn.pictures.masks import percent
from icgn.regularizers import RidgeICGN

SHAPE = (24, 32)


class Denoiser(RidgeICGN):
    """An untrained model that removes noise visibly, in the place of the shipped ones."""

    def __init__(self, channels):
        super().__init__(filters=6, size=3, channels=channels, sigma_range=(1 / 255, 50 / 255))
        with torch.no_grad():
            self.log_lambda += 3.0


@pytest.fixture(autouse=True)
def models(monkeypatch):
    torch.manual_seed(0)
    known = {"conditional-gray": Denoiser(1), "conditional-color": Denoiser(3)}
    for name in ("load_pretrained", "load_regularizer"):
        monkeypatch.setattr(picture_models, name, lambda name, device="cpu": known[name].requires_grad_(False))
    return known


def scene(pages, seed=0):
    """Clean pages in [0, 1]: a bright square that moves."""
    clean = np.full((pages, *SHAPE), 0.2)
    for i in range(pages):
        clean[i, 6:18, 4 + i % 8 : 20 + i % 8] = 0.8
    return clean, clean + 0.06 * np.random.default_rng(seed).standard_normal(clean.shape)


def counts(pages, low=100, span=500):
    clean, noisy = scene(pages)
    return tuple(np.clip(low + span * x, 0, 65535).round().astype(np.uint16) for x in (clean, noisy))


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture
def stack(tmp_path):
    clean, noisy = counts(6)
    tifffile.imwrite(tmp_path / "clean.tif", clean, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in.tif", noisy, photometric="minisblack")
    return clean, noisy


# Stacks


def test_every_page_is_restored_with_one_noise_level(tmp_path, run, stack):
    clean, noisy = stack
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--reference", tmp_path / "clean.tif")
    assert result.exit_code == 0, result.output
    written = tifffile.imread(tmp_path / "o.tif")
    assert written.shape == noisy.shape and written.dtype == np.uint16
    assert rms(written, clean) < 0.7 * rms(noisy, clean)
    assert "6 pages" in result.stderr and result.stderr.count("measured against the reference") == 1
    assert "the median of 6 of 6" in result.stderr and "taken as the range of the model" in result.stderr
    assert result.stdout.count("in.tif") == 1 and "converged" in result.stdout
    before, after = (float(v) for v in result.stdout.split("converged")[0].split()[-2].split(">"))
    assert after > before + 3


def test_pages_are_what_each_is_alone_with_the_noise_and_range_of_the_stack(tmp_path, run, stack):
    assert (
        run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--sigma", 0.12, "--range", "50,650").exit_code
        == 0
    )
    for i, page in enumerate(stack[1]):
        tifffile.imwrite(tmp_path / "one.tif", page)
        run("denoise", tmp_path / "one.tif", "-o", tmp_path / "r.tif", "--sigma", 0.12, "--range", "50,650")
        assert np.array_equal(tifffile.imread(tmp_path / "r.tif"), tifffile.imread(tmp_path / "o.tif")[i])


def test_channels_of_a_hyperstack_have_noise_and_range_of_their_own(tmp_path, run):
    clean, noisy = counts(4)
    both = np.stack([noisy, 8 * noisy], 1)
    tifffile.imwrite(tmp_path / "in.tif", both, imagej=True, metadata={"axes": "TCYX"})
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif")
    assert result.exit_code == 0 and "channel 2" in result.stderr
    written = tifffile.imread(tmp_path / "o.tif")
    assert written.shape == both.shape
    assert rms(written[:, 0], clean) < 0.8 * rms(noisy, clean)
    assert rms(written[:, 1] / 8, written[:, 0]) < 0.05 * rms(noisy, clean) + 1


def test_bands_that_are_no_colours_are_restored_one_by_one(tmp_path, run):
    _, noisy = counts(4)
    bands = np.moveaxis(noisy, 0, -1)
    tifffile.imwrite(
        tmp_path / "in.tif", bands, photometric="minisblack", planarconfig="contig", extrasamples=[0, 0, 0]
    )
    assert run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif").exit_code == 0
    with open_stack(tmp_path / "o.tif") as written:
        assert written.container.channels == 4 and not written.container.alpha
        assert rms(written[0].numpy(), noisy) > 1


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.int32])
def test_sigma_zero_keeps_every_number(tmp_path, run, suffix, kind):
    values = (
        1000 * np.random.default_rng(0).random((3, *SHAPE)) - (0 if kind in (np.uint8, np.uint16) else 400)
    ).astype(kind)
    source = tmp_path / f"in{suffix}"
    {
        ".npy": np.save,
        ".npz": lambda p, v: np.savez(p, v=v),
        ".tif": lambda p, v: tifffile.imwrite(p, v, photometric="minisblack"),
    }[suffix](source, values)
    result = run("denoise", source, "-o", tmp_path / f"o{suffix}", "--sigma", 0)
    assert result.exit_code == 0, result.output
    with open_stack(tmp_path / f"o{suffix}") as written:
        assert written.container.dtype == np.dtype(kind).name
        assert np.array_equal(np.stack([p[0].numpy() for p in written]).astype(kind), values)


def test_a_killed_run_goes_on_and_other_options_begin_anew(tmp_path, run, stack, monkeypatch):
    honest, seen = stacks._page, []

    def dies(work, index, page):
        seen.append(index)
        if index == 4 and seen.count(4) == 1:
            raise KeyboardInterrupt
        return honest(work, index, page)

    monkeypatch.setattr(stacks, "_page", dies)
    arguments = ["denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif"]
    assert run(*arguments).exit_code == 130 and not (tmp_path / "o.tif").exists()
    result = run(*arguments)
    assert result.exit_code == 0 and "goes on with page 5 of 6" in result.stderr and seen == [0, 1, 2, 3, 4, 4, 5]
    first = tifffile.imread(tmp_path / "o.tif")
    run("denoise", tmp_path / "in.tif", "-o", tmp_path / "again.tif")
    assert np.array_equal(first, tifffile.imread(tmp_path / "again.tif")) and not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_page(tmp_path, run):
    noisy = counts(40)[1]
    tifffile.imwrite(tmp_path / "in.tif", np.tile(noisy, (1, 2, 2)), photometric="minisblack")
    words = ["denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--model", "ridge-gray-small", "--sigma", "0.12"]
    process = subprocess.Popen([sys.executable, "-m", "icgn", *map(str, words)], stderr=subprocess.DEVNULL)
    while process.poll() is None:
        parts = [p for p in tmp_path.glob(".*.pages") if p.stat().st_size > 4 * 48 * 64 * 2]
        if parts:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "o.tif").exists()
    again = subprocess.run([sys.executable, "-m", "icgn", *map(str, words)], capture_output=True, text=True, check=True)
    assert "goes on with page" in again.stderr and tifffile.imread(tmp_path / "o.tif").shape == (40, 48, 64)


def test_stacks_are_deblurred_and_filled_in(tmp_path, run, stack):
    result = run("deblur", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--kernel", "gaussian:1")
    assert result.exit_code == 0 and tifffile.imread(tmp_path / "o.tif").shape == stack[1].shape
    known = np.random.default_rng(0).random(SHAPE) > 0.2
    np.save(tmp_path / "mask.npy", known)
    holes = np.where(known, stack[1], 0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "holes.tif", holes, photometric="minisblack")
    result = run("inpaint", tmp_path / "holes.tif", "-o", tmp_path / "o.tif", "--mask", tmp_path / "mask.npy")
    filled = tifffile.imread(tmp_path / "o.tif")
    assert result.exit_code == 0 and result.stderr.count("are filled in") == 1
    assert rms(filled[:, ~known], stack[0][:, ~known]) < 0.5 * rms(holes[:, ~known], stack[0][:, ~known])


def test_what_a_stack_cannot_be_is_refused_before_the_work(tmp_path, run, stack):
    for output, words in {"o.png": "PNG holds one picture, got 6 pages; write .tif or .npy instead"}.items():
        result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / output)
        assert result.exit_code == 1 and words in result.stderr and not (tmp_path / output).exists()
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--compare", tmp_path / "f.png")
    assert result.exit_code == 1 and "--compare: got a file of 6 pages" in result.stderr
    tifffile.imwrite(tmp_path / "short.tif", stack[0][:2], photometric="minisblack")
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--reference", tmp_path / "short.tif")
    assert result.exit_code == 1 and "short.tif: got 2 x 1 x 24 x 32 (pages" in result.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ["clean.tif", "in.tif", "short.tif"]


# Noise that changes over the pages


def fading(pages=12, seed=0):
    """Pages of one brightness whose noise falls from 0.12 to 0.03, in [0, 1]."""
    clean = np.kron(np.random.default_rng(1).random((3, 4)), np.ones((24, 24)))
    levels = np.geomspace(0.12, 0.03, pages)
    noise = np.random.default_rng(seed).standard_normal((pages, *clean.shape))
    return clean, clean + levels[:, None, None] * noise, levels


def test_noise_that_falls_over_the_pages_is_followed(tmp_path, run):
    clean, noisy, levels = fading()
    tifffile.imwrite(tmp_path / "in.tif", noisy.astype(np.float32), photometric="minisblack")
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif")
    assert result.exit_code == 0 and "changes from page to page and is followed: from" in result.stderr
    written = tifffile.imread(tmp_path / "o.tif")
    for i in (0, len(levels) - 1):
        tifffile.imwrite(tmp_path / "one.tif", noisy[i].astype(np.float32))
        run("denoise", tmp_path / "one.tif", "-o", tmp_path / "r.tif", "--sigma", 255 * levels[i], "--range", "0,1")
        best, single = rms(tifffile.imread(tmp_path / "r.tif"), clean), rms(noisy[i], clean)
        assert best < 0.8 * single and rms(written[i], clean) < best + 0.15 * single


def test_a_followed_level_goes_on_after_a_kill_as_if_nothing_had_happened(tmp_path, run, monkeypatch):
    noisy = fading()[1].astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", noisy, photometric="minisblack")
    honest = stacks._page

    def dies(work, index, page):
        if index == 7:
            raise KeyboardInterrupt
        return honest(work, index, page)

    run("denoise", tmp_path / "in.tif", "-o", tmp_path / "whole.tif")
    with monkeypatch.context() as patch:
        patch.setattr(stacks, "_page", dies)
        assert run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif").exit_code == 130
    assert "goes on with page 8" in run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif").stderr
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), tifffile.imread(tmp_path / "whole.tif"))


def test_counts_that_bleach_have_one_gain(tmp_path, run):
    clean = 40 + 200 * np.kron(np.random.default_rng(1).random((3, 4)), np.ones((48, 48)))
    counts = np.random.default_rng(0).poisson(np.linspace(1, 0.4, 9)[:, None, None] * clean)
    tifffile.imwrite(tmp_path / "in.tif", counts.astype(np.uint16), photometric="minisblack")
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif")
    assert result.exit_code == 0 and "counts" in result.stderr and "the median of 8 of 9" in result.stderr


# Nothing to remove


def test_sigma_zero_copies_pages_without_a_solver(tmp_path, run, stack, monkeypatch):
    values = np.where(np.random.default_rng(0).random((4, *SHAPE)) < 0.2, np.nan, 3e30).astype(np.float32)
    values[2] = -np.inf
    np.save(tmp_path / "in.npy", values)
    monkeypatch.setattr(picture_models, "load_regularizer", None)
    for more in ((), ("--volume",)):
        out = tmp_path / f"o{len(more)}.npy"
        result = run("denoise", tmp_path / "in.npy", "-o", out, "--sigma", 0, "--json", tmp_path / "o.json", *more)
        assert result.exit_code == 0, result.output
        assert np.array_equal(np.load(out), values, equal_nan=True)
        told = json.loads((tmp_path / "o.json").read_text())[0]
        assert (told["iterations"], told["distance"], told["status"]) == (0, 0, "converged")
    words = ["denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--sigma", 0]
    assert run(*words, "--reference", tmp_path / "clean.tif", "--json", tmp_path / "o.json").exit_code == 0
    told = json.loads((tmp_path / "o.json").read_text())[0]
    assert told["psnr"] == told["psnr_before"] > 10
    assert run(*words, "--compare", tmp_path / "f.png").exit_code == 1


# Masks


def scratches(pages=4):
    """Clean pages in [0, 1] of different brightness, each with a scratch of its own: True where they are known."""
    clean = np.linspace(0.3, 0.7, SHAPE[1]) * np.linspace(1, 0.5, pages)[:, None, None] * np.ones((SHAPE[0], 1))
    known = np.ones(clean.shape, dtype=bool)
    for i in range(1, pages):
        known[i, 2 + 4 * i : 5 + 4 * i, 4:-4] = False
    return clean, known


def fill(run, tmp_path, *more):
    words = ("--mask", tmp_path / "mask.tif", "-o", tmp_path / "o.tif", "--gap", "0.05")
    return run("inpaint", tmp_path / "in.tif", *words, *more)


@pytest.mark.parametrize("kind", ["levels", "counts", "nan"])
def test_a_mask_has_a_page_for_each_page(tmp_path, run, kind):
    clean, known = scratches()
    wrong = {"levels": 1.0, "counts": 9.0, "nan": np.nan}[kind]
    values = np.where(known, clean, wrong)
    values = (255 * values).astype(np.uint8) if kind == "levels" else (500 * values - 100).astype(np.float32)
    scale, offset = (255, 0) if kind == "levels" else (500, -100)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", (2 * known).astype(np.uint8), photometric="minisblack")
    result = fill(run, tmp_path)
    assert result.exit_code == 0, result.output
    hidden = int((~known).sum())
    assert f"{hidden} of {known.size} pixels of 4 pages ({percent(hidden / known.size)}) are filled in" in result.stderr
    filled = (tifffile.imread(tmp_path / "o.tif").astype(float) - offset) / scale
    assert np.abs(filled - clean).max() < 0.05
    if kind == "nan":
        tifffile.imwrite(tmp_path / "mask.tif", np.ones(known.shape, np.uint8), photometric="minisblack")
        result = fill(run, tmp_path)
        assert result.exit_code == 0 and "of the pixels have no data, and stay so" in result.stderr
        assert np.array_equal(np.isnan(tifffile.imread(tmp_path / "o.tif")), ~known)


@pytest.mark.parametrize(("pages", "axes"), [((2, 3), "TZ"), ((3,), "Z"), ((2,), "Q"), ((1, 3), "TZ")])
def test_a_hyperstack_has_a_mask_for_each_place_along_some_axes(tmp_path, run, pages, axes):
    clean, _ = scene(6)
    clean = clean.reshape(2, 3, *SHAPE)
    known = np.ones((*pages, *SHAPE), bool)
    for i, page in enumerate(known.reshape(-1, *SHAPE)):
        page[2 + 3 * i : 4 + 3 * i, 4:-4] = False
    by_axis = {"Q": known.reshape(-1, 1, *SHAPE)}.get(axes, known.reshape(-1, *known.shape[-3:]))
    hidden = ~np.broadcast_to(by_axis, clean.shape)
    values = np.where(hidden, 1.0, clean).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values, imagej=True, metadata={"axes": "TZYX"})
    if axes == "Q":
        tifffile.imwrite(tmp_path / "mask.tif", known.astype(np.uint8), photometric="minisblack")
    else:
        tifffile.imwrite(tmp_path / "mask.tif", known.astype(np.uint8), imagej=True, metadata={"axes": f"{axes}YX"})
    result = fill(run, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert np.abs(tifffile.imread(tmp_path / "o.tif") - clean)[hidden].mean() < 0.1


def test_masks_that_fit_several_axes_are_refused(tmp_path, run):
    tifffile.imwrite(tmp_path / "in.tif", np.ones((3, 3, *SHAPE), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    known = np.ones((3, *SHAPE), np.uint8)
    known[:, 2:5] = 0
    tifffile.imwrite(tmp_path / "mask.tif", known, photometric="minisblack")
    result = fill(run, tmp_path)
    assert result.exit_code == 1 and "or one for each place along axes of it (T 3, Z 3)" in result.stderr


def test_masks_of_stacks_that_do_not_fit_are_refused(tmp_path, run, stack):
    def refused(known, *more):
        tifffile.imwrite(tmp_path / "mask.tif", known.astype(np.uint8), photometric="minisblack")
        result = fill(run, tmp_path, *more)
        assert result.exit_code > 0 and not (tmp_path / "o.tif").exists()
        return result.stderr

    known = np.ones((6, *SHAPE), dtype=bool)
    assert "has 3 pages, expected one, or 6 as" in refused(known[:3])
    assert "got 12 x 32 pixels, expected 24 x 32 (height x width)" in refused(known[:, :12])
    known[2] = False
    assert "page 3 hides every pixel: those of 0, not of 1" in refused(known)
    known[2, :2] = True
    assert "hides 91.7 % of page 3 (704 of 4608 pixels of 6 pages (15.3 %) are filled in" in refused(known)
    assert fill(run, tmp_path, "--yes").exit_code == 0
    known[2, 1:] = True
    tifffile.imwrite(tmp_path / "mask.tif", known.astype(np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "one.tif", stack[0][0])
    result = run("inpaint", tmp_path / "one.tif", "--mask", tmp_path / "mask.tif", "-o", tmp_path / "r.tif")
    assert result.exit_code == 1 and "has 6 pages, expected one" in result.stderr


# Units


def test_levels_of_floats_beyond_one_are_in_the_unit_of_the_file(tmp_path, run):
    clean, noisy = scene(1)
    for name, scale in {"unit": 1.0, "kelvin": 300.0}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", (scale * noisy[0]).astype(np.float32))
        tifffile.imwrite(tmp_path / f"{name}-clean.tif", (scale * clean[0]).astype(np.float32))
    results = {}
    for name, sigma in {"unit": 255 * 0.06, "kelvin": 0.06 * 300}.items():
        source, out = tmp_path / f"{name}.tif", tmp_path / f"{name}-out.tif"
        results[name] = run(
            "denoise", source, "-o", out, "--sigma", sigma, "--reference", tmp_path / f"{name}-clean.tif"
        )
        assert results[name].exit_code == 0 and "warning" not in results[name].stderr
    restored = {name: tifffile.imread(tmp_path / f"{name}-out.tif") for name in results}
    assert rms(restored["kelvin"], 300 * clean[0]) < 0.7 * rms(300 * noisy[0], 300 * clean[0])
    assert rms(restored["kelvin"] / 300, restored["unit"]) < 0.3 * rms(noisy, clean)
    assert "18 u" in results["kelvin"].stdout and "the unit of the file" in results["kelvin"].stdout
    assert "15.30" in results["unit"].stdout and " u " not in results["unit"].stdout


def test_a_level_that_no_noise_can_have_is_taken_in_the_other_unit(tmp_path, run):
    clean, noisy = counts(1)
    tifffile.imwrite(tmp_path / "in.tif", noisy[0])
    wrong = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "a.tif", "--sigma", 30)
    right = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "b.tif", "--sigma", 30 / 65535 * 255)
    assert "--sigma 30 is taken in the unit of the file (1 gray level is 257)" in wrong.stderr
    assert wrong.exit_code == 0 and "warning" not in right.stderr
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), tifffile.imread(tmp_path / "b.tif"))
    assert rms(tifffile.imread(tmp_path / "a.tif"), clean[0]) < 0.7 * rms(noisy[0], clean[0])


def test_no_hint_is_given_for_pictures_of_a_small_range(tmp_path, run):
    tifffile.imwrite(tmp_path / "in.tif", counts(1)[1][0])
    assert "did you mean" not in run("denoise", tmp_path / "in.tif", "-o", tmp_path / "a.tif", "--sigma", 0.004).stderr


@pytest.mark.parametrize("text", ["1", "2,1", "a,b", "nan,1", "1,2,3", "", "1e400,2"])
def test_ranges_that_are_none_are_usage_errors(tmp_path, run, stack, text):
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--range", text)
    assert result.exit_code == 2 and "--range" in result.stderr


def test_a_range_is_in_the_unit_of_the_file(tmp_path, run):
    tifffile.imwrite(tmp_path / "in.tif", counts(1)[1][0])
    for text in ("100,600", "auto"):
        out = tmp_path / "o.json"
        assert (
            run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--range", text, "--json", out).exit_code == 0
        )
        low, high = json.loads(out.read_text())[0]["range"]
        assert (low, high) == pytest.approx((100, 600)) if text != "auto" else 80 < low < high < 600


def test_a_reference_in_the_unit_of_the_file_is_compared_in_it(tmp_path, run):
    clean, noisy = scene(1)
    hounsfield = [(2000 * x[0] - 1000).round().astype(np.int16) for x in (clean, noisy)]
    for name, values in zip(("clean", "in"), hounsfield, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
    out = tmp_path / "o.json"
    words = ["denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--reference", tmp_path / "clean.tif"]
    assert run(*words, "--json", out).exit_code == 0
    told = json.loads(out.read_text())[0]
    assert told["unit"] == "in the unit of the file" and told["noise"] == pytest.approx(120, rel=0.1)
    assert told["psnr"] > told["psnr_before"] + 3


def test_floats_outside_levels_are_stretched_or_refused_never_cut(tmp_path, run):
    _, noisy = scene(1)
    np.save(tmp_path / "in.npy", noisy[0] - 0.5)
    result = run("denoise", tmp_path / "in.npy", "-o", tmp_path / "o.png")
    assert result.exit_code == 0 and "are written as the levels 0 to" in result.stderr
    with open_stack(tmp_path / "o.png") as written:
        assert float((written[0] == 0).float().mean()) < 0.05


# Words


def test_quiet_says_nothing_and_json_says_all(tmp_path, run, stack):
    arguments = ["denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif"]
    result = run(*arguments, "--quiet", "--json", "-")
    assert result.exit_code == 0 and not result.stderr
    (told,) = json.loads(result.stdout)
    assert told["pages"] == 6 and (told["width"], told["height"]) == (32, 24) and told["converged"] is True
    assert (
        told["unit"] == "gray levels"
        and told["unit_in_file"] == 257
        and told["noise_found"] == "estimated"
        and told["distance"] > 0
    )
    assert told["file"].endswith("in.tif") and told["psnr"] is None and "TIFF" in told["read"]
    assert any("estimated" in note for note in told["notes"]) and told["seconds"] > 0 and told["iterations"] > 0
    result = run(*arguments, "--json", tmp_path / "o.txt")
    assert result.exit_code == 2 and "expected a file called .json" in result.stderr
    result = run("denoise", tmp_path / "none.png", "-o", tmp_path / "x.png", "--quiet", "--json", "-")
    assert result.exit_code == 1 and json.loads(result.stdout)[0]["status"] == "failed"


def test_folders_say_what_they_leave_out_and_are_entered(tmp_path, run, stack):
    deep = tmp_path / "in" / "a" / "b"
    deep.mkdir(parents=True)
    np.save(deep / "x.npy", stack[1])
    tifffile.imwrite(tmp_path / "in" / "y.tif", stack[1][0])
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    flat = run("denoise", tmp_path / "in", "-o", tmp_path / "flat")
    assert flat.exit_code == 0 and "1 file left out: 1 x .txt file (notes.txt)" in flat.stderr
    assert [f.name for f in (tmp_path / "flat").rglob("*.*")] == ["y.tif"]
    whole = run("denoise", tmp_path / "in", "-o", tmp_path / "whole", "--recursive")
    assert whole.exit_code == 0 and np.load(tmp_path / "whole" / "a" / "b" / "x.npy").shape == (6, *SHAPE)


def test_ctrl_c_writes_what_was_reached_beside(tmp_path, run, stack, monkeypatch, interruptible):
    tifffile.imwrite(tmp_path / "one.tif", stack[1][0])
    honest = single.Watch.__call__

    def pressed(self, event):
        if event.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return honest(self, event)

    monkeypatch.setattr(single.Watch, "__call__", pressed)
    out = tmp_path / "o.json"
    result = run("denoise", tmp_path / "one.tif", "-o", tmp_path / "o.tif", "--json", out, "--tol", 1e-7)
    assert result.exit_code == 130 and not (tmp_path / "o.tif").exists()
    assert "o.not-converged.tif: what was reached" in result.stderr and "stopped" in result.stdout
    assert "interrupted: 0 of 1" in result.stderr and result.stdout.strip().endswith("o.not-converged.tif")
    assert tifffile.imread(tmp_path / "o.not-converged.tif").shape == SHAPE
    assert json.loads(out.read_text())[0]["converged"] is False
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--tol", 1e-7)
    assert result.exit_code == 130 and "0 of 6 pages are kept" in result.stderr and not (tmp_path / "o.tif").exists()


def test_more_removed_than_there_is_noise_warns(tmp_path, run):
    texture = (125 + 40 * np.sin(np.indices(SHAPE).sum(0) / 1.7)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", texture)
    result = run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--sigma", 50)
    assert result.exit_code == 0 and "were removed, and noise of" in result.stderr
    assert "were removed" not in run("denoise", tmp_path / "in.tif", "-o", tmp_path / "o.tif", "--sigma", 2).stderr


@pytest.mark.parametrize(("shape", "warned"), [((24, 32, 5), True), ((5, 24, 32), False), ((24, 32, 3), False)])
def test_pages_along_the_last_axis_are_warned_about(tmp_path, run, shape, warned):
    np.save(tmp_path / "in.npy", np.random.default_rng(0).random(shape))
    result = run("denoise", tmp_path / "in.npy", "-o", tmp_path / "o.npy", "--sigma", 10)
    assert result.exit_code == 0 and ("bring it to the front first" in result.stderr) == warned
