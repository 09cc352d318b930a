"""The one training loop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepinv
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem, solve
from icgn.training.bilevel import bilevel_loss
from icgn.training.patches import draw
from icgn.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
_SAVE_SECONDS = 60.0


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is not finite, or a checkpoint does not belong to the run."""


def fit(
    regularizer: ConvexRegularizer,
    recipe: Recipe,
    images: Sequence[Tensor],
    validation: Sequence[Tensor],
    out: str | Path,
    resume: bool = False,
    console: Console | None = None,
) -> list[dict[str, float]]:
    r"""Train `regularizer` in place by Adam and return the history of validations.

    Every minute, and at the end, ``out/checkpoint.pt`` is replaced atomically; it holds tensors and numbers only.
    Patches and noise depend on seed and step alone, so that on one CPU thread a resumed run repeats the interrupted
    one bit for bit.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        trained on its own device.
    recipe : Recipe
        all parameters of the run.
    images, validation : sequence of Tensor
        pictures (C, H, W) in [0, 1]; at least one patch large. Validation may be empty.
    out : path
        folder of the run, made if missing.
    resume : bool
        continue from the checkpoint in `out`.
    console : rich.console.Console, optional
        where progress is shown; default standard error.

    Raises
    ------
    ValueError
        for no images, or images smaller than a patch.
    TrainingError
        if the loss turns NaN (the step and the last good checkpoint are named), if the checkpoint is of another
        recipe, or if one exists and `resume` is False.
    """
    _check_images(images, recipe)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    optimizer = _optimizer(regularizer, recipe)
    run = _Training(regularizer, recipe, optimizer, out / CHECKPOINT)
    run.start(resume)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task(recipe.name, total=recipe.steps, completed=run.step, note="")
        try:
            while run.step < recipe.steps:
                run.advance(images)
                note = f"loss {run.loss:.4f}"
                if run.step % recipe.validate_every == 0 or run.step == recipe.steps:
                    run.history.append(validate(regularizer, recipe, validation, run.step, run.loss))
                    progress.console.print(describe(run.history[-1]))
                progress.update(task, completed=run.step, note=note)
        except KeyboardInterrupt:
            run.save()
            progress.console.print(f"interrupted: saved step {run.step} in {run.path}")
            raise
    run.save()
    return run.history


@torch.no_grad()
def validate(
    regularizer: ConvexRegularizer, recipe: Recipe, images: Iterable[Tensor], step: int = 0, loss: float = math.nan
) -> dict[str, float]:
    """Mean PSNR of the minimizers of the objective on pictures with seeded noise, one entry per noise level."""
    row: dict[str, float] = {"step": step, "loss": loss}
    pictures = list(images)
    parameter = next(regularizer.parameters())
    for sigma in recipe.validation_sigma if pictures else ():
        total = 0.0
        for i, clean in enumerate(pictures):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i))
            y = (clean + sigma * noise)[None].to(parameter)
            problem = Problem(y, deepinv.physics.Denoising(), regularizer, sigma)
            x = solve(problem, tol=2e-4, max_iter=200).x[0].cpu().clamp(0, 1)
            total += -10 * math.log10(float((x - clean).square().mean()))
        row[f"psnr_{sigma * 255:g}"] = total / len(pictures)
    return row


def describe(row: dict[str, float]) -> str:
    """One line for a row of the history."""
    levels = "  ".join(f"{k[5:]}: {v:.2f} dB" for k, v in row.items() if k.startswith("psnr_"))
    return f"step {row['step']:.0f}  loss {row['loss']:.4f}  {levels}"


@dataclass
class _Training:
    """The state of a run, and how it is saved and read back."""

    regularizer: ConvexRegularizer
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    path: Path

    def start(self, resume: bool) -> None:
        self.step, self.loss = 0, math.nan
        self.history: list[dict[str, float]] = []
        self.saved = time.monotonic()
        if self.path.exists():
            if not resume:
                raise TrainingError(f"{self.path}: a run is there already; resume it or choose another folder")
            self._load()

    def advance(self, images: Sequence[Tensor]) -> None:
        """One optimization step."""
        factor = schedule(self.step / self.recipe.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        device = next(self.regularizer.parameters()).device
        batch = draw(images, self.recipe, self.step).to(device)
        loss = bilevel_loss(self.regularizer, batch, self.recipe.loss)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"step {self.step}: the loss is {float(loss)}; last good checkpoint: {self.path}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value = float(loss.detach())
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self.step += 1
        if time.monotonic() - self.saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the checkpoint to a temporary file and rename it."""
        content = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "step": self.step,
            "loss": self.loss,
            "history": json.dumps(self.history),
            "model": self.regularizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        self.saved = time.monotonic()

    def _load(self) -> None:
        content = read_checkpoint(self.path)
        if content["recipe"] != json.dumps(self.recipe.to_dict()):
            raise TrainingError(f"{self.path}: the checkpoint is of another recipe; resume with the recipe it was made by")
        self.regularizer.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.loss = content["step"], content["loss"]
        self.history = json.loads(content["history"])


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, read without running code.

    Raises
    ------
    TrainingError
        if the file is not a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise TrainingError(f"{path}: not a readable checkpoint: {error}") from error
    if not isinstance(content, dict) or "recipe" not in content:
        raise TrainingError(f"{path}: not a checkpoint of icgn")
    return content


def schedule(progress: float, recipe: Recipe) -> float:
    """Learning-rate factor at a part `progress` in [0, 1] of the run: linear warm-up, then a cosine down to `final`."""
    if progress < recipe.warmup:
        return 0.1 + 0.9 * progress / recipe.warmup
    rest = (progress - recipe.warmup) / max(1e-12, 1 - recipe.warmup)
    return recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * rest)) / 2


def _optimizer(regularizer: ConvexRegularizer, recipe: Recipe) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    left = dict(regularizer.named_parameters())
    for prefix, rate in recipe.learning_rate.items():
        names = [n for n in left if n.startswith(prefix)]
        if not names:
            raise ValueError(f"learning_rate: no parameter starts with {prefix!r}; there are {', '.join(left)}")
        groups.append({"params": [left.pop(n) for n in names], "lr": rate, "peak": rate})
    if left:
        raise ValueError(f"learning_rate: no rate for {', '.join(left)}")
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _check_images(images: Sequence[Tensor], recipe: Recipe) -> None:
    if len(images) == 0:
        raise ValueError("images: got none, expected at least one to train on")
    small = [i for i, image in enumerate(images) if min(image.shape[-2:]) < recipe.patch]
    if small:
        raise ValueError(f"images: number {small[0]} is smaller than the patch of {recipe.patch} pixels")
