"""The inputs of ``icgn restore``: the function that makes a physics, and files of measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icgn.cli.request import Request
from icgn.cli.units import TENSORS
from icgn.datasets import SUFFIXES, Job, plan
from icgn.storage.code import first_line, load_object

Factory = Callable[..., Any]


def load_factory(text: str) -> Factory:
    """Import the function ``FILE.py:function``; the file is executed.

    Raises
    ------
    ValueError
        if there is no such file or function, or the file fails.
    """
    factory: Factory = load_object(text, "physics", "FILE.py:factory, e.g. camera.py:physics")
    return factory


def read_measurement(path: Path) -> Tensor:
    """Read a measurement (C, ...) in float32, the precision in which deepinv makes its operators.

    Four axes and more have a batch of one first, three are (C, H, W), fewer get a channel too.

    Raises
    ------
    ValueError
        for a file that cannot be read, is no floating-point tensor of finite values, or holds several measurements.
    """
    try:
        y = _load(path)
    except Exception as error:  # the formats raise errors of every type
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error
    if not y.is_floating_point() or y.numel() == 0:
        raise ValueError(f"{path}: got {y.dtype} of shape {tuple(y.shape)}, expected nonempty floating-point numbers")
    while y.ndim < 3:
        y = y[None]
    if y.ndim > 3:
        if len(y) != 1:
            raise ValueError(
                f"{path}: got {len(y)} measurements of shape {tuple(y.shape[1:])}, expected one in each file"
            )
        y = y[0]
    return y.float()


def plan_measurements(request: Request) -> list[Job]:
    """Match measurements with outputs as :func:`icgn.datasets.plan`; a folder also means the tensors in it."""
    sources = [f for i in request.inputs for f in (_list(i) if i.is_dir() else [i])]
    # A folder of one file is still a folder.
    alone = len(sources) == 1 and any(i.is_dir() for i in request.inputs)
    output = request.output / f"{sources[0].stem}.png" if alone else request.output
    return plan(sources, output, reference=request.reference, figure=request.compare)


def _list(folder: Path) -> list[Path]:
    known = (*SUFFIXES, *TENSORS)
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in known and f.name[0] != "." and f.is_file())
    if not files:
        raise FileNotFoundError(
            f"{folder}: no measurement in this folder, expected {', '.join('*' + s for s in known)}"
        )
    return files


def _load(path: Path) -> Tensor:
    kind = path.suffix.lower()
    if kind == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    if kind == ".pt":
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    else:
        from safetensors.torch import load_file

        tensors = load_file(path)
        loaded = next(iter(tensors.values())) if len(tensors) == 1 else tensors
    if not isinstance(loaded, Tensor):
        raise ValueError(f"got {type(loaded).__name__}, expected one tensor")
    return loaded.detach()
