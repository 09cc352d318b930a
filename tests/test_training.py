import dataclasses
import importlib
import json
import math
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from rich.console import Console
from typer.testing import CliRunner

import icgn
from icgn import cli, datasets, training
from icgn.regularizers import ModelError, RidgeICGN, read_card, save_model
from icgn.training import CHECKPOINT, Bilevel, Recipe, TrainingError, fit, read_checkpoint
from icgn.training.patches import Batch, draw

# The function of the same name hides the module.
LOOP = importlib.import_module("icgn.training.fit")
RECIPES = sorted((Path(icgn.__file__).parent / "recipes").glob("*.toml"))
MODEL = {"type": "RidgeICGN", "filters": 3, "size": 3, "knots": 3}
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(LOOP, "_SAVE_SECONDS", 0.0)


def recipe(**changes):
    defaults = {"name": "tiny", "model": MODEL, "steps": 12, "batch": 2, "patch": 16, "validate_every": 5}
    return Recipe(**{**defaults, "validation_sigma": (25 / 255,), **changes})


def pictures(count=3, side=32):
    """Overlapping rectangles of different gray."""
    generator = torch.Generator().manual_seed(5)
    images = torch.full((count, 1, side, side), 0.5)
    for image in images:
        for _ in range(6):
            (top, bottom), (left, right) = torch.randint(side + 1, (2, 2), generator=generator).sort().values.tolist()
            image[:, top:bottom, left:right] = torch.rand((), generator=generator)
    return list(images)


def train(out, recipe, resume=False, model=None, **options):
    model = training.build(recipe) if model is None else model
    history = fit(model, recipe, pictures(), pictures(1), out, resume, QUIET, **options)
    return model, history


def equal_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_build_the_model_of_their_name(path):
    loaded = Recipe.load(path)
    assert loaded.name == path.stem
    assert training.build(loaded).architecture["filters"] == loaded.model["filters"]


def test_recipe_round_trip_through_toml(tmp_path):
    path = tmp_path / "r.toml"
    original = recipe(loss=Bilevel(tol=1e-3, cg_iter=7), sigma=(2 / 255, 30 / 255), init="x", seed=3, final=0.5)
    path.write_text(tomli_w.dumps(original.to_dict()))
    assert Recipe.load(path) == original
    assert Recipe.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert tomli_w.dumps(Recipe.load(path).to_dict()) == path.read_text()


def test_noise_levels_are_in_gray_levels_in_the_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('name = "a"\nsigma = [5, 51]\n[model]\ntype = "RidgeICGN"\n')
    assert Recipe.load(path).sigma == (5 / 255, 51 / 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchs = 3", "unknown key 'batchs'; did you mean 'batch'"),
        ("zzz = 3", "unknown key 'zzz'; expected one of name, model"),
        ("[loss]\nmaxiter = 3", r"unknown key in \[loss\] 'maxiter'; did you mean 'max_iter'"),
        ("loss = 3", "loss: got 3, expected a table"),
        ("[loss]\ntol = -1", "tol: got -1, expected a positive number"),
        ("[loss]\nmax_iter = 1.5", "max_iter: got 1.5, expected a whole number"),
        ("steps = 0", "steps: got 0, expected a whole number of at least 1"),
        ('steps = "many"', "steps: got 'many'"),
        ("batch = true", "batch: got True"),
        ("patch = 2.5", "patch: got 2.5"),
        ("sigma = [50, 1]", "sigma: got .* expected two increasing"),
        ("sigma = 25", "sigma: got 25"),
        ('sigma = ["a", "b"]', "sigma: got"),
        ("sigma = [nan, 3]", "sigma: got"),
        ("validation_sigma = [0]", "validation_sigma: got"),
        ("warmup = 2", "warmup: got 2, expected a number from 0 to 1"),
        ("final = -0.1", "final: got -0.1"),
        ("seed = -1", "seed: got -1"),
        ("[learning_rate]\nbank = inf", "learning_rate: got .*, expected positive rates"),
        ("model = 3", "model: got 3"),
        ("model = {}", "model: got none"),
        ("name = '../x'", r"name: got '\.\./x'"),
        ("steps = ", "not a TOML file"),
    ],
)
def test_bad_recipes(tmp_path, text, message):
    key = text.split(" ")[0]
    base = {"name": 'name = "a"', "model": 'model = {type = "RidgeICGN"}'}
    path = tmp_path / "bad.toml"
    path.write_text("\n".join([*(line for k, line in base.items() if k != key), text]))
    with pytest.raises(ValueError, match=f"bad.toml: {message}"):
        Recipe.load(path)


def test_recipes_without_a_name_or_text(tmp_path):
    with pytest.raises(ValueError, match="recipe: name: got none"):
        Recipe.from_dict({"model": MODEL})
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.toml: not a TOML file"):
        Recipe.load(path)


# Patches and loss


def test_batches_depend_on_seed_and_step_alone():
    torch.manual_seed(1)
    first = draw(pictures(), recipe(), 7)
    torch.manual_seed(2)
    again = draw(pictures(), recipe(), 7)
    other_step, other_seed = draw(pictures(), recipe(), 8), draw(pictures(), recipe(seed=1), 7)
    for name in ("clean", "noisy", "sigma"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other_step, name))
        assert not torch.equal(getattr(first, name), getattr(other_seed, name))
    assert first.clean.shape == (2, 1, 16, 16)


def test_batches_have_the_noise_they_say():
    batch = draw(pictures(), recipe(batch=64, sigma=(10 / 255, 40 / 255)), 0)
    assert 10 / 255 <= batch.sigma.min() < batch.sigma.max() <= 40 / 255
    measured = (batch.noisy - batch.clean).std((1, 2, 3))
    assert torch.allclose(measured, batch.sigma, rtol=0.25)


def test_bytes_are_drawn_as_the_same_intensities():
    levels = [(image * 255).round().to(torch.uint8) for image in pictures()]
    floats = [image.float() / 255 for image in levels]
    assert torch.equal(draw(levels, recipe(), 3).noisy, draw(floats, recipe(), 3).noisy)


def test_the_loss_is_the_weighted_error_of_the_minimizer():
    model = training.build(recipe())
    batch = draw(pictures(), recipe(batch=3), 0)
    x = icgn.denoise(batch.noisy, batch.sigma, regularizer=model, tol=1e-6).x
    error = (x - batch.clean).square().mean((1, 2, 3))
    expected = (100 * (batch.sigma * 255 / 25) ** -1.27 * error).mean()
    loss = training.bilevel_loss(model, batch, Bilevel(tol=1e-6, max_iter=500))
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_gradient_of_the_loss_is_a_finite_difference():
    torch.manual_seed(0)
    model = RidgeICGN(filters=3, size=3, knots=3, activation="tanh").double()
    batch = draw(pictures(), recipe(sigma=(10 / 255, 40 / 255)), 0)
    batch = Batch(batch.clean.double(), batch.noisy.double(), batch.sigma.double())
    exact = Bilevel(tol=1e-11, max_iter=3000, cg_tol=1e-11, cg_iter=1000)
    training.bilevel_loss(model, batch, exact).backward()
    for parameter in model.parameters():
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step * direction
                values.append(float(training.bilevel_loss(model, batch, exact)))
                parameter -= step * direction
        measured = (values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(measured, rel=1e-4, abs=1e-10)


def test_a_short_run_lowers_the_loss_and_raises_the_psnr(tmp_path):
    r = recipe(steps=60, batch=4, validate_every=60, learning_rate={"bank": 1e-2, "log_": 1e-1})
    model = training.build(r)
    before = training.validate(model, r, pictures(1))
    batch = draw(pictures(), recipe(batch=16), 10_000)
    losses = [float(training.bilevel_loss(model, batch, r.loss).detach())]
    _, history = train(tmp_path, r, model=model)
    losses.append(float(training.bilevel_loss(model, batch, r.loss).detach()))
    assert losses[1] < 0.7 * losses[0]
    assert history[-1]["psnr_25"] > before["psnr_25"] + 1


def test_validation_is_repeatable_and_takes_mixed_sizes():
    model, r = training.build(recipe()), recipe(validation_sigma=(10 / 255, 25 / 255))
    images = [pictures()[0], pictures()[1][:, :20, :9]]
    row = training.validate(model, r, images, step=3)
    assert row.keys() == {"step", "loss", "psnr_10", "psnr_25"} and row["psnr_10"] > row["psnr_25"] > 15
    again = training.validate(model, r, images, step=3)
    assert again["psnr_25"] == row["psnr_25"]


# The loop


def test_history_callback_and_checkpoint(tmp_path):
    rows = []
    _, history = train(
        tmp_path, recipe(), on_validation=lambda row: rows.append((row, read_checkpoint(tmp_path / CHECKPOINT)))
    )
    assert [row["step"] for row in history] == [5, 10, 12]
    assert [row for row, _ in rows] == history
    assert [json.loads(content["history"])[-1]["step"] for _, content in rows] == [5, 10, 12]
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_run_without_validation_pictures(tmp_path):
    history = fit(training.build(recipe()), recipe(), pictures(), [], tmp_path, console=QUIET)
    assert [set(row) for row in history] == [{"step", "loss"}] * 3


CHILD = """
import sys, importlib, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import test_training as t
t.LOOP._SAVE_SECONDS = 0.0
draw = t.LOOP.draw
def slow(images, recipe, step):
    print(step, flush=True)
    time.sleep(0.02)
    return draw(images, recipe, step)
t.LOOP.draw = slow
t.train(sys.argv[1], t.recipe(steps=40))
"""


def test_resume_after_a_kill_is_exact(tmp_path):
    straight, history = train(tmp_path / "straight", recipe(steps=40))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed"), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while child.stdout.readline().strip() != "8":
        assert child.poll() is None
    child.kill()
    assert child.wait() == -signal.SIGKILL
    step = read_checkpoint(tmp_path / "killed" / CHECKPOINT)["step"]
    assert 8 <= step < 40
    resumed, again = train(tmp_path / "killed", recipe(steps=40), resume=True)
    assert equal_weights(straight, resumed)
    assert again == history


def test_a_kill_just_before_a_validation_does_not_lose_it(tmp_path, monkeypatch):
    _, history = train(tmp_path / "straight", recipe())

    def killed(*_):
        raise SystemExit

    for steps in (0, 1, 2):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(LOOP, "_SAVE_SECONDS", 0.0)
            patch.setattr(LOOP, "validate", killed)
            train(tmp_path / str(steps), recipe())
        assert train(tmp_path / str(steps), recipe(), resume=True)[1] == history


@pytest.fixture
def interruptible():
    # A shell that starts the tests in the background makes them ignore Ctrl-C.
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


def test_ctrl_c_finishes_the_step_and_saves(tmp_path, monkeypatch, interruptible):
    straight, history = train(tmp_path / "straight", recipe())

    def press(images, recipe, step):
        if step == 6:
            signal.raise_signal(signal.SIGINT)
        return draw(images, recipe, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LOOP, "draw", press)
        train(tmp_path / "run", recipe())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 7
    resumed, again = train(tmp_path / "run", recipe(), resume=True)
    assert equal_weights(straight, resumed) and again == history


def test_a_second_ctrl_c_does_not_wait(tmp_path, monkeypatch, interruptible):
    def press(images, recipe, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still running")

    monkeypatch.setattr(LOOP, "draw", press)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe())


def break_loss(monkeypatch, step, broken):
    calls = iter(range(1000))
    loss = LOOP.bilevel_loss
    monkeypatch.setattr(
        LOOP, "bilevel_loss", lambda model, *rest: broken(model, loss(model, *rest), next(calls) == step)
    )


def nan_loss(model, loss, now):
    return loss * math.nan if now else loss


def nan_gradient(model, loss, now):
    return loss + (0 * model.log_tau).abs().sqrt().sum() if now else loss


@pytest.mark.parametrize(("broken", "what"), [(nan_loss, "the loss is nan"), (nan_gradient, "gradient .* not finite")])
def test_nan_stops_and_names_step_and_checkpoint(tmp_path, monkeypatch, save_always, broken, what):
    break_loss(monkeypatch, 4, broken)
    with pytest.raises(TrainingError, match=rf"step 4: .*{what}.*last good checkpoint: .*{CHECKPOINT}"):
        train(tmp_path, recipe())
    content = read_checkpoint(tmp_path / CHECKPOINT)
    assert content["step"] == 4 and all(bool(w.isfinite().all()) for w in content["model"].values())


def test_nan_before_the_first_checkpoint(tmp_path, monkeypatch):
    break_loss(monkeypatch, 0, nan_loss)
    with pytest.raises(TrainingError, match="step 0: the loss is nan; no checkpoint yet"):
        train(tmp_path, recipe())


def test_checkpoint_of_another_recipe(tmp_path):
    train(tmp_path, recipe())
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the checkpoint is of another recipe"):
        train(tmp_path, recipe(seed=1), resume=True)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: a run is there already"):
        train(tmp_path, recipe())
    other = RidgeICGN(filters=4, size=3, knots=3)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the checkpoint is of another architecture"):
        train(tmp_path, recipe(), resume=True, model=other)


def test_checkpoints_without_seconds_are_read(tmp_path):
    train(tmp_path, recipe())
    content = read_checkpoint(tmp_path / CHECKPOINT)
    del content["seconds"]
    torch.save(content, tmp_path / CHECKPOINT)
    train(tmp_path, recipe(), resume=True)
    training.export(tmp_path / CHECKPOINT, tmp_path / "m.safetensors")
    assert read_card(tmp_path)["seconds"] is None


class Trap:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("dump", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_checkpoints_that_run_code_are_refused(tmp_path, dump):
    dump({"recipe": Trap(tmp_path / "ran")}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: not a readable checkpoint"):
        train(tmp_path, recipe(), resume=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, {"recipe": "{}"}, [1, 2], torch.zeros(2)])
def test_other_files_are_no_checkpoints(tmp_path, content):
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="not a checkpoint of icgn: it lacks"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_truncated_checkpoint(tmp_path):
    train(tmp_path, recipe())
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(tmp_path, recipe(), resume=True)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, save_always):
    class Full:
        left = 4

        def __call__(self, number):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", Full())
    with pytest.raises(TrainingError, match=r"step 5: .*cannot be written: No space left.*last good checkpoint"):
        train(tmp_path, recipe())
    assert read_checkpoint(tmp_path / CHECKPOINT)["step"] == 4
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_bad_pictures_and_rates(tmp_path):
    model = training.build(recipe())
    with pytest.raises(ValueError, match="images: got none"):
        fit(model, recipe(), [], [], tmp_path)
    with pytest.raises(ValueError, match="images: number 1 is 15 x 32, expected at least a patch, 16 x 16"):
        fit(model, recipe(), [pictures()[0], pictures()[0][:, :15]], [], tmp_path)
    with pytest.raises(ValueError, match="learning_rate: no parameter starts with 'banc'"):
        train(tmp_path, recipe(learning_rate={"banc": 1e-3}))
    with pytest.raises(ValueError, match="learning_rate: no rate for log_lambda, log_tau"):
        train(tmp_path, recipe(learning_rate={"bank": 1e-3}))


# The command


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photographs"
    path.mkdir()
    for i, image in enumerate(pictures(11, 24)):
        datasets.write_picture(path / f"{i:02}.png", datasets.Picture(image))
    return path


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


def test_init_of_another_architecture(tmp_path):
    save_model(training.build(recipe()), tmp_path / "start.safetensors", {})
    wanted = recipe(init=str(tmp_path / "start.safetensors"), model={**MODEL, "filters": 4})
    with pytest.raises(ModelError, match=r"init .*start\.safetensors' has filters 3, but \[model\] asks for 4"):
        training.build(wanted)
    assert training.build(dataclasses.replace(wanted, model=MODEL)).bank.raw.requires_grad


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    models = [training.build(recipe(seed=1)) for _ in range(2)]
    assert torch.equal(torch.rand(2), expected)
    assert equal_weights(models[0], models[1])


def test_train_command_interrupted_leaves_a_model(tmp_path, run, monkeypatch, interruptible):
    def press(images, recipe, step):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return draw(images, recipe, step)

    with monkeypatch.context() as patch:
        patch.setattr(LOOP, "draw", press)
        result = run()
    assert result.exit_code == 130 and "interrupted: saved step 3" in result.output.replace("\n", "")
    assert read_card(tmp_path / "run")["steps"] == 3
    assert run().exit_code == 1
    assert run("--resume").exit_code == 0 and read_card(tmp_path / "run")["steps"] == 12


def test_train_command_names_what_it_leaves_out(folder, run):
    (folder / "bad.png").write_bytes(b"nonsense")
    datasets.write_picture(folder / "small.png", datasets.Picture(torch.rand(1, 8, 30)))
    result = run()
    assert result.exit_code == 0
    assert "bad.png" in result.stderr and "small: 8 x 30 pixels, expected at least 16 x 16" in result.stderr


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
        found = training.load_pictures(tmp_path, 1, 12)
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
    training.export(tmp_path / CHECKPOINT, tmp_path / "m" / "a.safetensors", {"psnr": {"BSD68": {"25": 28.0}}})
    assert equal_weights(icgn.load_pretrained(tmp_path / "m"), model)
    card = read_card(tmp_path / "m")
    assert card["psnr"] == {"BSD68": {"25": 28.0}} and card["validation"]["step"] == 12
    content = read_checkpoint(tmp_path / CHECKPOINT)
    content["model"].pop("log_tau")
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the weights do not fit"):
        training.export(tmp_path / CHECKPOINT, tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError):
        training.export(tmp_path / "none.pt", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
