"""A restored picture or stack: a row of the table, an object for machines, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from icgn.cli.units import INTENSITIES, Unit
from icgn.datasets import Picture, Quality, comparison, difference, quality, visible_gain
from icgn.pictures import Restored
from icgn.solvers import Status


@dataclass(frozen=True)
class Outcome:
    """What became of a picture, or of all pages of a stack together.

    Attributes
    ----------
    sigma, noise : float
        level asked to be removed, and that of the noise, in intensities.
    found : str
        how the noise was found: given, measured or estimated.
    rms_distance, relative_gap : float
        what is proved: of a stack the largest; the distance in intensities.
    iterations, seconds : int, float
        of the slowest channel; of a stack the sum.
    weight : tuple of float
        of the regularizer, for each channel.
    range : (float, float)
        the intensities that were 0 and 1 to the model.
    statuses : tuple of Status
        one for each page.
    before, after : Quality or None
        against the reference; means over the pages.
    """

    sigma: float
    noise: float
    found: str
    rms_distance: float
    relative_gap: float
    iterations: int
    seconds: float
    weight: tuple[float, ...]
    range: tuple[float, float]
    statuses: tuple[Status, ...]
    before: Quality | None = None
    after: Quality | None = None

    @property
    def status(self) -> str:
        """How it ended, in a word or two; of a stack with the pages that have converged.

        Where no distance is proved, the data do not determine the picture: the gap of the objective has been met.
        """
        worst = next((s for s in self.statuses if s is not Status.CONVERGED), Status.CONVERGED)
        if worst is Status.CONVERGED and not self.proved:
            return "gap met"
        text = str(worst).split(":")[0]
        if len(self.statuses) == 1 or worst is Status.CONVERGED:
            return text
        return f"{text}, {self.statuses.count(Status.CONVERGED)}/{len(self.statuses)} converged"

    @property
    def proved(self) -> bool:
        """Whether a distance is proved that says something: pictures are never farther apart than their range."""
        return self.rms_distance <= self.range[1] - self.range[0]


def outcome_of(restored: Restored, clean: Tensor | None) -> Outcome:
    """What became of a picture whose clean pixels (C, H, W), if known, are those of the file that was given."""
    return Outcome(
        sigma=restored.sigma,
        noise=restored.noise.value,
        found=restored.noise.found,
        rms_distance=restored.rms_distance,
        relative_gap=restored.relative_gap,
        iterations=restored.iterations,
        seconds=restored.seconds,
        weight=tuple(restored.solution.weight.tolist()),
        range=restored.range,
        statuses=(restored.status,),
        before=quality_in(restored.before, clean, restored.range),
        after=quality_in(restored.picture.pixels, clean, restored.range),
    )


def joined(outcomes: Sequence[Outcome], pages: bool = True) -> Outcome:
    """Put the outcomes of the pages of a stack together, or those of the channels of a page."""
    worst = max(outcomes, key=lambda o: o.rms_distance)
    count = len(outcomes)
    statuses = tuple(s for o in outcomes for s in o.statuses)
    return replace(
        worst,
        sigma=sum(o.sigma for o in outcomes) / count,
        noise=sum(o.noise for o in outcomes) / count,
        relative_gap=max(o.relative_gap for o in outcomes),
        iterations=sum(o.iterations for o in outcomes) if pages else max(o.iterations for o in outcomes),
        seconds=sum(o.seconds for o in outcomes),
        weight=tuple(dict.fromkeys(w for o in outcomes for w in o.weight)),
        statuses=statuses if pages else (next((s for s in statuses if s is not Status.CONVERGED), Status.CONVERGED),),
        before=mean_quality([o.before for o in outcomes]),
        after=mean_quality([o.after for o in outcomes]),
    )


def cells(name: str, outcome: Outcome, unit: Unit, measured: bool) -> list[str]:
    """Write the row of the table: sigma and certified distance in the unit of the file, quality before and after."""
    mark = "" if unit.gray else " u"
    row = [
        name,
        f"{_short(unit.scale * outcome.sigma, 2) if unit.gray else f'{unit.scale * outcome.sigma:.4g}'}{mark}",
        str(outcome.iterations),
        f"{outcome.seconds:.2f}",
        _proved(outcome, unit, mark),
    ]
    if measured:
        pairs = [_words(q) for q in (outcome.before, outcome.after)]
        row += [f"{pairs[0][0]}>{pairs[1][0]}", f"{pairs[0][1]}>{pairs[1][1]}"]
    return [*row, outcome.status]


def row(name: str, restored: Restored, clean: Picture | None) -> list[str]:
    """Write the row of a picture whose levels are gray levels."""
    return cells(name, outcome_of(restored, None if clean is None else clean.pixels), INTENSITIES, clean is not None)


@dataclass(frozen=True)
class Record:
    """All that machines are told of one picture: :meth:`json`."""

    file: Path
    output: Path
    read: str
    pages: int
    size: tuple[int, int]
    unit: Unit
    outcome: Outcome
    notes: tuple[str, ...] = field(default=())

    def json(self) -> dict[str, Any]:
        """An object of text, numbers and lists; what is unknown or infinite is null."""
        o, unit = self.outcome, self.unit
        range_ = [unit.number(v) for v in o.range]
        return {
            "file": str(self.file),
            "output": str(self.output),
            "read": self.read,
            "pages": self.pages,
            "width": self.size[1],
            "height": self.size[0],
            "unit": unit.name,
            "unit_in_file": (unit.file[1] - unit.file[0]) / unit.scale,
            "noise": _known(unit.scale * o.noise),
            "noise_found": o.found,
            "sigma": _known(unit.scale * o.sigma),
            "weight": [_known(w) for w in o.weight],
            "range": [_known(v) for v in range_],
            "status": o.status,
            "converged": all(s is Status.CONVERGED for s in o.statuses),
            "distance": _known(unit.scale * o.rms_distance) if o.proved else None,
            "relative_gap": _known(o.relative_gap),
            "iterations": o.iterations,
            "seconds": round(o.seconds, 3),
            "psnr": None if o.after is None else _known(o.after.psnr),
            "psnr_before": None if o.before is None else _known(o.before.psnr),
            "ssim": None if o.after is None else _known(o.after.ssim),
            "ssim_before": None if o.before is None else _known(o.before.ssim),
            "notes": list(self.notes),
        }


def figure(restored: Restored, clean: Picture | None, label: str) -> Picture:
    """Draw the picture before, restored and amplified difference side by side, and the clean picture if there is one.

    The one before is left out where it is no picture, and the difference where the sizes differ. All are shown in the
    range that the model was given.
    """
    before, after = (
        None if p is None else _in_range(p, restored.range) for p in (restored.before, restored.picture.pixels)
    )
    assert after is not None
    panels = [("restored", after)]
    if before is not None:
        panels.insert(0, (label, before))
        if before.shape == after.shape:
            gain = visible_gain(before, after)
            panels.append((f"{label} - restored, x {gain:g}", difference(before, after, gain)))
    if clean is not None:
        panels.append(("reference", _in_range(clean.pixels, restored.range)))
    return comparison(panels)


def _in_range(pixels: Tensor, limits: tuple[float, float]) -> Tensor:
    return pixels if limits == (0, 1) else (pixels - limits[0]) / (limits[1] - limits[0])


def _proved(outcome: Outcome, unit: Unit, mark: str) -> str:
    if outcome.proved:
        distance = unit.scale * outcome.rms_distance
        return f"{_short(distance, 4) if unit.gray else f'{distance:.3g}'}{mark}"
    return f"gap {outcome.relative_gap:.1e}".replace("e-0", "e-") if math.isfinite(outcome.relative_gap) else "-"


def _short(number: float, places: int) -> str:
    """So many decimal places, or two digits of numbers that these would not show: gray levels of 16 bits are small."""
    return f"{number:.2g}" if 0 < number < 10 ** (1 - places) else f"{number:.{places}f}"


def quality_in(pixels: Tensor | None, clean: Tensor | None, limits: tuple[float, float]) -> Quality | None:
    """Against the clean pixels, the range being the peak; None where there are none of the same shape."""
    if pixels is None or clean is None or pixels.shape != clean.shape:
        return None
    return quality(_in_range(pixels, limits), _in_range(clean, limits))


def mean_quality(found: Sequence[Quality | None]) -> Quality | None:
    """Mean over the pages of which it is known; None where it is known of none."""
    known = [q for q in found if q is not None]
    if not known:
        return None
    return Quality(sum(q.psnr for q in known) / len(known), sum(q.ssim for q in known) / len(known))


def _words(found: Quality | None) -> tuple[str, str]:
    return ("-", "-") if found is None else (f"{found.psnr:.2f}", f"{found.ssim:.3f}")


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
