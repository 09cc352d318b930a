"""The inverse problems of ``benchmarks/inverse.py`` on a small picture, without data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import icgn

BENCHMARKS = Path(icgn.__file__).parent / "benchmarks"
SIDE = 48
TASKS = (
    "deblurring",
    "inpainting, half missing",
    "inpainting, text",
    "super-resolution x2",
    "super-resolution x4",
    "MRI x4",
    "MRI x4, phantom",
    "CT, 60 views",
    "CT, 60 views, phantom",
)


def picture(tasks, task):
    if task.pictures == "phantom":
        return tasks.ellipses(SIDE, 0)
    return icgn.datasets.bundled(gray=True).find("camera").image[:, 100 : 100 + SIDE, 220 : 220 + SIDE]


def small_case(tasks, name):
    task = tasks.TASKS[name]
    return task.make("camera", picture(tasks, task), 0, tasks.read_kernels(None))


def test_every_task_is_tested(script):
    assert tuple(script("inverse_tasks").TASKS) == TASKS


@pytest.mark.parametrize("name", TASKS)
def test_measurements_are_those_of_the_picture(script, name):
    tasks = script("inverse_tasks")
    case = small_case(tasks, name)
    assert case.start.shape == case.clean.shape and case.clean.min() >= 0 and case.clean.max() <= 1
    residual = (case.y - case.physics.A(case.clean.to(case.y)))[case.y != 0]
    assert 0.8 * tasks.NOISE < float(residual.square().mean().sqrt()) < 1.2 * tasks.NOISE
    again = small_case(tasks, name)
    assert torch.equal(case.y, again.y)


@pytest.mark.parametrize("name", TASKS)
def test_total_variation_is_certified_and_better_than_the_start(script, name):
    inverse, tasks = script("inverse"), script("inverse_tasks")
    case = small_case(tasks, name)
    method = inverse.Method("tv", icgn.TotalVariation(eps=0.01), "")
    answer = inverse.restore(case, method, 0.05, 1.0, gap=1e-2, max_iter=1000)
    assert answer.relative_gap <= 1e-2
    low, high = case.box
    assert low <= float(answer.x.min()) and float(answer.x.max()) <= high
    assert inverse.psnr(case, answer.x) > inverse.psnr(case, case.start)


def test_the_search_finds_the_best_point_of_its_grid(script, monkeypatch):
    inverse, tasks = script("inverse"), script("inverse_tasks")
    case = small_case(tasks, "deblurring")
    calls = []

    def score(_, x):
        sigma, weight = calls[-1]
        return -(abs(torch.tensor(sigma * 255 / 20).log2()) + abs(torch.tensor(weight / 2).log2())).item()

    def answer(case, method, sigma, weight, *rest):
        calls.append((sigma, weight))
        return type("Answer", (), {"x": case.start})

    monkeypatch.setattr(inverse, "restore", answer)
    monkeypatch.setattr(inverse, "psnr", score)
    sigma, weight, best = inverse.tune([case], None)
    # Sigma is a power of 2^(1/4) in gray levels.
    assert 255 * sigma == pytest.approx(20, rel=0.1) and weight == pytest.approx(2) and best > -0.1
    assert len(calls) == len(set(calls)) <= 16


def test_rows_are_kept_and_not_computed_again(script, tmp_path, monkeypatch):
    inverse, tasks = script("inverse"), script("inverse_tasks")
    case, method = small_case(tasks, "inpainting, text"), inverse.Method("tv", icgn.TotalVariation(eps=0.03), "a")
    numbers = {"sigma": 0.05, "weight": 1.0}
    inverse.measure(inverse.Results(tmp_path / "results.json"), "inpainting, text", method, case, numbers)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["settings"]["noise"] == tasks.NOISE and len(content["rows"]) == 1
    assert content["rows"][0]["psnr"] > content["rows"][0]["start_psnr"]
    monkeypatch.setattr(inverse, "restore", None)
    kept = inverse.Results(tmp_path / "results.json")
    inverse.measure(kept, "inpainting, text", method, case, numbers)
    assert len(kept.rows) == 1


def test_the_section_counts_pictures_that_all_methods_have(script, tmp_path):
    section = script("inverse_table").section
    assert section(tmp_path) == ""
    common = {"task": "inpainting, text", "start": "interpolated", "start_psnr": 20.0, "sigma": 10 / 255, "weight": 1.0}
    measured = {"relative_gap": 5e-4, "iterations": 30, "seconds": 1.0, "certified": True}
    rows = [
        {**common, **measured, "method": method, "picture": picture, "psnr": value}
        for method, picture, value in (("tv", "a", 30.0), ("tv", "b", 32.0), ("m", "a", 31.0), ("tv", "c", 0.0))
    ]
    rows.append({**rows[2], "picture": "b", "psnr": 34.0, "certified": False, "relative_gap": 2e-3})
    settings = {"seed": 0, "threads": 1, "crop": 192, "gap": 1e-3, "versions": {"icgn": "0"}}
    (tmp_path / "results.json").write_text(json.dumps({"settings": settings, "tuning": [], "rows": rows}))
    lines = section(tmp_path).splitlines()
    assert "| inpainting, text | interpolated | - | - | 20.00 | - | - | - | - |" in lines
    assert "| inpainting, text | tv | 10.0 | 1.00 | **31.00** | 5.0e-04 | 30 | 1.0 | 2/2 |" in lines
    assert "| inpainting, text | m | 10.0 | 1.00 | **32.50** | 2.0e-03 | 30 | 1.0 | 1/2 |" in lines


def test_the_figure_is_drawn(script, tmp_path):
    tasks, figure = script("inverse_tasks"), script("inverse_figure")
    panels = []
    for name in ("deblurring", "MRI x4"):
        case = small_case(tasks, name)
        panels.append((name, case, ["tv"], [case.start]))
    figure.draw(panels, tasks.TASKS, tmp_path / "pictures.png")
    drawn = icgn.datasets.read_picture(tmp_path / "pictures.png").pixels
    assert drawn.shape[1] > 2 * SIDE and drawn.shape[2] > 3 * SIDE


def test_a_missing_file_of_kernels_is_named(script, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"levin09_kernels\.npz: no such file, expected the arrays k1, k2"):
        script("inverse_tasks").read_kernels(tmp_path)
