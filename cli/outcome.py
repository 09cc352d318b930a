"""A restored picture, its row of the table, and its figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from icgn.datasets import Picture, comparison, difference, quality, visible_gain


@dataclass(frozen=True, eq=False)
class Restored:
    """One restored picture and what its row of the table says.

    Attributes
    ----------
    picture : Picture
        the result.
    sigma : float
        noise level that the regularizer removed, in intensities.
    iterations : int
        of the solver.
    seconds : float
        wall-clock time.
    rms_distance : float
        certified RMS distance to the minimizer, in intensities; inf where none is proved.
    relative_gap : float
        certified gap of the objective, over the objective; inf where none is proved.
    status : str
        how the solver ended.
    converged : bool
        whether it reached its tolerance.
    """

    picture: Picture
    sigma: float
    iterations: int
    seconds: float
    rms_distance: float
    relative_gap: float
    status: str
    converged: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """A restored picture with the measured one, if that is a picture, and the clean one if it is known.

    `label` says what the measured one is: noisy, blurred, ...
    """

    name: str
    restored: Restored
    measured: Picture | None = None
    clean: Picture | None = None
    label: str = "noisy"


def row(outcome: Outcome) -> list[str]:
    """Write the row of the table: sigma and certified distance in gray levels, quality before and after if known."""
    r = outcome.restored
    cells = [outcome.name, f"{255 * r.sigma:.2f}", str(r.iterations), f"{r.seconds:.2f}", _proved(r)]
    if outcome.clean is not None:
        pairs = [(_quality(p, outcome.clean)) for p in (outcome.measured, r.picture)]
        cells += [f"{pairs[0][0]}>{pairs[1][0]}", f"{pairs[0][1]}>{pairs[1][1]}"]
    return [*cells, r.status.split(":")[0]]


def figure(outcome: Outcome) -> Picture:
    """Draw measured, restored and amplified difference side by side, and the clean picture if there is one.

    The measured one is left out where it is no picture, and the difference where the sizes differ.
    """
    restored = outcome.restored.picture.pixels
    panels = [("restored", restored)]
    if outcome.measured is not None:
        measured = outcome.measured.pixels
        panels.insert(0, (outcome.label, measured))
        if measured.shape == restored.shape:
            gain = visible_gain(measured, restored)
            panels.append((f"{outcome.label} - restored, x {gain:g}", difference(measured, restored, gain)))
    if outcome.clean is not None:
        panels.append(("reference", outcome.clean.pixels))
    return comparison(panels)


def _proved(restored: Restored) -> str:
    # Pictures in [0, 1] are never farther apart than 1: a larger bound, as of most blurs, says nothing.
    if restored.rms_distance <= 1:
        return f"{255 * restored.rms_distance:.4f}"
    return f"gap {restored.relative_gap:.1e}".replace("e-0", "e-") if math.isfinite(restored.relative_gap) else "-"


def _quality(picture: Picture | None, clean: Picture) -> tuple[str, str]:
    if picture is None or picture.pixels.shape != clean.pixels.shape:
        return "-", "-"
    measured = quality(picture.pixels, clean.pixels)
    return f"{measured.psnr:.2f}", f"{measured.ssim:.3f}"
