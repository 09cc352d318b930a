"""What the benchmarks share: files, conditions of a run, tables, figures, options, pictures and seconds."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from torch import Tensor

from icgn.storage import write_files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"

Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Out = Annotated[Path | None, typer.Option(help="Folder; default that of docs/results.")]


def conditions(*packages: str) -> dict[str, Any]:
    """The machine, and the versions of icgn and of some packages."""
    return {"machine": platform.machine(), "versions": {p: version(p) for p in ("icgn", *packages)}}


def read(path: Path, otherwise: Any) -> Any:
    """What a JSON file holds, or `otherwise` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def resumed(path: Path, settings: dict[str, Any], **empty: Any) -> dict[str, Any]:
    """What an interrupted run with the same settings left in a JSON file; else the settings with empty entries."""
    content: dict[str, Any] = read(path, {})
    return content if content.get("settings") == settings else {"settings": settings, **empty}


def write(folder: Path, files: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write files to a folder, which is made, together or not at all: bytes, text, and anything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files({folder / name: _bytes(content, indent) for name, content in files.items()})


def _bytes(content: Any, indent: int | None) -> bytes:
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=indent)
    return (text.rstrip("\n") + "\n").encode()


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def figure(width: float, height: float, dpi: int = 100) -> Any:
    """An empty matplotlib figure, drawn without a screen; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    return made


def png(drawn: Any) -> bytes:
    """A figure as PNG, without the version of matplotlib in it."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def numbers(text: str, option: str, kind: Callable[[str], float] = float) -> list[Any]:
    """Positive numbers that an option has, separated by commas.

    Raises
    ------
    typer.BadParameter
        for anything else.
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < n < float("inf") for n in found):
        raise typer.BadParameter(f"--{option}: got {text!r}, expected positive numbers separated by commas")
    return found


def central(picture: Tensor, side: int) -> Tensor:
    """The central square of a picture (C, H, W), all of a side that is smaller."""
    top, left = (max(0, (n - side) // 2) for n in picture.shape[-2:])
    return picture[..., top : top + side, left : left + side]


def seconds(call: Callable[[], object], repeat: int = 7, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of `repeat` calls, after one to warm up; other programs disturb ``time.process_time`` less."""
    call()
    times = []
    for _ in range(repeat):
        begin = clock()
        call()
        times.append(clock() - begin)
    return median(times)


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int, repeat: int = 1) -> dict[str, list[float]]:
    """Seconds of each of several calls in every round: in turns, so that what else the machine does meets all alike.

    The ratio of two in the same round means more than either; see :func:`ratio`.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, repeat))
    return times


def ratio(times: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """Median over the rounds of :func:`in_turns` of the seconds of one call over those of another."""
    return median(a / b for a, b in zip(times[name], times[other], strict=True))
