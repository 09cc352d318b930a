"""``icgn mri``: files in, files out, what is printed and refused."""

import json

import coil_cases
import numpy as np
import pytest
import tifffile
from weak_model import in_place_of_all

COILS, SIDE = 3, 20


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """An untrained model that removes noise visibly, in the place of all others."""
    return in_place_of_all(monkeypatch, filters=4, strength=2.0)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "k.npy", coil_cases.kspace(COILS, SIDE).numpy())
    np.save(tmp_path / "maps.npy", coil_cases.maps(COILS, SIDE).numpy())
    np.save(tmp_path / "noise.npy", coil_cases.noise(COILS, 500, 0.01, seed=2).numpy())
    return tmp_path


def typed(files, *more):
    return ("mri", files / "k.npy", "-o", files / "o.tif", "--maps", files / "maps.npy", "--gap", 0.02, *more)


def test_magnitude_phase_and_table_are_written(run, files):
    result = run(
        *typed(
            files, "--noise", files / "noise.npy", "--gap", 0.1, "--phase", files / "p.tif", "--json", files / "o.json"
        )
    )
    assert result.exit_code == 0, result.output
    magnitude, phase = tifffile.imread(files / "o.tif"), tifffile.imread(files / "p.tif")
    clean = coil_cases.picture(SIDE).numpy()
    x = magnitude * np.exp(1j * phase)
    assert np.sqrt(np.mean(np.abs(x - clean) ** 2)) < 0.15
    (record,) = json.loads((files / "o.json").read_text())
    assert record["coils"] == COILS and record["converged"] and record["relative_gap"] <= 0.1
    assert record["noise_found"] == "of a noise scan" and len(record["held_out"]) > 1
    for words in ("3 coils, 20 x 20", "CG-SENSE", "held-out", "% of its minimum", "o.tif"):
        assert words in result.output


def test_levels_are_said_where_a_file_holds_no_floats(run, files):
    command = ["mri", files / "k.npy", "-o", files / "o.png", "--maps", files / "maps.npy"]
    result = run(*command, "--noise", "0.01", "--sigma", 12, "--gap", 0.02)
    assert result.exit_code == 0 and "black is 0 and white" in result.output and "given" in result.output


def test_quiet_says_nothing_and_json_goes_to_the_standard_output(run, files):
    result = run(*typed(files, "--noise", 0.01, "--sigma", 12, "--quiet", "--json", "-"))
    assert json.loads(result.stdout)[0]["status"] == "converged"
    assert run(*typed(files, "--noise", 0.01, "--sigma", 12, "--quiet")).output == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--noise", "-1"), "--noise: got -1, expected a positive number"),
        (("--noise", "missing.npy"), "missing.npy: there is no such file"),
        (("--noise", "low"), "--noise: got 'low', expected a level in the unit of k-space"),
        (("--sigma", "300"), "--sigma: got 300, expected a number between 0 and 255"),
        (("--gap", "0"), "--gap: got 0"),
        (("--slice", "4"), "slice: got 4, expected 0"),
        (("-o", "o.xyz"), "got suffix '.xyz'"),
        (("--phase", "o.jpeg.doc"), "got suffix '.doc'"),
        (("--json", "o.txt"), "expected .json"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(run, files, change, words):
    result = run(*typed(files), *change)
    assert result.exit_code == 2 and words in " ".join(result.output.split())


def test_files_that_are_read_are_not_written_over(run, files):
    result = run("mri", files / "k.npy", "-o", files / "maps.npy", "--maps", files / "maps.npy")
    assert result.exit_code == 2 and "would overwrite a file that is read" in result.output
    result = run("mri", files / "k.npy", "-o", files / "o.tif", "--phase", files / "o.tif")
    assert result.exit_code == 2 and "would be written twice" in result.output


def test_a_radial_scan_is_reconstructed_and_options_that_need_each_other_are_told(run, files):
    pytest.importorskip("sigpy")
    angles, k = np.arange(24) * np.pi / 24, (np.arange(2 * SIDE) - SIDE) / 2
    points = np.stack([k * np.sin(angles)[:, None], k * np.cos(angles)[:, None]], -1)
    t = np.arange(SIDE) - SIDE // 2
    waves = [np.exp(-2j * np.pi * points[..., i, None] * t / SIDE) for i in (0, 1)]
    seen = (coil_cases.maps(COILS, SIDE) * coil_cases.picture(SIDE)).numpy()
    np.save(files / "k.npy", np.einsum("sri,cij,srj->csr", waves[0], seen, waves[1]) / SIDE)
    np.save(files / "t.npy", points)
    options = ("--trajectory", files / "t.npy", "--noise", 0.01, "--sigma", 12)
    result = run(*typed(files, *options, "--gap", 0.5))
    assert result.exit_code == 0, result.output
    assert "24 shots of 960 samples" in result.output
    assert np.abs(tifffile.imread(files / "o.tif") - coil_cases.picture(SIDE).abs().numpy()).mean() < 0.1
    for more, words in ((("--slice", 0), "--slice: got 0 beside --trajectory"), (("--size", 8), "size: got 8 pixels")):
        result = run(*typed(files, *options, *more))
        assert result.exit_code == 2 and words in " ".join(result.output.split())
    result = run(*typed(files, "--size", 8))
    assert result.exit_code == 2 and "without --trajectory" in " ".join(result.output.split())
