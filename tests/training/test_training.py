"""The training loop: exact resume, kills, interrupts, and what stops a run."""

import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import ended, forked
from training_cases import Heard, break_loss, data, equal_weights, nan_gradient, nan_loss, pictures, recipe, train

from icgn import training
from icgn.regularizers import ConditionalICGN, LatentICGN, RidgeICGN, read_card
from icgn.training import CHECKPOINT, Adversarial, GradientSteps, RecipeError, TrainingError, draw, fit, read_checkpoint
from icgn.training.optimizer import make_optimizer

# The function of the same name hides the module.
LOOP = importlib.import_module("icgn.training.fit")


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(LOOP, "_SAVE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Model, history and folder of a run of the tiny recipe that nothing disturbs; to be read, not changed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("straight") / "run"
    return *train(folder, recipe()), folder


@pytest.fixture
def finished(straight, tmp_path):
    """A copy of the folder of that run."""
    return Path(shutil.copytree(straight[2], tmp_path / "finished"))


def test_history_callback_and_checkpoint(tmp_path):
    rows = []
    _, history = train(
        tmp_path, recipe(), on_validation=lambda row: rows.append((row, read_checkpoint(tmp_path / CHECKPOINT)))
    )
    assert [row["step"] for row in history] == [5, 10, 12]
    assert [row for row, _ in rows] == history
    assert [json.loads(content["history"])[-1]["step"] for _, content in rows] == [5, 10, 12]
    assert {p.name for p in tmp_path.iterdir()} == {CHECKPOINT, "tensorboard", ".lock"}


def test_the_model_is_the_average_of_the_last_weights(tmp_path, monkeypatch):
    seen = []
    step = torch.optim.Adam.step

    def noted(self, *args, **kwargs):
        outcome = step(self, *args, **kwargs)
        seen.append([p.detach().clone() for group in self.param_groups for p in group["params"]])
        return outcome

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    model, _ = train(tmp_path, recipe(average=0.75))
    expected = seen[0]
    for k, weights in enumerate(seen[1:], start=1):
        rate = max(0.25, 1 / (k + 1))
        expected = [e + rate * (w - e) for e, w in zip(expected, weights, strict=True)]
    for parameter, mean in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter, mean, atol=1e-6)
    last = read_checkpoint(tmp_path / CHECKPOINT)["model"]
    assert not torch.allclose(last["bank.raw"], model.bank.raw)


def test_tensorboard_has_scalars_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, recipe(steps=20, validate_every=10))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"training/loss", "training/learning_rate", "validation/psnr/25"} <= set(tags["scalars"])
    assert tags["images"] == ["sigma 25"]
    assert [e.step for e in events.Scalars("validation/psnr/25")] == [10, 20]


def test_a_run_reports_and_prints_nothing_itself(tmp_path, capfd):
    heard = Heard()
    history = train(tmp_path, recipe(), progress=heard)[1]
    kinds = [call[0] for call in heard.calls]
    assert kinds[:2] == ["message", "start"] and kinds[-1] == "end" and set(kinds[2:-1]) == {"step", "validation"}
    assert heard.calls[1] == ("start", "tiny", 12, 0)
    assert (
        [call[1] for call in heard.calls if call[0] == "validation"] == [row["step"] for row in history] == [5, 10, 12]
    )
    done = [call[1] for call in heard.calls if call[0] == "step"]
    assert done == sorted(done) and set(done) == set(range(1, 13))
    assert capfd.readouterr() == ("", "")


def test_the_console_of_earlier_versions_is_ignored_with_a_warning(tmp_path):
    with pytest.warns(FutureWarning, match=r"fit\(console=...\) is ignored .*: progress=\.\.\."):
        train(tmp_path, recipe(steps=1), console=None)


def test_a_run_without_tensorboard_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    heard = Heard()
    fit(training.build(recipe()), recipe(), data(), tmp_path, progress=heard)
    assert any("TensorBoard is not installed" in call[1] for call in heard.calls if call[0] == "message")
    assert not (tmp_path / "tensorboard").exists()


def test_a_run_without_validation_pictures(tmp_path):
    history = fit(training.build(recipe()), recipe(), data(validation=[]), tmp_path)
    assert [set(row) for row in history] == [{"step", "loss"}] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_resume_after_a_kill_is_exact(tmp_path, monkeypatch, save_always, optimizer):
    wanted = recipe(steps=20, average=0.9, optimizer=optimizer)
    straight, history = train(tmp_path / "straight", wanted)
    reader, writer = os.pipe()

    def slow(images, recipe, step, *rest, **options):
        os.write(writer, bytes([step]))
        time.sleep(0.02 if step < 15 else 60)  # it never ends by itself
        return draw(images, recipe, step, *rest, **options)

    def work():
        monkeypatch.setattr(LOOP, "draw", slow)
        train(tmp_path / "killed", wanted)

    with forked(work) as child:
        os.close(writer)
        while (step := os.read(reader, 1)) != bytes([8]):
            assert step, "the process ended"
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
    os.close(reader)
    step = read_checkpoint(tmp_path / "killed" / CHECKPOINT)["step"]
    assert 8 <= step < 20
    resumed, again = train(tmp_path / "killed", wanted, resume=True)
    assert equal_weights(straight, resumed)
    assert again == history


def test_soap_turns_the_basis_of_filters_alone():
    wanted = recipe(optimizer="soap")
    model = training.build(wanted)
    optimizer = make_optimizer("soap", model, wanted.learning_rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    bases = optimizer.state[model.bank.raw]["Q"]
    assert [len(q) for q in bases] == list(model.bank.raw.shape)
    assert all(torch.allclose(q.T @ q, torch.eye(len(q)), atol=1e-5) for q in bases)
    assert all(len(q) <= 1 for q in optimizer.state[model.log_tau]["Q"])
    rates = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in model.named_parameters()} == {
        "bank.raw": 6e-3, "log_lambda": 5e-2, "log_tau": 5e-2,
    }  # fmt: skip


def test_soap_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    wanted = recipe(optimizer="soap")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'icgn\[train\]'"):
        make_optimizer("soap", training.build(wanted), wanted.learning_rate)


def test_a_kill_just_before_a_validation_does_not_lose_it(tmp_path, monkeypatch, straight):
    _, history, _ = straight

    def killed(*_, **__):
        raise SystemExit

    for steps in (0, 1, 2):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(LOOP, "_SAVE_SECONDS", 0.0)
            patch.setattr(LOOP, "validate", killed)
            train(tmp_path / str(steps), recipe())
        assert train(tmp_path / str(steps), recipe(), resume=True)[1] == history


def test_ctrl_c_finishes_the_step_and_saves(tmp_path, monkeypatch, interruptible, straight):
    model, history, _ = straight

    def press(images, recipe, step, *rest, **options):
        if step == 6:
            signal.raise_signal(signal.SIGINT)
        return draw(images, recipe, step, *rest, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LOOP, "draw", press)
        train(tmp_path / "run", recipe())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 7
    resumed, again = train(tmp_path / "run", recipe(), resume=True)
    assert equal_weights(model, resumed) and again == history


def test_a_second_ctrl_c_does_not_wait(tmp_path, monkeypatch, interruptible):
    def press(images, recipe, step, *rest, **options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still running")

    monkeypatch.setattr(LOOP, "draw", press)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe())


@pytest.mark.parametrize("step", [9, 11])
def test_ctrl_c_breaks_a_validation_off_and_the_resumed_run_makes_it(
    tmp_path, monkeypatch, interruptible, straight, step
):
    _, history, _ = straight

    def press(*arguments, **options):
        if options["step"] > step:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("still running")
        return real(*arguments, **options)

    real = LOOP.validate
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LOOP, "validate", press)
        train(tmp_path / "run", recipe())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(tmp_path / "run", recipe(), resume=True)[1] == history


def test_curves_that_cannot_be_written_do_not_end_a_run(tmp_path, monkeypatch, straight):
    from torch.utils.tensorboard import SummaryWriter

    _, history, _ = straight

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with pytest.warns(UserWarning, match="tensorboard: curves are written no longer: No space left on device"):
        assert train(tmp_path / "run", recipe())[1] == history
    monkeypatch.setattr(SummaryWriter, "__init__", full)
    with pytest.warns(UserWarning, match="curves are written no longer"):
        assert train(tmp_path / "run", recipe(), resume=True)[1] == history


def test_the_order_of_rates_says_nothing_and_the_longest_prefix_counts(tmp_path):
    rates = {"log_tau": 0.03, "log_": 0.01, "bank": 0.002}
    straight, history = train(tmp_path / "straight", recipe(learning_rate=rates))
    turned = recipe(learning_rate=dict(reversed(rates.items())))
    optimizer = make_optimizer(turned.optimizer, straight, turned.learning_rate)
    by_rate = {group["peak"]: group["params"] for group in optimizer.param_groups}
    assert by_rate[0.03] == [straight.log_tau] and straight.log_lambda in by_rate[0.01]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(LOOP, "validate", lambda *_, **__: sys.exit())
        train(tmp_path / "run", recipe(learning_rate=rates))
    resumed, again = train(tmp_path / "run", turned, resume=True)
    assert equal_weights(straight, resumed) and again == history
    with pytest.raises(ValueError, match="every parameter that starts with 'log_' has a longer prefix"):
        make_optimizer("adam", straight, {"bank": 1.0, "log_": 1.0, "log_tau": 1.0, "log_lambda": 1.0})
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        make_optimizer("adam", straight.requires_grad_(False), {"bank": 1.0})


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


def test_a_resumed_run_says_after_which_step_it_goes_on(tmp_path):
    said = []

    class Report(training.Progress):
        def message(self, text):
            said.append(text)

    wanted = recipe()
    train(tmp_path, wanted, progress=Report())
    assert not any("goes on" in text for text in said)
    train(tmp_path, wanted, resume=True, progress=Report())
    assert f"goes on after step {wanted.steps} of {wanted.steps}; that is all of them" in said


def test_checkpoint_of_another_recipe(finished):
    with pytest.raises(
        TrainingError, match=f"{CHECKPOINT}: the checkpoint is of another recipe: seed: got 1, expected 0.*--init"
    ):
        train(finished, recipe(seed=1), resume=True)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: a run is there already.*--resume.*--init"):
        train(finished, recipe())
    other = RidgeICGN(filters=4, size=3, knots=3)
    with pytest.raises(
        TrainingError, match=f"{CHECKPOINT}: the checkpoint is of another architecture: filters: got 4, ex"
    ):
        train(finished, recipe(), resume=True, model=other)
    # The shapes are the same here.
    other = RidgeICGN(filters=3, size=3, knots=3, min_knee=0.1)
    with pytest.raises(TrainingError, match=r"another architecture: min_knee: got 0\.1, expected"):
        train(finished, recipe(), resume=True, model=other)


@pytest.mark.parametrize("changed", ["training", "validation"])
def test_checkpoint_of_other_pictures(finished, changed):
    other = {"training": data(pictures(4)), "validation": data(validation=pictures(2))}[changed]
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: the checkpoint is of other pictures"):
        fit(training.build(recipe()), recipe(), other, finished, resume=True)


def test_checkpoint_with_other_groups_of_parameters(finished):
    content = read_checkpoint(finished / CHECKPOINT)
    content["optimizer"]["param_groups"].reverse()
    torch.save(content, finished / CHECKPOINT)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: .* its parameters are grouped otherwise"):
        train(finished, recipe(), resume=True)


def test_checkpoints_without_seconds_are_read(finished):
    content = read_checkpoint(finished / CHECKPOINT)
    del content["seconds"]
    torch.save(content, finished / CHECKPOINT)
    train(finished, recipe(), resume=True)
    training.export(finished / CHECKPOINT, finished / "m.safetensors")
    assert read_card(finished)["seconds"] is None


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


def test_truncated_checkpoint(finished):
    path = finished / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(finished, recipe(), resume=True)


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
    assert {p.name for p in tmp_path.iterdir()} == {CHECKPOINT, "tensorboard", ".lock"}


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    def another(row):
        with pytest.raises(BlockingIOError, match="another run writes there"):
            train(tmp_path, recipe(), resume=True)

    _, history = train(tmp_path, recipe(), on_validation=another)
    assert train(tmp_path, recipe(), resume=True)[1] == history


def test_bad_pictures_and_rates(tmp_path):
    model = training.build(recipe())
    with pytest.raises(ValueError, match="data: got no images"):
        fit(model, recipe(), data([]), tmp_path)
    with pytest.raises(ValueError, match="data: image 1 is 15 x 32, expected at least a patch, 16 x 16"):
        fit(model, recipe(), data([pictures()[0], pictures()[0][:, :15]]), tmp_path)
    with pytest.raises(ValueError, match="data: image 1 has 3 channels, expected 1 as the regularizer"):
        fit(model, recipe(), data([pictures()[0], pictures()[0].expand(3, -1, -1)]), tmp_path)
    with pytest.raises(ValueError, match="data: validation image 0 has 3 channels, expected 1"):
        fit(model, recipe(), data(validation=[pictures()[0].expand(3, -1, -1)]), tmp_path)
    with pytest.raises(ValueError, match="precision: got 'half', expected one of auto, float32, bfloat16"):
        train(tmp_path, recipe(), precision="half")
    with pytest.raises(ValueError, match="patch: got 16, expected at least the filter size, 17"):
        r = recipe(model={"type": "RidgeICGN", "filters": 2, "size": 17})
        train(tmp_path, r)
    with pytest.raises(ValueError, match=r"physics: does not take patches of \(1, 16, 16\)"):
        train(tmp_path, recipe(physics={"type": "Inpainting", "img_size": [1, 32, 32], "mask": 0.5}))
    with pytest.raises(ValueError, match="physics: unknown type 'Blurr'"):
        train(tmp_path, recipe(physics={"type": "Blurr"}))
    with pytest.raises(ValueError, match="learning_rate: no parameter starts with 'banc'"):
        train(tmp_path, recipe(learning_rate={"banc": 1e-3}))
    with pytest.raises(ValueError, match="learning_rate: no rate for log_lambda, log_tau"):
        train(tmp_path, recipe(learning_rate={"bank": 1e-3}))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("ConditionalICGN", {"loss": Adversarial()}, "loss: got 'adversarial' for a ConditionalICGN, .* bilevel, mask"),
        ("ConditionalICGN", {"loss": GradientSteps(steps=2)}, "loss: got 'gradient-steps' for a ConditionalICGN"),
        ("ConditionalICGN", {"fit_weight": True}, "fit_weight has a weight fitted .* which a ConditionalICGN cannot"),
        ("LatentICGN", {"loss": Adversarial()}, "loss: 'adversarial' has a weight fitted .* which a LatentICGN cannot"),
        ("LatentICGN", {"fit_weight": True}, "fit_weight has a weight fitted .* which a LatentICGN cannot"),
    ],
)
def test_losses_that_do_not_fit_are_refused_before_the_first_step(tmp_path, model, changes, message):
    kinds = {
        "ConditionalICGN": lambda: ConditionalICGN(filters=2, size=3, knots=3, width=2, blocks=1),
        "LatentICGN": lambda: LatentICGN(filters=2, size=3, knots=3),
    }
    with pytest.raises(RecipeError, match=message):
        train(tmp_path, recipe(**changes), model=kinds[model]())
    assert not tmp_path.exists() or not list(tmp_path.iterdir())
