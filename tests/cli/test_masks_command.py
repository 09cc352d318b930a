"""``icgn inpaint`` with masks that may be inverted: asked about, refused or warned about, and always counted."""

import numpy as np
import pytest
import torch
from PIL import Image

from icgn.cli import masking
from icgn.datasets import read_picture

QUICK = ["--model", "ridge-gray-small", "--gap", "0.2"]


@pytest.fixture
def scratched(tmp_path, monkeypatch):
    """A picture with a scratch, in a folder with masks of several shares."""
    monkeypatch.chdir(tmp_path)
    x = np.tile(np.linspace(40, 200, 32), (32, 1)).astype(np.uint8)
    x[10:12, 4:28] = 255
    Image.fromarray(x).save("d.png")
    for name, rows in {"good": 2, "half": 20, "most": 30, "all": 32, "nothing": 0}.items():
        known = np.ones((32, 32), dtype=bool)
        known[:rows] = False
        Image.fromarray(known).save(f"{name}.png")
    return tmp_path


def inpaint(run, mask, *more):
    return run("inpaint", "d.png", "--mask", mask, "-o", "r.png", *QUICK, *more)


def test_how_many_pixels_are_filled_is_said(scratched, run):
    result = inpaint(run, "good.png")
    assert result.exit_code == 0 and result.stderr.count("\n") == 2
    assert "note: d.png: 64 of 1024 pixels (6.2 %) are filled in: those of 0, not of 255" in result.stderr


@pytest.mark.parametrize(
    ("mask", "code", "words"),
    [
        ("half.png", 0, "warning: --mask half.png: hides 62.5 % of the picture; --invert fills"),
        ("nothing.png", 0, "warning: --mask nothing.png: hides no pixel"),
        ("most.png", 2, "error: --mask most.png: hides 93.8 % of the picture"),
        ("all.png", 2, "error: --mask all.png: hides every pixel: all are 0"),
    ],
)
def test_without_a_terminal_doubtful_masks_are_refused_or_warned_about(scratched, run, mask, code, words):
    result = inpaint(run, mask)
    assert result.exit_code == code and words in result.stderr and "--invert" in result.stderr
    assert (scratched / "r.png").exists() == (code == 0)


def test_an_inverted_mask_is_turned_around(scratched, run):
    assert inpaint(run, "good.png").exit_code == 0
    expected = read_picture("r.png").pixels
    Image.fromarray(~np.asarray(Image.open("good.png"))).save("white-is-fill.png")
    assert inpaint(run, "white-is-fill.png").exit_code == 2
    result = inpaint(run, "white-is-fill.png", "--invert")
    assert result.exit_code == 0 and "64 of 1024 pixels (6.2 %) are filled in: those of 255, not of 0" in result.stderr
    assert torch.equal(read_picture("r.png").pixels, expected)


def test_yes_takes_a_mask_as_it_is(scratched, run):
    result = inpaint(run, "most.png", "--yes")
    assert result.exit_code == 0 and "warning" not in result.stderr and "93.8 %" in result.stderr
    assert inpaint(run, "all.png", "--yes").exit_code == 2


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
@pytest.mark.parametrize("mask", ["most.png", "half.png", "nothing.png"])
def test_at_a_terminal_doubtful_masks_are_asked_about(scratched, run, monkeypatch, mask, answer, code):
    asked = []
    monkeypatch.setattr(masking, "somebody_there", lambda: True)
    monkeypatch.setattr(masking, "agreed", lambda question: asked.append(question) or answer == "y")
    result = inpaint(run, mask)
    assert result.exit_code == code and len(asked) == 1 and f"mask {mask}: hides " in asked[0]
    assert inpaint(run, "good.png").exit_code == 0 and len(asked) == 1


def test_a_mask_of_a_folder_fails_alone(scratched, run):
    for folder in ("in", "masks"):
        (scratched / folder).mkdir()
    for name, mask in (("a", "good"), ("b", "most")):
        (scratched / "in" / f"{name}.png").write_bytes((scratched / "d.png").read_bytes())
        np.save(f"masks/{name}.npy", np.asarray(Image.open(f"{mask}.png")))
    result = run("inpaint", "in", "--mask", "masks", "-o", "out", *QUICK)
    assert result.exit_code == 1 and "--mask masks/b.npy: hides 93.8 % of the picture" in result.stderr
    assert [f.name for f in (scratched / "out").iterdir()] == ["a.png"]
    assert run("inpaint", "in", "--mask", "masks", "-o", "out", *QUICK, "--yes").exit_code == 0


def test_a_mask_that_leaves_one_colour_is_refused(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = np.random.default_rng(0).random((32, 32)) > 0.3
    x = np.where(known, np.tile(np.linspace(40, 200, 32), (32, 1)), 0).astype(np.uint8)
    Image.fromarray(x).save("d.png")
    Image.fromarray(~known).save("inverted.png")
    result = inpaint(run, "inverted.png")
    assert result.exit_code == 1 and "and all that it leaves is of one colour; --invert fills" in result.stderr
    assert not (tmp_path / "r.png").exists() and "Traceback" not in result.output
    assert inpaint(run, "inverted.png", "--yes").exit_code == 0
    assert inpaint(run, "inverted.png", "--invert").exit_code == 0


def test_missing_pixels_may_be_no_numbers(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.tile(np.linspace(-30, 200, 32), (32, 1)).astype(np.float32)
    np.save("clean.npy", x)
    known = np.ones(x.shape, bool)
    known[10:14, 4:28] = False
    Image.fromarray(known).save("mask.png")
    np.save("d.npy", np.where(known, x, np.where(np.arange(32) % 2, np.nan, np.inf)).astype(np.float32))
    more = ["--mask", "mask.png", "-o", "r.npy", *QUICK]
    result = run("inpaint", "d.npy", *more)
    assert result.exit_code == 0, result.output
    assert np.abs(np.load("r.npy") - x).max() < 12
    np.save("d.npy", np.where(np.arange(32) < 3, np.nan, x).astype(np.float32))
    result = run("inpaint", "d.npy", *more)
    assert result.exit_code == 0 and "9.4 % of the pixels have no data, and stay so" in result.stderr, result.output
    filled = np.load("r.npy")
    assert np.array_equal(np.isnan(filled), np.isnan(np.load("d.npy"))) and np.nanmax(np.abs(filled - x)) < 12
