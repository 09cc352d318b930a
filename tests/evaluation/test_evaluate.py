"""Evaluation: every number against its definition, files that can be read back, and bad requests."""

import csv
import json
import math
import re
import sys

import pytest
import torch
from training_cases import Heard, write_photographs
from typer.testing import CliRunner

import icgn
from icgn import cli, datasets
from icgn.datasets import add_noise, quality, seed_of
from icgn.evaluation import Request, Restoration, evaluate, evaluation, make_restorer, markdown, means, read_results
from icgn.evaluation.restorers import BM3D, TotalVariation
from icgn.evaluation.results import current
from icgn.regularizers import RidgeICGN, read_card, save_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_photographs(tmp_path / "photographs", 3)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model" / "tiny.safetensors"
    save_model(
        RidgeICGN(filters=4, size=3, knots=3, min_knee=0.1),
        path,
        {"name": "tiny", "seed": 3, "recipe_file": "tiny.toml"},
    )
    return path


def run(*arguments):
    result = CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_rows_are_what_they_say(folder, model):
    restorer = make_restorer(str(model), CPU, 1e-4)
    rows = evaluate([restorer], datasets.folder(folder, gray=True), [10, 25])
    assert [(e.image, e.sigma) for e in rows] == [(i, s) for s in (10, 25) for i in ("00", "01", "02")]
    for entry in rows[:2]:
        clean = datasets.folder(folder, gray=True).find(entry.image).image
        noisy = add_noise(clean, entry.sigma / 255, seed_of(entry.image))
        solution = icgn.denoise(noisy[None], entry.sigma / 255, regularizer=icgn.load_pretrained(model))
        after = quality(solution.x[0], clean)
        assert (entry.psnr, entry.ssim) == pytest.approx((after.psnr, after.ssim), rel=1e-6)
        assert entry.noisy_psnr == pytest.approx(quality(noisy, clean).psnr)
        assert entry.iterations == int(solution.stats.iterations[0]) and entry.seconds > 0
        assert entry.rms_distance == pytest.approx(255 * float(solution.certificate.rms_distance[0]), rel=1e-3)
        assert entry.status == "converged"
        assert entry.parameters == sum(p.numel() for p in icgn.load_pretrained(model).parameters())


def test_the_noise_depends_on_seed_and_name_alone(folder):
    tv, photographs = [TotalVariation()], datasets.folder(folder, gray=True)
    rows = evaluate(tv, photographs, [25], seed=1)
    assert evaluate(tv, photographs[1:], [25], seed=1)[0].psnr == rows[1].psnr
    assert evaluate(tv, photographs, [25], seed=2)[0].noisy_psnr != rows[0].noisy_psnr


def test_a_gray_model_takes_the_channels_of_colour(folder, model):
    rows = evaluate([make_restorer(str(model), CPU, 1e-4)], datasets.folder(folder)[:1], [25])
    clean = datasets.folder(folder)[0].image
    noisy = add_noise(clean, 25 / 255, seed_of("00"))
    channels = icgn.denoise(noisy[:, None], 25 / 255, regularizer=icgn.load_pretrained(model), tol=1e-4).x[:, 0]
    assert rows[0].psnr == pytest.approx(quality(channels, clean).psnr, rel=1e-6)


def test_total_variation_is_better_than_nothing_and_near_its_best_weight():
    clean = datasets.bundled(gray=True).find("coins").image[:, 100:200, 100:200]
    for sigma in (10 / 255, 25 / 255):
        noisy, tv = add_noise(clean, sigma, 0), TotalVariation()
        best = quality(tv(noisy, sigma).image, clean).psnr
        assert best > quality(noisy, clean).psnr + 3
        for factor in (0.3, 3.0):
            other = TotalVariation()
            other.factor = factor * tv.factor
            assert quality(other(noisy, sigma).image, clean).psnr < best


def test_bm3d_where_it_is_installed():
    pytest.importorskip("bm3d", reason="bm3d is not installed: pip install 'icgn[bm3d]'")
    clean = datasets.bundled(gray=True).find("camera").image[:, 100:164, 100:164]
    noisy = add_noise(clean, 25 / 255, 0)
    assert quality(BM3D()(noisy, 25 / 255).image, clean).psnr > quality(noisy, clean).psnr + 5


def test_bm3d_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    result = run("--model", "bm3d")
    assert result.exit_code == 2 and "bm3d is not installed, expected: pip install" in result.stderr


def test_the_files(tmp_path, folder, model):
    result = run("--model", model, "--model", "tv", "--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows, facts = read_results(tmp_path / "out" / "results.json")
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(rows) == 6 and facts["seed"] == 0 and list(facts["pictures"]) == ["00", "01", "02"]
    assert len(set(facts["pictures"].values())) == 3
    assert facts["methods"]["tiny"]["sha256"] == read_card(model)["sha256"]
    assert facts["methods"]["tiny"]["recipe_file"] == "tiny.toml"
    (measured,) = facts["methods"]["tiny"]["measured"]
    assert measured["versions"]["torch"] == torch.__version__.split("+")[0] and measured["device"]
    assert str(tmp_path) not in json.dumps(content)
    table = means(rows)
    assert [m["psnr"] for m in content["means"]] == [m.psnr for m in table]
    assert table[0].psnr == pytest.approx(sum(e.psnr for e in rows[:3]) / 3)
    assert table[0].model == "tiny" and table[0].converged == 3 and math.isnan(table[1].rms_distance)
    with (tmp_path / "out" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["psnr"]) for line in lines] == [e.psnr for e in rows] and lines[3]["rms_distance"] == ""
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(rf"tiny +{table[0].parameters} +25 +{table[0].noisy_psnr:.2f} +{table[0].psnr:.2f}", result.output)
    assert f"**{table[0].psnr:.2f}**" in markdown(table)


def test_known_rows_are_not_computed_again(tmp_path, folder, model, monkeypatch):
    arguments = ("--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    assert run("--model", "tv", *arguments).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(TotalVariation, "restore", None)
        assert run("--model", "tv", "--model", model, *arguments).exit_code == 0
    rows, facts = read_results(tmp_path / "out" / "results.json")
    assert sorted({e.model for e in rows}) == ["tiny", "tv"] and set(facts["methods"]) == {"tiny", "tv"}
    # A method that has changed replaces its earlier self.
    monkeypatch.setattr(TotalVariation, "factor", 0.1)
    assert run("--model", "tv", *arguments).exit_code == 0
    changed = read_results(tmp_path / "out" / "results.json")[0]
    assert len(changed) == 6 and changed[3].psnr != rows[3].psnr and changed[0] == rows[0]
    assert current(changed, [make_restorer("tv", CPU, 1e-4)]) == changed[3:]
    monkeypatch.undo()
    assert current(changed, [make_restorer(str(model), CPU, 1e-4), make_restorer("tv", CPU, 1e-4)]) == changed[:3]


def test_rows_keep_the_settings_they_were_computed_by(tmp_path, folder, monkeypatch):
    out = tmp_path / "out"
    arguments = ("--model", "tv", "--dataset", folder, "-o", out)
    assert run(*arguments, "--sigma", 25, "--threads", 2).exit_code == 0
    before = (out / "results.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(TotalVariation, "restore", None)
        assert run(*arguments, "--sigma", 25, "--threads", 1).exit_code == 0
    assert (out / "results.json").read_bytes() == before, "nothing was computed"
    assert run(*arguments, "--sigma", 5, "--threads", 1).exit_code == 0
    measured = read_results(out / "results.json")[1]["methods"]["tv"]["measured"]
    assert [m["threads"] for m in measured] == [2, 1]
    # Rows are not those of another version of the package.
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr("icgn.evaluation.restorers.version", lambda package: "0.0")
        patch.setattr(TotalVariation, "restore", None)
        evaluation(Request(["tv"], dataset=str(folder), sigmas=(25.0,)), out=out)


def test_a_changed_method_replaces_its_rows_only_when_there_are_new_ones(tmp_path, folder, monkeypatch):
    request = Request(["tv"], dataset=str(folder), sigmas=(25.0,))
    evaluation(request, out=tmp_path / "out")
    before = (tmp_path / "out" / "results.json").read_bytes()
    monkeypatch.setattr(TotalVariation, "factor", 0.1)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(TotalVariation, "restore", None)
        evaluation(request, out=tmp_path / "out")
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_one_run_at_a_time_writes_to_a_folder(tmp_path, folder, monkeypatch):
    request, restore, told = Request(["tv"], dataset=str(folder), sigmas=(25.0,)), TotalVariation.restore, []

    def another(self, y, sigma):
        with pytest.raises(BlockingIOError, match="out: another run writes there"):
            evaluation(Request(["tv"], dataset=str(folder), sigmas=(5.0,)), out=tmp_path / "out")
        told.append(sigma)
        return restore(self, y, sigma)

    monkeypatch.setattr(TotalVariation, "restore", another)
    evaluation(request, out=tmp_path / "out")
    assert len(told) == 3
    assert len(read_results(tmp_path / "out" / "results.json")[0]) == 3


def test_a_run_that_is_stopped_keeps_its_rows_and_the_next_completes_it(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(sys.modules["icgn.evaluation.evaluation"], "_WRITE_EVERY", 0.0)
    request = Request(["tv"], dataset=str(folder), sigmas=(25.0,))
    restore, done = TotalVariation.restore, []

    def stopped_at_the_third(self, y, sigma):
        done.append(y)
        if len(done) == 3:
            raise KeyboardInterrupt
        return restore(self, y, sigma)

    with monkeypatch.context() as patch:
        patch.setattr(TotalVariation, "restore", stopped_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            evaluation(request, out=tmp_path / "out")
        kept, _ = read_results(tmp_path / "out" / "results.json")
        assert [e.image for e in kept] == ["00", "01"]
        evaluation(request, out=tmp_path / "out")
    rows, _ = read_results(tmp_path / "out" / "results.json")
    assert rows[:2] == kept and [e.image for e in rows] == ["00", "01", "02"] and len(done) == 4


def test_an_evaluation_reports_and_prints_nothing_itself(tmp_path, folder, capfd):
    heard = Heard()
    evaluation(Request(["tv"], dataset=str(folder), sigmas=(5.0, 25.0)), out=tmp_path / "out", progress=heard)
    steps = [("step", n, f"tv, sigma {5 if n <= 3 else 25}") for n in range(1, 7)]
    assert heard.calls == [("start", "evaluating", 6, 0), *steps, ("end",)]
    assert capfd.readouterr() == ("", "")
    with pytest.warns(FutureWarning, match=r"evaluation\(console=...\) is ignored"):
        evaluation(Request(["tv"], dataset=str(folder), sigmas=(5.0,)), console=None)


def test_models_of_one_name_are_told_apart(tmp_path, folder, model):
    other = tmp_path / "other" / "tiny.safetensors"
    save_model(RidgeICGN(filters=4, size=3, knots=3, min_knee=0.5), other, {"name": "tiny"})
    arguments = ("--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    assert run("--model", model, "--model", other, *arguments).exit_code == 0
    table = means(read_results(tmp_path / "out" / "results.json")[0])
    assert [m.pictures for m in table] == [3, 3] and table[0].psnr != table[1].psnr
    assert run("--model", model, "--model", other, *arguments, "--strength", "sure").exit_code == 0
    named = {m.model: m.psnr for m in means(read_results(tmp_path / "out" / "results.json")[0])}
    assert set(named) == {name for path in (model, other) for name in (str(path), f"{path}, sure")}
    assert len(set(named.values())) == 4
    # In two runs, too: the second does not replace the first.
    separately = (*arguments[:-1], tmp_path / "separately")
    assert run("--model", model, *separately).exit_code == run("--model", other, *separately).exit_code == 0
    later = {m.model: m.psnr for m in means(read_results(tmp_path / "separately" / "results.json")[0])}
    assert later == {"tiny": named[str(model)], str(other): named[str(other)]}
    shipped = tmp_path / "tv.safetensors"
    save_model(RidgeICGN(filters=4, size=3, knots=3), shipped, {"name": "ridge-gray"})
    assert run("--model", shipped, *separately).exit_code == 0
    assert str(shipped) in {e.model for e in read_results(tmp_path / "separately" / "results.json")[0]}
    assert "got 'tv' twice" in run("--model", "tv", "--model", "tv", *arguments).stderr
    assert "sigma: got 25 twice" in run("--model", "tv", *arguments, "--sigma", 25).stderr


def test_a_run_is_listed_by_its_folder(tmp_path, folder, model):
    arguments = ("--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    for name in ("mine", "ridge-gray"):
        save_model(icgn.load_pretrained(model), tmp_path / "runs" / name / "tiny.safetensors", {"name": "two-minutes"})
        assert run("--model", tmp_path / "runs" / name, *arguments, "--weight", 2).exit_code == 0
    listed = {m.model for m in means(read_results(tmp_path / "out" / "results.json")[0])}
    assert listed == {"mine, 2", f"{tmp_path / 'runs' / 'ridge-gray'}, 2"}


def test_a_perfect_picture_is_written_and_read_back(tmp_path, folder, monkeypatch):
    for file in folder.iterdir():
        datasets.write_picture(file, datasets.Picture(torch.zeros(1, 24, 24)))
    monkeypatch.setattr(TotalVariation, "restore", lambda self, y, sigma: Restoration(-y.abs(), 0.0))
    assert run("--model", "tv", "--dataset", folder, "--sigma", 25, "-o", tmp_path / "out").exit_code == 0
    rows, _ = read_results(tmp_path / "out" / "results.json")
    assert rows[0].psnr == math.inf and math.isnan(rows[0].rms_distance)


def test_results_of_other_pictures_are_not_mixed(tmp_path, folder):
    arguments = ("--model", "tv", "--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    result = run(*arguments, "--seed", 1)
    assert result.exit_code == 2 and "results.json: is of another seed" in result.stderr.replace("\n", "")
    (tmp_path / "out" / "results.json").write_text("{}")
    assert "not the results of icgn evaluate" in run(*arguments).stderr
    (tmp_path / "out" / "results.json").write_bytes(before)
    assert run(*arguments, "--every", 2).exit_code == 2
    datasets.write_picture(folder / "01.png", datasets.Picture(torch.rand(1, 24, 24)))
    told = run(*arguments).stderr.replace("\n", " ")
    assert "is of other pictures: 1 of them, 01 for one" in told
    content = json.loads(before)
    content["settings"]["pictures"] = list(content["settings"]["pictures"])
    (tmp_path / "out" / "results.json").write_text(json.dumps(content))
    assert "an icgn that did not say which" in run(*arguments).stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nothing"], "model: got 'nothing', expected one of"),
        (["--model", "tv", "--sigma", 0], "sigma: got 0, expected gray levels"),
        (["--model", "tv", "--sigma", "nan"], "sigma: got nan"),
        (["--model", "tv", "--dataset", "bsd68"], "data: got none, expected the root of BSDS500"),
        (["--model", "tv", "--dataset", "bsd68", "--data", "/nowhere"], "BSD68.txt: cannot be read"),
        (["--model", "tv", "--dataset", "/nowhere"], "/nowhere: not a folder"),
        (["--model", "ridge-color"], "model: ridge-color takes colour pictures, expected a gray one, or --color"),
        (["--model", "tv", "--tol", 0], "--tol: got 0"),
        (["--model", "tv", "--device", "abacus"], "--device: got 'abacus'"),
    ],
)
def test_bad_requests(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr.replace("\n", "")


def test_a_file_that_is_no_picture_is_left_out_by_name(tmp_path, folder):
    (folder / "text.png").write_text("not a picture")
    result = run("--model", "tv", "--dataset", folder, "--sigma", 25, "-o", tmp_path / "out")
    assert result.exit_code == 0 and "warning: left out:" in result.stderr and "text.png" in result.stderr
    assert "UserWarning" not in result.stderr and len(read_results(tmp_path / "out" / "results.json")[0]) == 3


def test_an_empty_request():
    with pytest.raises(ValueError, match="model: got none"):
        evaluation(Request([]))
