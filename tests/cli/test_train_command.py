"""icgn train, from the command line to a model that denoises."""

import importlib
import json
import signal

import pytest
import tomli_w
import torch
from training_cases import MODEL, break_loss, data, equal_weights, nan_loss, recipe, train, write_photographs
from typer.testing import CliRunner

import icgn
from icgn import cli, datasets, training
from icgn.regularizers import ModelError, read_card, save_model
from icgn.training import CHECKPOINT, Adversarial, Bilevel, MaskLikelihood, Recipe, TrainingError, draw, read_checkpoint

LOOP = importlib.import_module("icgn.training.fit")


@pytest.fixture
def folder(tmp_path):
    return write_photographs(tmp_path / "photographs", 11)


def write_recipe(path, **changes):
    path.write_text(tomli_w.dumps(recipe(**changes).to_dict()))
    return path


@pytest.fixture
def run(tmp_path, folder):
    def invoke(*options, **changes):
        file = write_recipe(tmp_path / "r.toml", **changes)
        arguments = [
            "train",
            "--recipe",
            file,
            "--data",
            folder,
            "--out",
            tmp_path / "run",
            "--device",
            "cpu",
            *options,
        ]
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def test_train_command_makes_a_model_that_denoises(tmp_path, folder, run):
    result = run("--threads", 1)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "run" / "tiny.safetensors") in result.output
    card = read_card(tmp_path / "run")
    assert card["recipe_file"] == "r.toml" and Recipe.from_dict(card["recipe"]) == recipe()
    assert card["data"]["pictures"] == 10 and card["data"]["validation_pictures"] == 1
    assert card["steps"] == 12 and card["seconds"] > 0 and card["psnr"]["validation"].keys() == {"25"}
    assert str(tmp_path) not in json.dumps(card)
    arguments = ["denoise", folder / "00.png", "-o", tmp_path / "o.png", "--sigma", 25, "--model", tmp_path / "run"]
    assert CliRunner().invoke(cli.app, [str(a) for a in arguments]).exit_code == 0
    again = run("--resume")
    assert again.exit_code == 0 and read_card(tmp_path / "run")["sha256"] == card["sha256"]


def test_train_command_starts_from_a_model(tmp_path, run):
    start = training.build(recipe(seed=9))
    save_model(start, tmp_path / "start.safetensors", {})
    small = {"bank": 1e-9, "log_": 1e-9}
    assert run(init=str(tmp_path / "start.safetensors"), model={}, learning_rate=small).exit_code == 0
    trained = icgn.load_pretrained(tmp_path / "run")
    assert torch.allclose(trained.bank.raw, start.bank.raw, atol=1e-6)


def test_init_is_widened_to_the_model_of_the_recipe(tmp_path):
    start = training.build(recipe(seed=2))
    save_model(start, tmp_path / "start.safetensors", {})
    wanted = recipe(
        init=str(tmp_path / "start.safetensors"), model={**MODEL, "filters": 4, "size": 5, "min_knee": 0.01}
    )
    wide = training.build(wanted)
    assert wide.bank.raw.shape == (4, 1, 5, 5) and wide.min_knee == 0.01 and wide.bank.raw.requires_grad
    assert torch.allclose(wide.bank.weight[:3, :, 1:-1, 1:-1], start.bank.weight, atol=1e-6)
    assert torch.equal(wide.log_lambda[:, :3], start.log_lambda)


def test_a_conditional_network_is_trained_upon_a_ridge_network(tmp_path, run):
    """First by the likelihood of its masks, then end to end from there, by --init."""
    ridge = training.build(recipe(seed=9))
    save_model(ridge, tmp_path / "ridge.safetensors", {})
    model = {"type": "ConditionalICGN", "width": 4, "blocks": 0}
    rates = {"network": 1e-2, "ridge": 0.0}
    start = recipe(
        init=str(tmp_path / "ridge.safetensors"), model=model, loss=MaskLikelihood(max_iter=3), learning_rate=rates
    )
    training.fit(made := training.build(start), start, data(), tmp_path / "start")
    assert torch.equal(made.ridge.bank.raw, ridge.bank.raw) and bool((made.network.direct != 0).any())
    training.export(tmp_path / "start" / "checkpoint.pt", tmp_path / "start" / "tiny.safetensors")
    options = ("--init", str(tmp_path / "start"))
    assert run(*options, model=model, learning_rate={"network": 1e-9, "ridge": 1e-9}).exit_code == 0
    trained = icgn.load_pretrained(tmp_path / "run")
    assert torch.allclose(trained.network.direct, made.network.direct, atol=1e-6)
    assert read_card(tmp_path / "run")["recipe"]["init"] == str(tmp_path / "start")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 2}, "cannot become .* filters: got 2, expected at least the 3"),
        ({"knots": 5}, "cannot become .* knots: cannot be changed"),
        ({"type": "ICNN"}, r"start\.safetensors' cannot become that: ICNN cannot be built upon RidgeICGN"),
    ],
)
def test_init_of_another_architecture(tmp_path, change, message):
    save_model(training.build(recipe()), tmp_path / "start.safetensors", {})
    with pytest.raises(ModelError, match=message):
        training.build(recipe(init=str(tmp_path / "start.safetensors"), model={**MODEL, **change}))


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    models = [training.build(recipe(seed=1)) for _ in range(2)]
    assert torch.equal(torch.rand(2), expected)
    assert equal_weights(models[0], models[1])


def test_a_weight_that_was_fitted_becomes_part_of_the_model(tmp_path, run, folder):
    result = run(loss=Adversarial(), steps=6, validate_every=3)
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "run")
    row = card["validation"]
    assert row["weight_25"] > 0 and row["scale_25"] > 0
    content = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    raw = training.build(recipe())
    raw.load_state_dict(content["model"])
    x = datasets.folder(folder, gray=True)[0].image[None]
    expected = row["weight_25"] * raw.fn(row["scale_25"] * x, 25 / 255)
    assert torch.allclose(icgn.load_pretrained(tmp_path / "run").fn(x, 25 / 255), expected, rtol=1e-2)
    history = json.loads(content["history"])
    assert history[0]["scale_25"] == 1 and history[-1]["psnr_25"] >= history[0]["psnr_25"] - 0.5


def test_a_model_without_its_weight_is_not_written(tmp_path, run, monkeypatch, interruptible):
    def press(images, recipe, step, *rest, **options):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return draw(images, recipe, step, *rest, **options)

    monkeypatch.setattr(LOOP, "draw", press)
    assert run(loss=Adversarial()).exit_code == 130
    assert not list((tmp_path / "run").glob("*.safetensors"))
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the weight of the model is not fitted yet"):
        training.export(tmp_path / "run" / CHECKPOINT, tmp_path / "m.safetensors")


def test_training_on_another_physics(tmp_path, run):
    blur = {"type": "BlurFFT", "img_size": [1, 16, 16], "filter": {"function": "gaussian_blur", "sigma": [1.0, 1.0]}}
    result = run(physics=blur, loss=Bilevel(max_iter=10), sigma=(4 / 255, 12 / 255), validation_sigma=(8 / 255,))
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "run")["psnr"]["validation"]["8"] > 15


def test_train_command_interrupted_leaves_a_model(tmp_path, run, monkeypatch, interruptible):
    def press(images, recipe, step, *rest, **options):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return draw(images, recipe, step, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LOOP, "draw", press)
        result = run()
    assert result.exit_code == 130 and "interrupted: saved step 3" in result.output.replace("\n", "")
    assert read_card(tmp_path / "run")["steps"] == 3
    assert run().exit_code == 1
    assert run("--resume").exit_code == 0 and read_card(tmp_path / "run")["steps"] == 12


def test_ctrl_c_before_anything_is_saved(tmp_path, run, monkeypatch, interruptible):
    monkeypatch.setattr(LOOP, "Board", lambda *_: signal.raise_signal(signal.SIGINT))
    assert run().exit_code == 130
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_run_needs_its_init_no_longer_once_it_is_saved(tmp_path, run, monkeypatch, interruptible):
    """Its folder may go, and another model may lie there."""
    start = tmp_path / "start.safetensors"
    options = {"init": str(start), "model": {}}
    save_model(training.build(recipe(seed=9)), start, {})
    straight = run(**options), icgn.load_pretrained(tmp_path / "run")
    assert straight[0].exit_code == 0
    (tmp_path / "run").rename(tmp_path / "straight")

    def press(images, recipe, step, *rest, **options):
        if step == 7:
            signal.raise_signal(signal.SIGINT)
        if step == 3:
            save_model(training.build(recipe_of_four), start, {})
        return draw(images, recipe, step, *rest, **options)

    recipe_of_four = recipe(model={**MODEL, "filters": 4})
    with monkeypatch.context() as patch:
        patch.setattr(LOOP, "draw", press)
        assert run(**options).exit_code == 130
    start.unlink()
    start.with_suffix(".json").unlink()
    assert run("--resume", **options).exit_code == 0
    assert equal_weights(icgn.load_pretrained(tmp_path / "run"), straight[1])


def test_a_model_that_cannot_be_written_is_named_and_its_run_kept(tmp_path, run, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("icgn.training.command.save_model", full)
    result = run()
    assert result.exit_code == 1
    said = result.stderr.replace("\n", "")
    assert "tiny.safetensors: cannot be written: No space left on device; the run is kept in" in said
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 5


def test_train_command_names_what_it_leaves_out(folder, run):
    (folder / "bad.png").write_bytes(b"nonsense")
    datasets.write_picture(folder / "small.png", datasets.Picture(torch.rand(1, 8, 30)))
    result = run()
    assert result.exit_code == 0
    assert "bad.png" in result.stderr and "small: 8 x 30 pixels, expected at least 16 x 16" in result.stderr
    assert ", 2 left out" in result.stderr.replace("\n", " ")


def test_train_command_refuses(tmp_path, folder, run, monkeypatch):
    assert "photographs: got 0 pictures of at least 99 x 99" in run(patch=99).stderr
    assert "unknown architecture 'Unheard'" in run(model={"type": "Unheard"}).stderr
    assert "no parameter starts with 'x'" in run(learning_rate={"x": 1.0}).stderr
    assert run(model={"type": "Unheard"}).exit_code == 2
    break_loss(monkeypatch, 0, nan_loss)
    result = run()
    assert result.exit_code == 1 and "step 0: the loss is nan" in result.stderr
    for file in folder.iterdir():
        file.unlink()
    result = run()
    assert result.exit_code == 2 and "photographs: no picture in this folder" in result.stderr
    folder.rmdir()
    result = run()
    assert result.exit_code == 2 and "photographs: not a folder" in result.stderr


@pytest.mark.filterwarnings("ignore:.*expected 100")
def test_pictures_of_bsds500(tmp_path):
    names = {
        split: [f"{split}{i:03}" for i in range(count)] for split, count in [("train", 2), ("test", 3), ("val", 76)]
    }
    for split, stems in names.items():
        place = tmp_path / "BSDS500" / "images" / split
        place.mkdir(parents=True)
        for i, stem in enumerate(stems):
            pixels = torch.full((3, 170, 12) if split == "val" else (3, 12, 14), i / 255)
            datasets.write_picture(place / f"{stem}.png", datasets.Picture(pixels))
    (tmp_path / "BSD68.txt").write_text("\n".join(names["val"][:68]))
    with pytest.warns(UserWarning, match="expected 200"):
        found = training.load_pictures(tmp_path, 1, smallest=12)
    assert [int(image.max()) for image in found.training] == [0, 1, 0, 1, 2]
    assert all(image.dtype == torch.uint8 and image.shape == (1, 12, 14) for image in found.training)
    assert [round(float(image.max()) * 255) for image in found.validation] == [68, 72]
    assert found.validation[0].shape == (1, 160, 12)
    assert found.card()["pictures"] == 5 and "non-commercial research" in found.card()["licence"]
    (tmp_path / "BSD68.txt").unlink()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match=r"BSD68\.txt"):
        training.load_pictures(tmp_path, 3)


def test_load_pictures_refuses_channels_and_a_single_picture(tmp_path, folder):
    with pytest.raises(ValueError, match="channels: got 2, expected 1"):
        training.load_pictures(folder, 2)
    for file in sorted(folder.iterdir())[1:]:
        file.unlink()
    with pytest.raises(ValueError, match=r"got 1 pictures .* expected at least 2"):
        training.load_pictures(folder, 3)


def test_pictures_with_16_bits_are_not_rounded(tmp_path, folder):
    deep = torch.rand(1, 20, 20)
    datasets.write_picture(folder / "00.png", datasets.Picture(deep, bits=16))
    first = training.load_pictures(folder, 1).training[0]
    assert first.dtype == torch.float32 and (first - deep).abs().max() < 1e-4


def test_export_of_a_checkpoint(tmp_path):
    model, _ = train(tmp_path, recipe())
    training.export(tmp_path / CHECKPOINT, tmp_path / "m" / "a.safetensors", extra={"psnr": {"BSD68": {"25": 28.0}}})
    assert equal_weights(icgn.load_pretrained(tmp_path / "m"), model)
    card = read_card(tmp_path / "m")
    assert card["psnr"] == {"BSD68": {"25": 28.0}} and card["validation"]["step"] == 12
    content = read_checkpoint(tmp_path / CHECKPOINT)
    content["averaged"].pop("log_tau")
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the weights do not fit"):
        training.export(tmp_path / CHECKPOINT, tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError):
        training.export(tmp_path / "none.pt", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
