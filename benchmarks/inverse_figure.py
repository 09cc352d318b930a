"""The figure of ``benchmarks/inverse.py``: measured, restored and clean pictures, a task in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from harness import central
from inverse_tasks import Case, Task
from torch import Tensor

from icgn.datasets import Picture, comparison, quality, write_picture

# Side of every picture in pixels: smaller ones get a white margin, and every label is narrower.
_SIDE = 192

Panel = tuple[str, Case, Sequence[str], Sequence[Tensor]]


def draw(panels: Sequence[Panel], tasks: Mapping[str, Task], path: Path) -> None:
    """Write the figure as PNG.

    Parameters
    ----------
    panels : sequence of (task, case, names of the methods, their pictures (1, C, H, W))
        one for each row; without any, nothing is written.
    tasks : mapping
        from which the names of the starts are taken.
    path : Path
        where it goes.
    """
    rows = []
    for task, case, names, answers in panels:
        clean = case.shown(case.clean)
        shown = [(tasks[task].start, case.shown(case.start))]
        shown += [(name, case.shown(x)) for name, x in zip(names, answers, strict=True)]
        labelled = [(f"{label} {quality(x, clean).psnr:.2f} dB", _cropped(x)) for label, x in shown]
        rows.append(comparison([*labelled, ("clean", _cropped(clean))]).pixels)
    if not rows:
        return
    width = max(r.shape[-1] for r in rows)
    sheet = torch.cat([F.pad(r, (0, width - r.shape[-1]), value=1.0) for r in rows], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(sheet[:1]))


def _cropped(x: Tensor) -> Tensor:
    """The centre of a picture (C, H, W), with a white margin where it is small."""
    part = central(x, _SIDE)
    height, width = part.shape[-2:]
    return F.pad(part, (0, _SIDE - width, 0, _SIDE - height), value=1.0)
