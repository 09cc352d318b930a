"""What the tests of training share: a tiny recipe, pictures that cost nothing, and a short run."""

from __future__ import annotations

import math

import torch

from icgn import datasets, training
from icgn.training import Bilevel, Pictures, Recipe, fit

MODEL = {"type": "RidgeICGN", "filters": 3, "size": 3, "knots": 3}


def recipe(**changes):
    """A run of twelve steps."""
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


def write_photographs(folder, count, side=24):
    """Write pictures to a new folder, as 00.png, 01.png...; returns the folder."""
    folder.mkdir()
    for i, image in enumerate(pictures(count, side)):
        datasets.write_picture(folder / f"{i:02}.png", datasets.Picture(image))
    return folder


def data(training_images=None, validation=None):
    """What a run is trained and validated on."""
    return Pictures(
        "rectangles",
        "none",
        pictures() if training_images is None else training_images,
        pictures(1) if validation is None else validation,
    )


class Heard(training.Progress):
    """Keeps what a run reports."""

    def __init__(self):
        self.calls = []

    def start(self, name, total, done=0):
        self.calls.append(("start", name, total, done))

    def step(self, done, note=""):
        self.calls.append(("step", done, note))

    def validation(self, result):
        self.calls.append(("validation", result.row["step"]))

    def message(self, text):
        self.calls.append(("message", text))

    def end(self):
        self.calls.append(("end",))


def train(out, recipe, resume=False, model=None, **options):
    """The trained model and its history."""
    model = training.build(recipe) if model is None else model
    return model, fit(model, recipe, data(), out, resume=resume, **options)


def equal_weights(a, b):
    """Whether two models are the same to the bit."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def break_loss(monkeypatch, step, broken):
    """Let the loss of one step be broken."""
    calls = iter(range(1000))
    values = Bilevel.values
    monkeypatch.setattr(
        Bilevel, "values", lambda self, model, batch: broken(model, values(self, model, batch), next(calls) == step)
    )


def nan_loss(model, loss, now):
    """The loss is NaN."""
    return loss * math.nan if now else loss


def nan_gradient(model, loss, now):
    """The loss is finite, its gradient NaN."""
    return loss + (0 * model.log_tau).abs().sqrt().sum() if now else loss
