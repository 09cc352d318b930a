"""The one training loop."""

from __future__ import annotations

import io
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import deepinv
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pretrained import write_files
from icgn.solvers import Problem, solve
from icgn.training.bilevel import bilevel_loss
from icgn.training.patches import draw
from icgn.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
_SAVE_SECONDS = 60.0
_KEYS = ("recipe", "step", "loss", "history", "model", "optimizer")


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, or a checkpoint of another run or that cannot be written."""


def fit(
    regularizer: ConvexRegularizer,
    recipe: Recipe,
    images: Sequence[Tensor],
    validation: Sequence[Tensor],
    out: str | Path,
    resume: bool = False,
    console: Console | None = None,
    on_validation: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    r"""Train `regularizer` in place by Adam and return the history of validations.

    Every minute, at each validation, when interrupted and at the end, ``out/checkpoint.pt`` is replaced atomically; it
    holds tensors, numbers and text only. Patches and noise depend on seed and step alone, so that on one CPU thread a
    resumed run repeats the interrupted one bit for bit.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        trained on its own device.
    recipe : Recipe
        all parameters of the run.
    images, validation : sequence of Tensor
        pictures (C, H, W) in [0, 1], at least one patch large; those to train on may be bytes, 0 to 255, which need a
        quarter of the memory. Validation may be empty.
    out : path
        folder of the run, made if missing.
    resume : bool
        continue from the checkpoint in `out`, if there is one.
    console : rich.console.Console, optional
        where progress is shown; default standard error.
    on_validation : callable, optional
        is given each new row of the history, after the checkpoint that contains it was written.

    Raises
    ------
    ValueError
        for no images, or images smaller than a patch.
    TrainingError
        if the loss or its gradient turns NaN (the step and the last good checkpoint are named), if the checkpoint is
        of another recipe or cannot be written, or if one exists and `resume` is False.
    KeyboardInterrupt
        on Ctrl-C, after the step in progress was completed and saved.
    """
    _check_images(images, recipe)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    run = _Training(regularizer, recipe, _optimizer(regularizer, recipe), out / CHECKPOINT)
    run.start(resume)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        task = progress.add_task(recipe.name, total=recipe.steps, completed=run.step, note="")
        try:
            while True:
                if run.validation_is_due():
                    run.history.append(validate(regularizer, recipe, validation, run.step, run.loss))
                    progress.console.print(describe(run.history[-1]))
                    run.save()
                    if on_validation is not None:
                        on_validation(run.history[-1])
                if run.step >= recipe.steps:
                    return run.history
                with _interrupts_deferred():
                    run.advance(images)
                    run.save_from_time_to_time()
                progress.update(task, completed=run.step, note=f"loss {run.loss:.4f}")
        except KeyboardInterrupt:
            run.save()
            progress.console.print(f"interrupted: saved step {run.step} in {run.path}")
            raise


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
        """Begin at step 0, or where the checkpoint was written."""
        self.step, self.loss, self.seconds = 0, math.nan, 0.0
        self.history: list[dict[str, float]] = []
        self.saved = self.begun = time.monotonic()
        if self.path.exists():
            if not resume:
                raise TrainingError(f"{self.path}: a run is there already; resume it or choose another folder")
            self._load()

    def validation_is_due(self) -> bool:
        """Whether the present step has a row in the history to come: also after a kill just before it was made."""
        if self.step == 0 or (self.history and self.history[-1]["step"] == self.step):
            return False
        return self.step % self.recipe.validate_every == 0 or self.step >= self.recipe.steps

    def advance(self, images: Sequence[Tensor]) -> None:
        """One optimization step."""
        factor = schedule(self.step / self.recipe.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        device = next(self.regularizer.parameters()).device
        batch = draw(images, self.recipe, self.step).to(device)
        loss = bilevel_loss(self.regularizer, batch, self.recipe.loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"step {self.step}: the loss is {value}; {self._last_good()}")
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        # Checked before the step: afterwards the weights would be lost, and perhaps saved.
        if not all(bool(torch.isfinite(p.grad).all()) for p in self.regularizer.parameters() if p.grad is not None):
            raise TrainingError(f"step {self.step}: the gradient of the loss is not finite; {self._last_good()}")
        self.optimizer.step()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self.step += 1

    def save_from_time_to_time(self) -> None:
        """Write the checkpoint unless the last one is recent."""
        if time.monotonic() - self.saved >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Replace the checkpoint; a failure leaves the last one as it is."""
        content = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "step": self.step,
            "loss": self.loss,
            "seconds": self.seconds + time.monotonic() - self.begun,
            "history": json.dumps(self.history),
            "model": self.regularizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            write_files({self.path: buffer.getvalue()})
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"step {self.step}: the checkpoint cannot be written: {reason}; {self._last_good()}"
            ) from error
        self.saved = time.monotonic()

    def _last_good(self) -> str:
        return (
            f"last good checkpoint: {self.path}" if self.path.exists() else f"no checkpoint yet in {self.path.parent}"
        )

    def _load(self) -> None:
        content = read_checkpoint(self.path)
        if recipe_of(content, self.path) != Recipe.from_dict(json.loads(json.dumps(self.recipe.to_dict()))):
            raise TrainingError(
                f"{self.path}: the checkpoint is of another recipe; resume with the recipe it was made by"
            )
        try:
            self.regularizer.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"{self.path}: the checkpoint is of another architecture: {error}") from error
        self.step, self.loss = content["step"], content["loss"]
        self.seconds = content.get("seconds", 0.0)
        self.history = json.loads(content["history"])


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: half an optimization step cannot be resumed. A second one does not."""
    default = signal.getsignal(signal.SIGINT)
    # Signals reach the main thread only, and a handler of the caller's own is respected.
    if threading.current_thread() is not threading.main_thread() or default is not signal.default_int_handler:
        yield
        return
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the contents of a checkpoint, without running code.

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
    missing = [k for k in _KEYS if not isinstance(content, dict) or k not in content]
    if missing:
        raise TrainingError(f"{path}: not a checkpoint of icgn: it lacks {', '.join(missing)}")
    return dict(content)


def recipe_of(content: dict[str, Any], path: str | Path) -> Recipe:
    """Read the recipe in a checkpoint; `path` is named in errors.

    Raises
    ------
    TrainingError
        if this version does not understand it.
    """
    try:
        return Recipe.from_dict(json.loads(content["recipe"]), str(path))
    except ValueError as error:
        raise TrainingError(f"{path}: the recipe in the checkpoint is not understood: {error}") from error


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
        height, width = images[small[0]].shape[-2:]
        side = recipe.patch
        raise ValueError(f"images: number {small[0]} is {height} x {width}, expected at least a patch, {side} x {side}")
