"""Evaluations as files: CSV, JSON with all that is needed to repeat them, a plot, a Markdown table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from icgn.evaluation.evaluate import Entry
from icgn.storage.files import write_files

_INFINITE = "inf"


@dataclass(frozen=True)
class Mean:
    """Means over the pictures of one method at one noise level.

    Attributes
    ----------
    model, sigma, parameters : str, float, int
        as of every :class:`Entry`.
    pictures : int
        how many there are.
    noisy_psnr, psnr, ssim, iterations, seconds : float
        means.
    rms_distance : float
        the largest, in gray levels; nan where one is not proved.
    converged : int
        how many solutions converged.
    """

    model: str
    sigma: float
    pictures: int
    noisy_psnr: float
    psnr: float
    ssim: float
    iterations: float
    seconds: float
    rms_distance: float
    converged: int
    parameters: int


def means(rows: Sequence[Entry]) -> list[Mean]:
    """One row per method and noise level, in the order of the entries."""
    found = []
    for (model, sigma), group in groupby(rows, key=lambda e: (e.model, e.sigma)):
        own = list(group)
        found.append(
            Mean(
                model=model,
                sigma=sigma,
                pictures=len(own),
                noisy_psnr=mean(e.noisy_psnr for e in own),
                psnr=mean(e.psnr for e in own),
                ssim=mean(e.ssim for e in own),
                iterations=mean(e.iterations for e in own),
                seconds=mean(e.seconds for e in own),
                rms_distance=max((e.rms_distance for e in own), key=lambda d: math.inf if math.isnan(d) else d),
                converged=sum(e.status == "converged" for e in own),
                parameters=own[0].parameters,
            )
        )
    return found


def markdown(table: Sequence[Mean]) -> str:
    """The means as a Markdown table."""
    head = ["model", "parameters", "sigma", "noisy, dB", "restored, dB", "SSIM", "iterations", "seconds", "distance"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for m in table:
        cells = [
            m.model,
            f"{m.parameters:,}" if m.parameters else "-",
            f"{m.sigma:g}",
            f"{m.noisy_psnr:.2f}",
            f"**{m.psnr:.2f}**",
            f"{m.ssim:.4f}",
            _number(m.iterations, ".0f"),
            f"{m.seconds:.2f}",
            _number(m.rms_distance, ".4f"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_results(folder: str | Path, rows: Sequence[Entry], facts: dict[str, Any]) -> list[Path]:
    """Write ``results.json``, ``results.csv`` and ``results.png`` to a folder; returns their paths.

    Existing files are replaced together or not at all.

    Parameters
    ----------
    folder : path
        made if missing.
    rows : sequence of Entry
        what was measured.
    facts : dict
        the settings that repeat it.

    Raises
    ------
    OSError
        if they cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{k: _plain(v) for k, v in asdict(e).items()} for e in rows]
    table = [{k: _plain(v) for k, v in asdict(m).items()} for m in means(rows)]
    content = {"settings": facts, "means": table, "rows": entries}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [f.name for f in fields(Entry)])
    writer.writeheader()
    writer.writerows(entries)
    files = {
        folder / "results.json": (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
        folder / "results.csv": text.getvalue().encode(),
        folder / "results.png": plot(means(rows)),
    }
    write_files(files)
    return list(files)


def read_results(path: str | Path) -> tuple[list[Entry], dict[str, Any]]:
    """Read the rows and the settings in a ``results.json``.

    Raises
    ------
    ValueError
        if it is not one.
    OSError
        if it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = [{k: _value(v) for k, v in row.items()} for row in content["rows"]]
        return [Entry(**row) for row in rows], dict(content["settings"])
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not the results of icgn evaluate: {error}") from error


def plot(table: Sequence[Mean]) -> bytes:
    """Draw PSNR against noise level, as gain over the noisy picture, and against seconds; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for model, own in _by_model(table):
        levels = sorted(own, key=lambda m: m.sigma)
        left.plot([m.sigma for m in levels], [m.psnr - m.noisy_psnr for m in levels], "o-", label=model)
        right.plot([m.seconds for m in levels], [m.psnr for m in levels], "o-", label=model)
        for m in levels:
            right.annotate(f"{m.sigma:g}", (m.seconds, m.psnr), textcoords="offset points", xytext=(4, 4), fontsize=7)
    left.set(xlabel="noise level (gray levels)", ylabel="PSNR gained over the noisy picture (dB)")
    right.set(xlabel="seconds per picture", ylabel="PSNR (dB); labels: noise level", xscale="log")
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _by_model(table: Iterable[Mean]) -> list[tuple[str, list[Mean]]]:
    groups: dict[str, list[Mean]] = {}
    for m in table:
        groups.setdefault(m.model, []).append(m)
    return list(groups.items())


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _plain(value: Any) -> Any:
    """A value that JSON can hold: nothing for NaN, a word for an infinite number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else _INFINITE
    return value


def _value(plain: Any) -> Any:
    """The inverse of :func:`_plain`."""
    if plain is None:
        return math.nan
    return math.inf if plain == _INFINITE else plain
