"""TensorBoard: scalars and example pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from icgn.datasets import comparison
from icgn.training.validation import Validation


class Board:
    """Writes event files to a folder; does nothing, and says so once, where TensorBoard is not installed.

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
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, **values: float) -> None:
        """Add one point to each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"training/{name}", value, step)

    def validation(self, result: Validation) -> None:
        """Add the numbers of a validation, and its pictures: clean, measured, restored."""
        if self._writer is None:
            return
        step = int(result.row["step"])
        for name, value in result.row.items():
            if name not in ("step", "loss"):
                self._writer.add_scalar(f"validation/{name.replace('_', '/', 1)}", value, step)
        for level, pictures in result.examples.items():
            panels = zip(("clean", "measured", "restored"), pictures, strict=True)
            sheet = comparison([(label, torch.as_tensor(p)) for label, p in panels])
            self._writer.add_image(f"sigma {level}", sheet.pixels, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
