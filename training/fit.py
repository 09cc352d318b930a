"""The one training loop."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from icgn.compat import dropped, keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.filters import full_float32
from icgn.regularizers.registry import architecture_of
from icgn.storage.interrupts import Interrupts, interrupts_deferred
from icgn.storage.locks import locked
from icgn.training.board import Board
from icgn.training.checkpoint import CHECKPOINT, TrainingError, read_checkpoint, recipe_of, write_checkpoint
from icgn.training.checks import check_run
from icgn.training.optimizer import make_optimizer
from icgn.training.patches import draw
from icgn.training.physics import make_physics
from icgn.training.pictures import Pictures
from icgn.training.processes import Processes
from icgn.training.progress import Progress
from icgn.training.recipe import Recipe, differences
from icgn.training.validation import Validation, validate
from icgn.training.weight import Weights

Precision = Literal["auto", "float32", "bfloat16"]

BOARD = "tensorboard"
_SAVE_SECONDS = 60.0
# Steps between two points of the curves in TensorBoard.
_SCALARS_EVERY = 10


@keyword_only
@dropped("console", "progress")
def fit(
    regularizer: ConvexRegularizer,
    recipe: Recipe,
    data: Pictures,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    on_validation: Callable[[dict[str, float]], None] | None = None,
    precision: Precision = "auto",
    processes: Processes | None = None,
) -> list[dict[str, float]]:
    r"""Train `regularizer` in place by Adam on the loss of a recipe, and return the history of validations.

    Every minute, at each validation, when interrupted and at the end, ``out/checkpoint.pt`` is replaced atomically; it
    holds tensors, numbers and text only. Patches and noise depend on seed and step alone, so that on one CPU thread a
    resumed run repeats the interrupted one bit for bit. Scalars and example pictures go to ``out/tensorboard``.

    With several processes (``accelerate launch``, ``torchrun``) each draws its part of every batch, gradients are
    summed, so that they are those of the whole batch, and validation pictures are shared out.

    A loss that leaves the weight of the regularizer open has it fitted on the validation pictures: coarsely at each
    validation, finely, with a scale, at the end. The history says both; the weight is no part of `regularizer`.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        trained on its own device.
    recipe : Recipe
        all parameters of the run.
    data : Pictures
        to train and to validate on; those to train on at least one patch large. There may be none to validate on.
    out : path
        folder of the run, made if missing.
    resume : bool
        continue from the checkpoint in `out`, if there is one.
    progress : Progress, optional
        shows how far the run is, in the main process; by default nothing is shown.
    on_validation : callable, optional
        is given each new row of the history, after the checkpoint that contains it was written, in the main process.
    precision : {"auto", "float32", "bfloat16"}
        of convolutions in adversarial and score-matching losses; ``auto``: bfloat16 on GPUs that have it. Parameters,
        sums, operators, minimizers and gradient steps are float32 always.
    processes : Processes, optional
        the processes that were launched; default: found out.

    Raises
    ------
    ValueError
        for no images, images smaller than a patch or of other channels than the regularizer, a patch smaller than a
        filter, fewer patches in a batch than processes, an operator, a learning rate or a loss that does not fit the
        regularizer, or an unknown precision.
    TrainingError
        if the loss or its gradient turns NaN (the step and the last good checkpoint are named), if the checkpoint is
        of another recipe, other images or another regularizer, or cannot be written, or if one exists and `resume` is
        False.
    BlockingIOError
        if another run writes to `out`.
    KeyboardInterrupt
        on Ctrl-C, after the step in progress was completed and saved; a validation is broken off, and made again by the
        resumed run (several processes finish it).
    """
    device = next(regularizer.parameters()).device
    group = Processes(device=device) if processes is None else processes
    physics = make_physics(recipe.physics, device=device)
    check_run(regularizer, data, recipe, group, physics)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    run = _Training(
        regularizer=regularizer,
        recipe=recipe,
        optimizer=make_optimizer(recipe.optimizer, regularizer, recipe.learning_rate),
        path=out / CHECKPOINT,
        digest=data.digest(),
        physics=physics,
        processes=group,
        half=_half(precision, device),
    )
    report = progress if progress is not None and group.is_main else Progress()
    with locked(out, group):
        run.start(resume)
        board = Board(out / BOARD if group.is_main else None, run.step)
        if board.missing:
            report.message("TensorBoard is not installed: no curves are written (pip install 'icgn[train]')")
        channels = {1: "gray", 3: "colour"}.get(regularizer.channels or 0, "any number of channels")
        report.message(f"{recipe.name}, {channels}: {data}")
        if run.step:
            whole = "; that is all of them" if run.step >= recipe.steps else ""
            report.message(f"goes on after step {run.step} of {recipe.steps}{whole}")
        report.start(recipe.name, recipe.steps, run.step)
        try:
            with interrupts_deferred() as pressed:
                _loop(run, data, report, board, on_validation, pressed)
        except KeyboardInterrupt:
            # A second Ctrl-C may have cut an update in two.
            if run.whole:
                run.save()
                report.message(f"interrupted: saved step {run.step} in {run.path}")
            raise
        finally:
            report.end()
            board.close()
    regularizer.load_state_dict(run.averaged.state_dict())
    return run.history


def _loop(
    run: _Training,
    data: Pictures,
    report: Progress,
    board: Board,
    on_validation: Callable[[dict[str, float]], None] | None,
    pressed: Interrupts,
) -> None:
    """Take steps and validate until the run is complete; ``KeyboardInterrupt`` where any process was asked to stop."""
    alone = run.processes.count == 1
    while True:
        if run.validation_is_due():
            # With a fit of weight and scale it can take longer than the steps since the last checkpoint.
            run.save()
            report.step(run.step, "validating")
            with pressed.at_once(alone):
                result = run.validate(data.validation)
            run.save()
            report.validation(result)
            board.validation(result)
            report.step(run.step, run.note())
            if on_validation is not None and run.processes.is_main:
                on_validation(result.row)
        if run.step >= run.recipe.steps:
            return
        if pressed.asked and alone:
            raise KeyboardInterrupt
        stop = run.advance(data.training, pressed.asked)
        if run.step % _SCALARS_EVERY == 0:
            board.scalars(run.step, loss=run.loss, seconds=run.elapsed(), learning_rate=run.factor())
        if stop:
            raise KeyboardInterrupt
        run.save_from_time_to_time()
        report.step(run.step, run.note())


@dataclass
class _Training:
    """The state of a run, and how it is saved and read back."""

    regularizer: ConvexRegularizer
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    path: Path
    digest: str
    physics: Any
    processes: Processes
    half: bool
    step: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    whole: bool = True

    def start(self, resume: bool) -> None:
        """Begin at step 0, or where the checkpoint was written."""
        self.saved = self.begun = time.monotonic()
        averages = self.recipe.average > 0
        self.averaged = copy.deepcopy(self.regularizer) if averages else self.regularizer
        if self.processes.from_main(self.path.exists):
            if not resume:
                raise TrainingError(
                    f"{self.path}: a run is there already; resume it (--resume), or choose another folder, with"
                    " --init to start from its model"
                )
            self._load(self.processes.from_main(lambda: read_checkpoint(self.path)))

    def validation_is_due(self) -> bool:
        """Whether a validation is due at the present step; its row may be missing after a kill."""
        if self.step == 0 or (self.history and self.history[-1]["step"] == self.step):
            return False
        return self.step % self.recipe.validate_every == 0 or self.step >= self.recipe.steps

    def validate(self, images: Sequence[Tensor]) -> Validation:
        """Validate, and add the row to the history."""
        last = Weights.of_row(self.history[-1]) if self.history else None
        final = self.step >= self.recipe.steps
        result = validate(
            self.averaged,
            self.recipe,
            images,
            self.physics,
            step=self.step,
            loss=self.loss,
            weights=last,
            final=final,
            processes=self.processes,
        )
        self.history.append(result.row)
        return result

    def advance(self, images: Sequence[Tensor], asked: bool) -> bool:
        """One optimization step; returns whether any process was `asked` to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.factor()
        self.optimizer.zero_grad()
        value, stop = self._backward(images, asked)
        if not math.isfinite(value):
            raise TrainingError(f"step {self.step}: the loss is {value}; {self._last_good()}")
        # Checked before the step: afterwards the weights would be lost, and perhaps saved.
        if not all(bool(torch.isfinite(p.grad).all()) for p in self.regularizer.parameters() if p.grad is not None):
            raise TrainingError(f"step {self.step}: the gradient of the loss is not finite; {self._last_good()}")
        self.whole = False
        self.optimizer.step()
        self._average()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self.step += 1
        self.whole = True
        return stop

    def _backward(self, images: Sequence[Tensor], asked: bool) -> tuple[float, bool]:
        """Mean loss of the whole batch, whose gradient goes to the parameters, and whether anyone asked to stop."""
        places = self.processes.share(range(self.recipe.batch))
        device = next(self.regularizer.parameters()).device
        batch = draw(images, self.recipe, self.step, self.physics, places=places).to(device)
        # The convolutions of the backward pass too have all the digits of float32.
        with full_float32(batch.clean):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
                values = self.recipe.loss.values(self.regularizer, batch)
            mean = values.float().sum() / self.recipe.batch
            torch.autograd.backward(mean)
        if self.processes.count == 1:
            return float(mean.detach()), asked
        # One message for the gradients, the loss and the request to stop, so that no process waits for another.
        gradients = [p.grad for p in self.regularizer.parameters() if p.grad is not None]
        parts = [*(g.flatten() for g in gradients), torch.stack([mean.detach(), mean.new_tensor(float(asked))])]
        total = self.processes.sum(torch.cat(parts))
        for gradient, part in zip(gradients, total[:-2].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return float(total[-2]), bool(total[-1] > 0)

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is self.regularizer:
            return
        # The plain mean at first, so that the initial parameters are soon forgotten.
        rate = max(1 - self.recipe.average, 1 / (self.step + 1))
        for mean, now in zip(self.averaged.parameters(), self.regularizer.parameters(), strict=True):
            mean.lerp_(now, rate)

    def factor(self) -> float:
        """The present learning rate as a part of the peak."""
        return schedule(self.step / self.recipe.steps, self.recipe)

    def elapsed(self) -> float:
        """Seconds spent so far, in all sittings."""
        return self.seconds + time.monotonic() - self.begun

    def note(self) -> str:
        """What the progress bar says: the loss, and the last validation at one level."""
        levels = [(k[5:], v) for k, v in (self.history[-1] if self.history else {}).items() if k.startswith("psnr_")]
        found = "  {1:.2f} dB at sigma {0}".format(*levels[len(levels) // 2]) if levels else ""
        return f"loss {self.loss:.4f}{found}"

    def save_from_time_to_time(self) -> None:
        """Write the checkpoint unless the last one is recent."""
        if time.monotonic() - self.saved >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Replace the checkpoint, in the main process; a failure leaves the last one as it is."""
        self.saved = time.monotonic()
        if not self.processes.is_main:
            return
        content = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "architecture": json.dumps(architecture_of(self.regularizer)),
            "data": self.digest,
            "step": self.step,
            "loss": self.loss,
            "seconds": self.elapsed(),
            "history": json.dumps(self.history),
            "model": self.regularizer.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        try:
            write_checkpoint(self.path, content)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"step {self.step}: the checkpoint cannot be written: {reason}; {self._last_good()}"
            ) from error

    def _last_good(self) -> str:
        return (
            f"last good checkpoint: {self.path}" if self.path.exists() else f"no checkpoint yet in {self.path.parent}"
        )

    def _load(self, content: dict[str, Any]) -> None:
        """Take over a checkpoint; ``TrainingError`` where it is of another run."""
        recipe, own = (json.loads(json.dumps(r.to_dict())) for r in (recipe_of(content, self.path), self.recipe))
        architecture = json.loads(json.dumps(architecture_of(self.regularizer) or {}))
        # Checkpoints of early versions hold no architecture.
        made = json.loads(content.get("architecture", "null")) or architecture
        for what, other in (
            ("recipe", differences(recipe, own)),
            ("architecture", differences(made, architecture)),
        ):
            if other:
                raise TrainingError(
                    f"{self.path}: the checkpoint is of another {what}: {other}; resume with what it was made with, or"
                    " start a new run from its model (--init)"
                )
        if content.get("data", self.digest) != self.digest:
            raise TrainingError(
                f"{self.path}: the checkpoint is of other pictures; resume with the data it was made on, or start from"
                " its model (--init)"
            )
        groups = [group["prefix"] for group in self.optimizer.param_groups]
        if [group.get("prefix") for group in content["optimizer"]["param_groups"]] != groups:
            raise TrainingError(
                f"{self.path}: the checkpoint is of an older icgn: its parameters are grouped otherwise"
            )
        try:
            self.averaged.load_state_dict(content.get("averaged", content["model"]))
            self.regularizer.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"{self.path}: the checkpoint is of another architecture: {error}") from error
        self.step, self.loss = content["step"], content["loss"]
        self.seconds = content.get("seconds", 0.0)
        self.history = json.loads(content["history"])


def schedule(progress: float, recipe: Recipe) -> float:
    """Learning-rate factor at a part `progress` in [0, 1] of the run: linear warm-up, then a cosine down to `final`."""
    if progress < recipe.warmup:
        return 0.1 + 0.9 * progress / recipe.warmup
    rest = (progress - recipe.warmup) / max(1e-12, 1 - recipe.warmup)
    return recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * rest)) / 2


def _half(precision: str, device: torch.device) -> bool:
    if precision not in get_args(Precision):
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(get_args(Precision))}")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return precision == "bfloat16"
