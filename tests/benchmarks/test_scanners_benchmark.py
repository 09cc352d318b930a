"""``benchmarks/scanners.py``: what is simulated, and the table."""

import pytest
import torch

pytest.importorskip("nibabel")
pytest.importorskip("pydicom")


@pytest.fixture
def cases(script):
    return script("scanner_cases")


def test_maps_have_unit_sum_of_squares(cases):
    maps = cases.coil_maps(12, 16)
    assert maps.shape == (8, 12, 16)
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(12, 16, dtype=torch.float64))


@pytest.mark.parametrize(("pattern", "factor"), [("lines", 4), ("points", 8)])
def test_k_space_is_undersampled_and_its_noise_known(cases, pattern, factor):
    clean = torch.linspace(0, 1, 64, dtype=torch.float64).expand(48, 64)
    case = cases.coil_case("ramp", clean, pattern, factor)
    assert case.kspace.acceleration == pytest.approx(factor, rel=0.15)
    assert float(case.kspace.noise.real.std()) == pytest.approx(cases.LEVEL, rel=0.05)


@pytest.mark.parametrize("fan", [False, True])
def test_counts_are_those_of_the_slice(cases, fan):
    case = cases.ray_case("scan", 1e6, 20, 180.0, fan=fan)
    expected = case.geometry.physics().A(case.clean[None, None])[0, 0].T * 0.1 * case.geometry.pixel_spacing
    error = case.sinogram.integrals - expected * case.geometry.slant
    assert float((error / case.sinogram.levels).square().mean()) == pytest.approx(1, abs=0.1)
    assert not case.clean[~case.geometry.circle].any()


def test_the_table_has_a_line_for_each_row(script):
    benchmark = script("scanners")
    row = {"task": "CT", "method": "tv", "strength": "best", "quality": 30.0, "sigma": 0.1}
    proved = {"gap": 1e-3, "iterations": 9, "seconds": 2.0, "status": "converged"}
    content = {"settings": {"versions": {"icgn": "0"}, "threads": 1}, "rows": [row, {**row, **proved}]}
    lines = benchmark.page(content).splitlines()
    assert lines[4] == "| CT | tv | best | 25.5 | **30.00** | - | - | - | - |"
    assert lines[5] == "| CT | tv | best | 25.5 | **30.00** | 1.0e-03 | 9 | 2 | converged |"
