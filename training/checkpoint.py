"""Checkpoints: written atomically, read without running code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from icgn.storage.files import write_files
from icgn.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
_KEYS = ("recipe", "step", "loss", "history", "model", "optimizer")


class TrainingError(RuntimeError):
    """Training cannot go on: a loss that is not finite, or a checkpoint of another run or that cannot be written."""


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Replace a checkpoint at once; a failure leaves the last one as it is.

    Raises
    ------
    OSError
        if it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_files({path: buffer.getvalue()})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the contents of a checkpoint, without running code.

    Raises
    ------
    FileNotFoundError
        if there is none.
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
        return Recipe.from_dict(json.loads(content["recipe"]), source=str(path))
    except ValueError as error:
        raise TrainingError(f"{path}: the recipe in the checkpoint is not understood: {error}") from error
