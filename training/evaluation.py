"""What ``icgn evaluate`` does: pictures and methods by name, a progress bar, files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from icgn import datasets
from icgn.datasets import Photographs
from icgn.regularizers.pretrained import available_models
from icgn.training.evaluate import Entry, evaluate
from icgn.training.processes import Processes
from icgn.training.report import Mean, means, read_results, settings, write_results
from icgn.training.restorers import Model, Restorer, make_restorer

# Seconds between two writings of the files: a run that is stopped loses no more, and the row it was at.
_WRITE_EVERY = 30.0


@dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Attributes
    ----------
    models : sequence of str
        see :func:`~icgn.training.make_restorer`.
    dataset : str
        ``bundled``, ``bsd68`` or a folder.
    sigmas : sequence of float
        noise levels in 8-bit gray levels.
    data : path, optional
        root of BSDS500, for ``bsd68``.
    color : bool
        whether the pictures are taken in colour.
    every : int
        take every so many-th picture.
    seed : int
        of the noise.
    tol : float
        certified RMS distance, in intensities.
    device : str or torch.device, optional
        default a GPU where there is one.
    threads : int, optional
        CPU threads.
    weight : float or str
        strength of the regularizers, or the rule that finds it for each picture; see :func:`icgn.denoise`. Another
        than 1 is part of the names in the table.
    """

    models: Sequence[str]
    dataset: str = "bundled"
    sigmas: Sequence[float] = (5.0, 15.0, 25.0, 50.0)
    data: Path | None = None
    color: bool = False
    every: int = 1
    seed: int = 0
    tol: float = 1e-4
    device: str | torch.device | None = None
    threads: int | None = None
    weight: float | str = 1.0

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("model: got none, expected at least one")
        twice = sorted({s for s in self.sigmas if list(self.sigmas).count(s) > 1})
        if twice:
            raise ValueError(f"sigma: got {twice[0]:g} twice, expected different levels")
        for s in self.sigmas:
            if not 0 < s <= 255:
                raise ValueError(f"sigma: got {s:g}, expected gray levels of an 8-bit picture, above 0 up to 255")

    def pictures(self) -> Photographs:
        """The photographs.

        Raises
        ------
        ValueError
            for ``bsd68`` without `data`.
        FileNotFoundError
            if they are not there.
        """
        if self.dataset == "bundled":
            found = datasets.bundled(gray=not self.color)
        elif self.dataset == "bsd68":
            if self.data is None:
                raise ValueError("data: got none, expected the root of BSDS500 for the dataset bsd68")
            found = datasets.bsd68(self.data, gray=not self.color)
        else:
            found = datasets.folder(self.dataset, gray=not self.color)
        return found[:: self.every]


def evaluation(request: Request, out: str | Path | None = None, console: Console | None = None) -> list[Mean] | None:
    """Evaluate and write the files; returns the means, or None in all processes but the main one.

    Parameters
    ----------
    request : Request
        what to evaluate.
    out : path, optional
        folder for ``results.json``, ``results.csv`` and ``results.png``. Rows that are there already and fit the
        request are taken over, and those of other methods or levels on the same pictures are kept.
    console : rich.console.Console, optional
        where progress is shown; default standard error.

    Raises
    ------
    ValueError
        if the request cannot be carried out, or `out` holds results of other pictures or another seed.
    OSError
        if a file cannot be read or written.
    ModuleNotFoundError
        for a baseline whose package is not installed.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    group = Processes(request.device)
    pictures = request.pictures()
    restorers = _restorers(request, group)
    name = request.dataset if request.dataset in ("bundled", "bsd68") else Path(request.dataset).resolve().name
    names = list(pictures.names)
    facts = settings(restorers, name, names, request.color, request.seed, torch.get_num_threads(), str(group.device))
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    known = _known(out, facts)
    console = (console or Console(stderr=True)) if group.is_main else Console(quiet=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    fresh: list[Entry] = []
    rows: list[Entry] = []
    written = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = len(restorers) * len(request.sigmas) * len(pictures)
        task = progress.add_task("evaluating", total=len(group.share(range(total))))

        def done(entry: Entry) -> None:
            nonlocal written
            fresh.append(entry)
            progress.update(task, advance=1, description=f"{entry.model}, sigma {entry.sigma:g}")
            if out is not None and group.count == 1 and time.monotonic() - written > _WRITE_EVERY:
                write_results(out, _merged(known, fresh), facts)
                written = time.monotonic()

        # Block by block, so that a run that is stopped loses little, with several processes too.
        for restorer, sigma in product(restorers, request.sigmas):
            rows += evaluate([restorer], pictures, [sigma], request.seed, known, done, group)
            if out is not None and group.is_main:
                write_results(out, _merged(known, rows), facts)
    return means(rows) if group.is_main else None


def _restorers(request: Request, group: Processes) -> list[Restorer]:
    """The methods, with different names: models of one name are called as they were asked for."""
    found = [make_restorer(name, group.device, request.tol, request.weight) for name in request.models]
    called = [r.name for r in found]
    for restorer, given in zip(found, request.models, strict=True):
        if not isinstance(restorer, Model):
            continue
        if called.count(restorer.name) > 1 and given not in available_models():
            restorer.call(given)
        if restorer.regularizer.channels == 3 and not request.color:
            raise ValueError(f"model: {restorer.name} takes colour pictures, expected a gray one, or --color")
    names = [r.name for r in found]
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise ValueError(f"model: got {twice[0]!r} twice, expected different models")
    return found


def _known(out: str | Path | None, facts: dict[str, object]) -> list[Entry]:
    """Rows of an earlier run; its methods are added to the facts."""
    path = None if out is None else Path(out) / "results.json"
    if path is None or not path.exists():
        return []
    rows, old = read_results(path)
    for key in ("dataset", "pictures", "color", "seed"):
        if old.get(key) != facts[key]:
            raise ValueError(f"{path}: is of another {key}, expected {facts[key]!r}; choose another folder")
    methods = facts["methods"]
    assert isinstance(methods, dict)
    facts["methods"] = {**old.get("methods", {}), **methods}
    return rows


def _merged(known: Sequence[Entry], rows: Sequence[Entry]) -> list[Entry]:
    """Earlier rows and new ones, sorted; a method that has changed replaces its earlier self."""
    table = {(e.model, e.sigma, e.image): e for e in known}
    changed = {(e.model, e.method) for e in rows}
    models = {model for model, _ in changed}
    kept = {k: e for k, e in table.items() if e.model not in models or (e.model, e.method) in changed}
    everything = kept | {(e.model, e.sigma, e.image): e for e in rows}
    return [everything[key] for key in sorted(everything)]
