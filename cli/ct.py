"""``icgn ct``: a sinogram to a slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icgn.cli.arguments import Device, Factor, Json, Model, Quiet, SmallGap, Strength

if TYPE_CHECKING:
    from torch import Tensor

    from icgn.scanners import Geometry, Sinogram, Slice

# Cells by which the axis may be off, and the part of line integrals that no picture of pixels explains.
_OFFSET, _MODEL = 0.4, 0.02


def ct(
    sinogram: Annotated[
        Path,
        typer.Argument(
            metavar="SINOGRAM",
            help="Views x cells: transmission counts (with --flat) or line integrals; .npy, .tif, FILE.h5:/path.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SLICE", help="Attenuation; .tif, .npy and .nii hold it in 1/cm.")
    ],
    angles: Annotated[
        str,
        typer.Option(
            "--angles",
            metavar="FIRST,LAST|FILE",
            help="Degrees: spread evenly from FIRST, LAST left out; or a file with one for each view.",
        ),
    ],
    geometry: Annotated[
        Path,
        typer.Option(
            "--geometry",
            metavar="FILE",
            help="TOML or JSON, in millimetres: beam (parallel or fan), detector_spacing, and of a fan source_distance,"
            " detector_distance, size, pixel_spacing.",
        ),
    ],
    flat: Annotated[
        str | None,
        typer.Option(
            "--flat",
            metavar="COUNTS|FILE",
            help="Counts without an object: one number, or a file, of cells or rays.",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option("--noise", metavar="LEVEL", help="Deviation of line integrals; default estimated."),
    ] = None,
    gains: Annotated[
        float | None,
        typer.Option(
            "--gains",
            min=0.0,
            metavar="PART",
            help="By how much the gains of cells differ, which makes rings, 0.02 for 2 %; 0: not at all. Default found."
            " The offsets of the cells are found with the slice.",
        ),
    ] = None,
    sigma: Strength = None,
    weight: Factor = 1.0,
    gap: SmallGap = 1e-3,
    model: Model = None,
    device: Device = None,
    quiet: Quiet = False,
    json: Json = None,
) -> None:
    """Reconstruct a slice from a CT sinogram, in 1/cm, with a certified gap.

    Counts are weighted by themselves: the quadratic approximation of their likelihood, for which the gap is proved. The
    slice is a square with the circle in it that all views see. The table says what was found and proved.
    """
    from icgn.cli.options import check_tolerance
    from icgn.cli.scanning import gray_regularizer, scanning, typed_sigma
    from icgn.scanners import parse_angles, read_geometry, reconstruct_ct

    read = [geometry, *(p for p in (Path(angles), Path(flat or "")) if p.is_file())]
    with scanning(sinogram, [output], json=json, silent=quiet, read=read) as scan:
        measured = _measured(sinogram, flat, noise)
        views, cells = measured.integrals.shape
        scanned = read_geometry(geometry, parse_angles(angles, views), cells)
        found = reconstruct_ct(
            measured,
            scanned,
            gains=gains,
            regularizer=gray_regularizer(model, device),
            sigma=typed_sigma(sigma),
            weight=weight,
            gap_tol=check_tolerance("--gap", gap, "1e-3: of the objective"),
            callback=scan.callback,
        )
        for words in _doubts(found):
            scan.say("warning", words)
        target = scan.target(output, found.solution)
        scan.write(target, found.x, float(found.x.max()))
        scan.end(found.solution, _lines(measured, scanned, found), _record(measured, scanned, found), target)


def _measured(path: Path, flat: str | None, noise: float | None) -> Sinogram:
    """The sinogram of a file: counts where those without an object are given, else line integrals."""
    from icgn.datasets import estimate_sigma
    from icgn.scanners import Sinogram

    values, whole = _values(path)
    if flat is not None:
        if noise is not None:
            raise ValueError(
                "--noise: got a level beside --flat, expected one of the two: counts have noise of their own"
            )
        return Sinogram.of_counts(values, _unattenuated(flat))
    if whole:
        raise ValueError(f"--flat: got none for {path}, of whole numbers, expected the counts without an object")
    level = estimate_sigma(values[None].float()) if noise is None else noise
    made = Sinogram.of_integrals(values, level)
    return made if noise is not None else Sinogram(made.integrals, made.levels, words="estimated")


def _unattenuated(text: str) -> float | Tensor:
    try:
        return float(text)
    except ValueError:
        values, _ = _values(Path(text))
        return values[0] if len(values) == 1 else values


def _values(path: Path) -> tuple[Tensor, bool]:
    """The numbers of a file of one page and channel, (V, N), and whether they are whole by type."""
    import numpy as np
    import torch

    from icgn.datasets import open_stack

    if path.suffix.lower() == ".npy" and path.is_file():
        array = np.load(path, allow_pickle=False)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        array = array[None] if array.ndim == 1 else array
        return torch.from_numpy(np.asarray(array, np.float64)), array.dtype.kind in "ui"
    with open_stack(path) as stack:
        values = stack.page(0).values
        if len(stack) != 1 or len(values) != 1:
            raise ValueError(f"{path}: got {len(stack)} pages of {len(values)} channels, expected one: views x cells")
        return values[0].double(), np.dtype(stack.container.dtype).kind in "ui"


def _doubts(found: Slice) -> list[str]:
    """What the residual says of the data."""
    words = []
    if found.rings:
        cells = ", ".join(str(cell) for cell, _ in found.rings[:8])
        words.append(
            f"cells {cells} differ from what the others see in all views ({len(found.rings)} in all): rings; correct"
            " the detector, --flat for each cell, or let --gains be larger"
        )
    if found.axis is not None and abs(found.axis[0]) > max(_OFFSET, 5 * found.axis[1]):
        far, side = abs(found.axis[0]), ("after", "first") if found.axis[0] > 0 else ("before", "last")
        extra = max(1, round(2 * far))
        out = f"{side[1]} cell" if extra == 1 else f"{side[1]} {extra} cells"
        words.append(
            f"the axis is seen {far:.2g} cells {side[0]} the middle of the detector; leave out the {out} of each view"
        )
    if found.misfit > 1.5:
        words.append(_misfit_in_words(found))
    return words


def _misfit_in_words(found: Slice) -> str:
    part = f"{found.misfit:.2g} times its noise, {100 * found.unexplained:.2g} % of the line integrals"
    words = f"what the slice would be measured as differs from the sinogram by {part}: "
    if found.unexplained < _MODEL:
        return words + "so little may come from pixels, scatter or beam hardening, or from angles that are slightly off"
    return words + "angles, geometry or --flat are others, the object leaves the circle, or the noise is larger"


def _lines(measured: Sinogram, scanned: Geometry, found: Slice) -> list[tuple[str, str]]:
    from icgn.cli.scanning import strength_in_words

    views, cells = measured.integrals.shape
    span = float(scanned.angles.max() - scanned.angles.min())
    if measured.counts is None:
        kind, model = "line integrals", f"squares, noise {float(measured.levels.mean()):.3g}, {measured.words}"
    else:
        kind = f"counts, {float(measured.counts.median()):.3g} in the median"
        model = "quadratic approximation of the Poisson likelihood, weights are the expected counts"
    side = scanned.size * scanned.pixel_spacing
    pixels = f"{scanned.size} pixels of {scanned.pixel_spacing:.4g} mm"
    return [
        ("sinogram", f"{views} views of {cells} cells, {kind}"),
        ("geometry", f"{scanned.beam} beam, {span:.4g} degrees; {pixels}, a circle of {side:.4g} mm"),
        ("data term", model),
        ("cells", _offsets_in_words(found.offsets)),
        ("strength", strength_in_words(found.sigma, found.trials, found.errors)),
    ]


def _offsets_in_words(offsets: Tensor) -> str:
    if not bool(offsets.any()):
        return "alike"
    typical, most = 100 * float(offsets.abs().median()), 100 * float(offsets.abs().max())
    return f"differ by {typical:.2g} % in the median and {most:.2g} % at most: subtracted, found with the slice"


def _record(measured: Sinogram, scanned: Geometry, found: Slice) -> dict[str, object]:
    from icgn.cli.scanning import strength_for_machines

    views, cells = measured.integrals.shape
    return {
        "views": views,
        "cells": cells,
        "counts": measured.counts is not None,
        "beam": scanned.beam,
        "size": scanned.size,
        "pixel_spacing": scanned.pixel_spacing,
        "unit": "1/cm",
        "noise_found": found.noise,
        "range": found.range,
        "misfit": found.misfit,
        "unexplained": found.unexplained,
        "axis": None if found.axis is None else found.axis[0],
        "rings": [cell for cell, _ in found.rings],
        "offsets": [float(f"{v:.4g}") for v in found.offsets.tolist()],
        **strength_for_machines(found.sigma, found.trials, found.errors),
    }
