"""``icgn mri``: k-space of coils to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icgn.cli.arguments import Device, Factor, Json, Model, Quiet, SmallGap, Strength

if TYPE_CHECKING:
    from torch import Tensor

    from icgn.scanners import CoilPicture, KSpace, ShotKSpace


def mri(
    kspace: Annotated[
        Path,
        typer.Argument(
            metavar="KSPACE",
            help="k-space as measured: .npy (coils, height, width), HDF5 of fastMRI or ISMRMRD, or BART's .cfl with"
            " .hdr. What was not measured is 0.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PICTURE", help="Magnitude; .tif, .npy and .nii hold it in the unit of k-space."
        ),
    ],
    phase: Annotated[Path | None, typer.Option("--phase", metavar="FILE", help="Phase in radians.")] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            "--maps", metavar="FILE", help="Sensitivity maps (coils, height, width); default estimated by ESPIRiT."
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            metavar="LEVEL|FILE",
            help="Deviation of real and imaginary parts in the unit of k-space, or a noise scan; default the noise scan"
            " of the file, or else found in the outer samples.",
        ),
    ] = None,
    slice: Annotated[
        int | None, typer.Option("--slice", min=0, metavar="N", help="Slice, from 0; default the middle one.")
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(
            "--trajectory",
            metavar="FILE",
            help="Where k-space was measured, if not on a grid: .npy (shots, readout, 2) or BART's .cfl, in cycles per"
            " field of view; KSPACE is (coils, shots, readout) then.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", min=4, metavar="N", help="Pixels of a side, with --trajectory; default twice its reach."
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
    """Reconstruct a picture from the k-space of MRI coils, undersampled or not, with a certified gap.

    The noise of the coils is whitened, sensitivity maps are estimated, the smooth phase is divided out, and real and
    imaginary part are regularized: a convex problem. The table says what was found and proved.
    """
    from icgn.cli.options import check_tolerance
    from icgn.cli.scanning import gray_regularizer, scanning, typed_sigma
    from icgn.scanners import read_coils, reconstruct_mri

    given = _level(noise)
    scan_file = Path(noise) if noise is not None and given is None else None
    read = [p for p in (maps, scan_file, trajectory) if p is not None]
    with scanning(kspace, [p for p in (output, phase) if p], json=json, silent=quiet, read=read) as scan:
        found = _read(kspace, slice, trajectory, size)
        picture = reconstruct_mri(
            found,
            maps=None if maps is None else read_coils(maps),
            noise=given if scan_file is None else _noise_scan(scan_file),
            regularizer=gray_regularizer(model, device),
            sigma=typed_sigma(sigma),
            weight=weight,
            gap_tol=check_tolerance("--gap", gap, "1e-3: of the objective"),
            callback=scan.callback,
        )
        target = scan.target(output, picture.solution)
        magnitude = picture.x.abs()
        scan.write(target, magnitude, float(magnitude.max()))
        if phase is not None:
            _write_phase(scan.target(phase, picture.solution), picture.x)
        scan.end(picture.solution, _lines(found, picture), _record(found, picture), target)


def _read(path: Path, slice: int | None, trajectory: Path | None, size: int | None) -> KSpace | ShotKSpace:
    from icgn.scanners import read_kspace, read_shots

    if trajectory is None:
        if size is not None:
            raise ValueError(f"--size: got {size} without --trajectory, expected both: a grid has a size")
        return read_kspace(path, slice=slice)
    if slice is not None:
        raise ValueError(f"--slice: got {slice} beside --trajectory, expected one of the two: a file of one slice")
    return read_shots(path, trajectory, size=size)


def _level(noise: str | None) -> float | None:
    """A noise level that is typed; None for a file."""
    try:
        return None if noise is None else float(noise)
    except ValueError:
        return None


def _noise_scan(path: Path) -> Tensor:
    from icgn.scanners import read_coils

    if not path.suffix and not path.is_file():
        raise ValueError(
            f"--noise: got {str(path)!r}, expected a level in the unit of k-space, or a file of a noise scan"
        )
    return read_coils(path)


def _write_phase(path: Path, x: Tensor) -> None:
    import math

    from icgn.cli.writing import write_values

    write_values(path, x.angle(), (-math.pi, math.pi))


def _lines(kspace: KSpace | ShotKSpace, picture: CoilPicture) -> list[tuple[str, str]]:
    from icgn.cli.scanning import strength_in_words

    _, height, width = kspace.shape
    coils = "coil" if kspace.coils == 1 else "coils"
    size = f"{kspace.coils} {coils}, {height} x {width}, {kspace.extent}"
    level = f"{picture.noise.level:.3g} in the unit of k-space, {picture.noise.words}"
    return [
        ("k-space", ", ".join(filter(None, (size, kspace.words)))),
        ("noise", level),
        ("maps", picture.maps),
        ("strength", strength_in_words(picture.sigma, picture.trials, picture.errors)),
    ]


def _record(kspace: KSpace | ShotKSpace, picture: CoilPicture) -> dict[str, object]:
    from icgn.cli.scanning import strength_for_machines

    height, width = picture.x.shape
    return {
        "coils": kspace.coils,
        "height": height,
        "width": width,
        "measured": 1 / kspace.acceleration,
        "read": kspace.words,
        "noise": picture.noise.level,
        "noise_found": picture.noise.words,
        "maps": picture.maps,
        "range": picture.range,
        **strength_for_machines(picture.sigma, picture.trials, picture.errors),
    }
