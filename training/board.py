"""TensorBoard: scalars and example pictures of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from icgn.datasets import comparison
from icgn.training.validation import Validation


class Board:
    """Writes event files to a folder; does nothing, and says so once, where TensorBoard is not installed.

    Curves are a by-product: where they cannot be written a warning names the folder, and the run goes on without.

    Parameters
    ----------
    folder : path or None
        where the files go; None writes none.
    step : int
        step from which the run goes on: later entries of an interrupted run are hidden.
    """

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self._writer: Any = None
        self.missing = False
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.missing = True
            return
        self._folder = folder
        try:
            self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as error:
            self._give_up(error)

    def scalars(self, step: int, **values: float) -> None:
        """Add one point to each curve."""
        self._attempt(lambda: self._add(step, {f"training/{name}": value for name, value in values.items()}))

    def validation(self, result: Validation) -> None:
        """Add the numbers of a validation, and its pictures: clean, measured, restored."""
        self._attempt(lambda: self._add_validation(result))

    def close(self) -> None:
        """Write what is left."""
        self._attempt(lambda: self._writer.close())

    def _add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def _add_validation(self, result: Validation) -> None:
        step = int(result.row["step"])
        numbers = {k: v for k, v in result.row.items() if k not in ("step", "loss")}
        self._add(step, {f"validation/{name.replace('_', '/', 1)}": value for name, value in numbers.items()})
        for level, pictures in result.examples.items():
            panels = zip(("clean", "measured", "restored"), pictures, strict=True)
            sheet = comparison([(label, torch.as_tensor(p)) for label, p in panels])
            self._writer.add_image(f"sigma {level}", sheet.pixels, step)
        self._writer.flush()

    def _attempt(self, write: Callable[[], None]) -> None:
        if self._writer is None:
            return
        try:
            write()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        warnings.warn(f"{self._folder}: curves are written no longer: {error.strerror or error}", stacklevel=4)
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()
