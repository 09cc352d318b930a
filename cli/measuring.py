"""``icgn restore``: pictures from the measurements of any linear physics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepinv
import numpy as np
import torch
from torch import Tensor

from icgn.cli.batch import Request, read_reference, restore_all
from icgn.cli.inverse import InverseRequest, Measurement, Tuning, restored_by
from icgn.cli.levels import estimated_level, regularizer_level
from icgn.cli.models import ModelFor, check_channels
from icgn.cli.outcome import Outcome
from icgn.cli.screen import say
from icgn.datasets import SUFFIXES, Job, Picture, plan, read_picture
from icgn.functionals.physics import converted
from icgn.regularizers import ConvexRegularizer

TENSORS = (".npy", ".pt", ".safetensors")
"""Suffixes of the files of measurements that are no pictures."""

Factory = Callable[..., Any]


def restore_files(request: InverseRequest, physics: str) -> None:
    """Restore pictures from their measurements.

    Parameters
    ----------
    request : InverseRequest
        what to do; the inputs are pictures or tensors. The noise of a picture is estimated where it is None, that of
        a tensor must be given.
    physics : str
        ``FILE.py:factory``; the file is executed.

    Raises
    ------
    typer.Exit
        as :func:`icgn.cli.batch.restore_all`.
    """

    def prepare(models: ModelFor, device: torch.device) -> _Restore:
        return _Restore(models, Tuning.parse(request), load_factory(physics), physics, device)

    restore_all(request, prepare, "restoring", "measured", lambda: _plan(request))


def load_factory(text: str) -> Factory:
    """Import the function ``FILE.py:function``; the file is executed.

    Raises
    ------
    ValueError
        naming ``--physics``, if there is no such file or function, or the file fails.
    """
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise ValueError(f"--physics: got {text!r}, expected FILE.py:factory, e.g. camera.py:physics")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"--physics {text}: {path}: no such file")
    spec = importlib.util.spec_from_file_location("icgn_physics_file", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--physics {text}: got suffix {path.suffix!r}, expected .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file raises
        raise ValueError(f"--physics {text}: cannot be imported: {_reason(error)}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
        known = [n for n, v in own.items() if callable(v) and not n.startswith("_")]
        raise ValueError(f"--physics {text}: no function {name!r}, expected one of {', '.join(known) or 'some'}")
    return factory


def read_measurement(path: Path) -> Tensor:
    """Read a measurement (1, C, ...) in float32, the precision in which deepinv makes its operators.

    Four axes and more have the batch first, three are (C, H, W), fewer get a channel too.

    Raises
    ------
    ValueError
        for a file that cannot be read, is no floating-point tensor of finite values, or holds several measurements.
    """
    try:
        y = _load(path)
    except Exception as error:  # the formats raise errors of every type
        raise ValueError(f"{path}: cannot be read: {_reason(error)}") from error
    if not y.is_floating_point() or y.numel() == 0:
        raise ValueError(f"{path}: got {y.dtype} of shape {tuple(y.shape)}, expected nonempty floating-point numbers")
    while y.ndim < 3:
        y = y[None]
    if y.ndim == 3:
        y = y[None]
    if len(y) != 1:
        raise ValueError(f"{path}: got {len(y)} measurements of shape {tuple(y.shape[1:])}, expected one in each file")
    return y.float()


class _Restore:
    """The work of ``icgn restore`` on one file."""

    def __init__(self, models: ModelFor, tuning: Tuning, factory: Factory, name: str, device: torch.device) -> None:
        self.models, self.tuning, self.factory, self.name, self.device = models, tuning, factory, name, device

    def __call__(self, job: Job) -> Outcome:
        picture = None if _is_tensor(job.source) else read_picture(job.source)
        y = read_measurement(job.source) if picture is None else picture.pixels[None]
        regularizer = self.models(3 if y.shape[1] == 3 else 1)
        measurement, size = self._pose(y.to(self.device), regularizer)
        clean = read_reference(job, torch.empty(size, device="meta"))
        noise = self._noise(job.source, picture, regularizer)
        sigma = regularizer_level(job.source, noise, self.tuning.sigma, regularizer.sigma_range)
        like = Picture(torch.zeros(size), bits=16) if picture is None else _resized(job.source, picture, size)
        done = restored_by(like, measurement, regularizer, noise, sigma, self.tuning)
        return Outcome(job.source.name, done, picture, clean, label="measured")

    def _pose(self, y: Tensor, regularizer: ConvexRegularizer) -> tuple[Measurement, tuple[int, int, int]]:
        """The measurement as the model takes it, and the size of the whole picture."""
        if y.ndim == 4 and y.shape[1] == 3:
            check_channels(regularizer, 3)
            y = y.transpose(0, 1).contiguous() if regularizer.channels == 1 else y
        try:
            physics = self.factory(img_size=tuple(y.shape[1:]), device=self.device)
        except (Exception, SystemExit) as error:  # whatever the function raises
            raise ValueError(f"--physics {self.name}: failed on {tuple(y.shape[1:])}: {_reason(error)}") from error
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            got = type(physics).__name__
            raise ValueError(f"--physics {self.name}: returned {got}, expected a deepinv.physics.LinearPhysics")
        x = self._adjoint(physics, y)
        expected = regularizer.channels or x.shape[1]
        if x.ndim != 4 or x.shape[1] not in (1, 3) or x.shape[1] != expected or not x.is_floating_point():
            raise ValueError(
                f"--physics {self.name}: A_adjoint gives {x.dtype} of shape {tuple(x.shape)}, expected real numbers of"
                f" ({len(y)}, {expected}, height, width) for the model"
            )
        channels = x.shape[0] * x.shape[1]
        return Measurement(*_in_double(y, physics)), (channels, x.shape[2], x.shape[3])

    def _adjoint(self, physics: Any, y: Tensor) -> Tensor:
        """A^T y, for which A must give the shape of y again."""
        try:
            x: Tensor = physics.A_adjoint(y)
            again = tuple(physics.A(x).shape)
        except Exception as error:  # deepinv's operators raise errors of every type
            shape = tuple(y.shape)
            raise ValueError(f"--physics {self.name}: does not take shape {shape}: {_reason(error)}") from error
        if again != tuple(y.shape):
            raise ValueError(
                f"--physics {self.name}: measures {again} of the picture {tuple(x.shape)},"
                f" expected {tuple(y.shape)} as the measurement"
            )
        return x

    def _noise(self, source: Path, picture: Picture | None, regularizer: ConvexRegularizer) -> float:
        if self.tuning.noise is not None:
            return self.tuning.noise / 255
        if picture is None:
            raise ValueError(
                f"--noise: got none for {source}, expected the noise level: it can be estimated for pictures only"
            )
        return estimated_level(source, picture.pixels, regularizer.sigma_range)


def _plan(request: Request) -> list[Job]:
    """As :func:`icgn.datasets.plan`; a folder stands for the tensors in it too."""
    sources = [f for i in request.inputs for f in (_list(i) if i.is_dir() else [i])]
    # A folder of one file is a folder all the same.
    alone = len(sources) == 1 and any(i.is_dir() for i in request.inputs)
    output = request.output / f"{sources[0].stem}.png" if alone else request.output
    return plan(sources, output, request.reference, request.compare)


def _list(folder: Path) -> list[Path]:
    known = (*SUFFIXES, *TENSORS)
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in known and f.name[0] != "." and f.is_file())
    if not files:
        raise FileNotFoundError(
            f"{folder}: no measurement in this folder, expected {', '.join('*' + s for s in known)}"
        )
    return files


def _is_tensor(path: Path) -> bool:
    return path.suffix.lower() in TENSORS


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


def _in_double(y: Tensor, physics: Any) -> tuple[Tensor, Any]:
    """Measurement and physics in float64 where the physics can, as the certificate does; the same otherwise."""
    double = None
    with suppress(Exception):  # deepinv's operators raise errors of every type
        double = converted(physics, y.double())
    return (y, physics) if double is None else (y.double(), double)


def _resized(source: Path, picture: Picture, size: Sequence[int]) -> Picture:
    """The picture that is kept but for its pixels: without alpha where the restored one has another size."""
    if picture.alpha is None or tuple(picture.alpha.shape[1:]) == tuple(size[1:]):
        return replace(picture, pixels=torch.zeros(tuple(size)), alpha=picture.alpha)
    say("warning", f"{source}: transparency is left out, the restored picture having another size")
    return replace(picture, pixels=torch.zeros(tuple(size)), alpha=None)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
