"""What ``icgn evaluate`` does: pictures and methods by name, a progress bar, files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch

from icgn import datasets
from icgn.compat import dropped, keyword_only
from icgn.datasets import Photographs
from icgn.evaluation.evaluate import Entry, evaluate
from icgn.evaluation.report import Mean, means
from icgn.evaluation.restorers import Model, Restorer, make_restorer
from icgn.evaluation.results import Results, data_of
from icgn.regularizers.pretrained import available_models, read_card
from icgn.storage.locks import locked
from icgn.storage.versions import environment
from icgn.training.processes import Processes
from icgn.training.progress import Progress

# Seconds between two writings of the files: a run that is stopped loses no more than these, and the row it was at.
_WRITE_EVERY = 30.0


@keyword_only
@dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Attributes
    ----------
    models : sequence of str
        see :func:`~icgn.evaluation.make_restorer`.
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
        factor of the regularizers, or the rule that finds it for each picture; see :func:`icgn.denoise`. One other
        than 1 is part of the names in the table.
    """

    models: Sequence[str]
    _: KW_ONLY
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


@keyword_only
@dropped("console", "progress")
def evaluation(
    request: Request, *, out: str | Path | None = None, progress: Progress | None = None
) -> list[Mean] | None:
    """Evaluate and write the files; returns the means, or None in all processes but the main one.

    Parameters
    ----------
    request : Request
        what to evaluate.
    out : path, optional
        folder for ``results.json``, ``results.csv`` and ``results.png``. Rows that are there already and fit the
        request are taken over, and those of other methods or levels on the same pictures are kept. A model whose name
        another one has there goes by its path.
    progress : Progress, optional
        shows how far the run is, in the main process; by default nothing is shown.

    Raises
    ------
    ValueError
        if the request cannot be carried out, or `out` holds results of other pictures or another seed.
    OSError
        if a file cannot be read or written, or another run writes to `out`.
    ModuleNotFoundError
        for a baseline whose package is not installed.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    group = Processes(device=request.device)
    pictures = request.pictures()
    name = request.dataset if request.dataset in ("bundled", "bsd68") else Path(request.dataset).resolve().name
    restorers = _restorers(request, group)
    results = Results({"threads": torch.get_num_threads(), "device": str(group.device), **environment()})
    report = progress if progress is not None and group.is_main else Progress()
    with ExitStack() as stack:
        if out is not None:
            out = Path(out)
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out, group))
            results.data = data_of(name, pictures, request.color, request.seed)
            results.read(out)
        _distinguish(restorers, request.models, results)
        report.start("evaluating", len(restorers) * len(request.sigmas) * len(pictures))
        stack.callback(report.end)
        rows = _evaluated(request, restorers, pictures, results, out if group.is_main else None, group, report)
    return means(rows) if group.is_main else None


def _evaluated(
    request: Request,
    restorers: Sequence[Restorer],
    pictures: Photographs,
    results: Results,
    out: Path | None,
    group: Processes,
    report: Progress,
) -> list[Entry]:
    """Compute what `results` lack, and write them to `out`."""
    named = {restorer.name: restorer for restorer in restorers}
    count, written = 0, time.monotonic()

    def done(entry: Entry) -> None:
        nonlocal count, written
        count += 1
        report.step(count, f"{entry.model}, sigma {entry.sigma:g}")
        results.add(entry, named[entry.model])
        if out is not None and time.monotonic() - written > _WRITE_EVERY:
            results.write(out)
            written = time.monotonic()

    rows = evaluate(
        restorers,
        pictures,
        request.sigmas,
        seed=request.seed,
        known=list(results.rows.values()),
        done=done,
        processes=group,
    )
    if out is not None:
        results.write(out)
    return rows


def _restorers(request: Request, group: Processes) -> list[Restorer]:
    """The methods, under the names of their folders or cards."""
    found = [make_restorer(name, group.device, request.tol, weight=request.weight) for name in request.models]
    for restorer in found:
        if isinstance(restorer, Model) and restorer.regularizer.channels == 3 and not request.color:
            raise ValueError(f"model: {restorer.name} takes colour pictures, expected a gray one, or --color")
    return found


def _distinguish(restorers: Sequence[Restorer], asked: Sequence[str], results: Results) -> None:
    """Name a model by its path where another has its name: in this run, in the results, or among the shipped ones."""
    called = [r.name for r in restorers]
    for restorer, given in zip(restorers, asked, strict=True):
        if not isinstance(restorer, Model) or given in available_models():
            continue
        own = restorer.label
        others = [results.methods.get(restorer.name), read_card(own) if own in available_models() else None]
        if called.count(restorer.name) > 1 or not all(_is_same(restorer.card, o) for o in others if o is not None):
            restorer.call(given)
    names = [r.name for r in restorers]
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise ValueError(f"model: got {twice[0]!r} twice, expected different models")


def _is_same(card: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two cards are of the same weights in the same architecture."""
    return all(card.get(key) == other.get(key) for key in ("sha256", "architecture"))
