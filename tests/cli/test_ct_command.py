"""``icgn ct``: files in, files out, what is printed and refused."""

import json

import numpy as np
import pytest
import tifffile
import torch
from weak_model import in_place_of_all

from icgn.scanners import Geometry

SIDE, VIEWS, SPACING = 24, 20, 3.0


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """An untrained model that removes noise visibly, in the place of all others."""
    return in_place_of_all(monkeypatch, filters=4, strength=2.0)


@pytest.fixture
def files(tmp_path):
    t = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
    clean = 0.2 * (t[:, None].square() + t.square() < 0.6) + 0.2 * ((t[:, None] - 0.2).square() + t.square() < 0.05)
    geometry = Geometry(torch.arange(VIEWS, dtype=torch.float64) * 180 / VIEWS, SIDE, SPACING)
    integrals = 0.1 * SPACING * geometry.physics().A(clean[None, None].double())[0, 0].T
    counts = torch.poisson(2e4 * (-integrals).exp(), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "clean.npy", clean.numpy())
    tifffile.imwrite(tmp_path / "counts.tif", counts.numpy().astype(np.uint16), photometric="minisblack")
    np.save(tmp_path / "integrals.npy", torch.log(2e4 / counts).numpy())
    (tmp_path / "g.toml").write_text(f"beam = 'parallel'\ndetector_spacing = {SPACING}\n")
    return tmp_path


def typed(files, name="counts.tif", *more):
    return ("ct", files / name, "-o", files / "o.tif", "--angles", "0,180", "--geometry", files / "g.toml", *more)


def test_a_slice_in_its_unit_and_the_table_are_written(run, files):
    options = ("--flat", 20000, "--gap", 0.1, "--json", files / "o.json")
    result = run(*typed(files, "counts.tif", *options))
    assert result.exit_code == 0, result.output
    slice, clean = tifffile.imread(files / "o.tif"), np.load(files / "clean.npy")
    assert np.sqrt(np.mean((slice - clean) ** 2)) < 0.03
    (record,) = json.loads((files / "o.json").read_text())
    assert record["unit"] == "1/cm" and record["relative_gap"] <= 0.1 and record["rings"] == []
    for words in ("20 views of 24 cells", "counts", "quadratic approximation", "held-out", "24 pixels of 3 mm"):
        assert words in " ".join(result.output.split())


def test_line_integrals_have_their_noise_estimated_or_given(run, files):
    for options, words in (((), "estimated"), (("--noise", 0.01), "given")):
        result = run(*typed(files, "integrals.npy", "--sigma", 10, "--gap", 0.1, *options))
        assert result.exit_code == 0 and words in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("counts.tif", (), "--flat: got none"),
        ("counts.tif", ("--flat", "90"), "times those without an object"),
        ("counts.tif", ("--flat", "0"), "--flat: got counts that are not positive"),
        ("counts.tif", ("--flat", "0.01"), "--flat: got 0.01 counts without an object"),
        ("counts.tif", ("--flat", "20000", "--noise", "0.1"), "--noise: got a level beside --flat"),
        (
            "integrals.npy",
            ("--angles", "0,3.14159"),
            "error: --angles: got 20 views within 2.98 degrees, expected degrees; these look like radians",
        ),
        ("integrals.npy", ("--angles", "all"), "--angles: got 'all'"),
        ("integrals.npy", ("--geometry", "none.toml"), "none.toml: there is no such file"),
        ("integrals.npy", ("--noise", "-1"), "--noise: got a level that is not positive"),
        ("none.npy", (), "none.npy"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, files, name, options, words):
    result = run(*typed(files, name, *options))
    assert result.exit_code == 2 and words in " ".join(result.output.split())


def test_a_cell_that_counts_too_little_is_told(run, files):
    counts = tifffile.imread(files / "counts.tif").astype(float)
    counts[:, 6] *= 0.6
    np.save(files / "ring.npy", counts)
    result = run(*typed(files, "ring.npy", "--flat", 20000, "--sigma", 60, "--gap", 0.1, "--gains", 0))
    assert result.exit_code == 0 and "rings" in result.output and "cells 6" in " ".join(result.output.split())
    assert "cells alike" in " ".join(result.output.split())
    result = run(*typed(files, "ring.npy", "--flat", 20000, "--sigma", 60, "--gap", 0.1, "--gains", 0.5))
    assert result.exit_code == 0 and "cells differ by" in " ".join(result.output.split())


def test_an_axis_that_is_not_in_the_middle_is_told(run, files):
    np.save(files / "moved.npy", np.roll(np.load(files / "integrals.npy"), 2, 1))
    result = run(*typed(files, "moved.npy", "--noise", 0.02, "--sigma", 60, "--gap", 0.2))
    words = " ".join(result.output.split())
    assert "after the middle of the detector; leave out the first 4 cells" in words
    result = run(*typed(files, "integrals.npy", "--noise", 0.02, "--sigma", 60, "--gap", 0.2))
    assert "the axis is seen" not in " ".join(result.output.split())


def test_what_pixels_cannot_explain_is_told_from_wrong_angles(run, files):
    fine = np.load(files / "integrals.npy")
    np.save(files / "fine.npy", fine + 0.003 * np.sin(np.arange(fine.size)).reshape(fine.shape))
    options = ("--noise", 0.001, "--sigma", 10, "--gap", 0.5)
    assert "pixels, scatter or beam hardening" in " ".join(run(*typed(files, "fine.npy", *options)).output.split())
    np.save(files / "shuffled.npy", np.roll(fine[::-1], 5, 1))
    turned = run(*typed(files, "shuffled.npy", *options, "--angles", "0,360"))
    assert "angles, geometry or --flat are others" in " ".join(turned.output.split())
