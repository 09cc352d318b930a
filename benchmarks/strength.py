"""The strength without the true picture: what the commands take, rules, and the best one, on simulated scans.

    python benchmarks/strength.py

Of every scan of ``benchmarks/scanners.py`` the slice or picture is solved for at sigmas half an octave apart, by
``conditional-gray`` to a gap of 1e-2. *best* is the sigma of the highest PSNR against the true picture; the others do
not see it. *default* is what ``icgn mri`` and ``icgn ct`` do: the least error on a tenth of the measurement, searched.
*discrepancy*: the residual is nearest to the noise. *sure*: Stein's estimate of the error of A x is least, its
divergence by one random sign vector and a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import typer
from harness import RESULTS, Out, Threads, conditions, resumed, table, write
from scanner_cases import CoilCase, RayCase, coil_case, pictures, ray_case
from torch import Tensor

from icgn.regularizers import ConvexRegularizer, PerChannel, load_pretrained
from icgn.scanners import (
    CoilData,
    RayData,
    prepare_coils,
    prepare_rays,
    reconstruct_ct,
    reconstruct_mri,
    solve_prepared,
)
from scanners import MODEL, PHOTONS, ROUGH, SCANS, psnr

# Sigmas that are solved for, of 255, and the part of its noise by which the measurement is moved for a divergence.
_SIGMAS = [16 * 2 ** (k / 2) for k in range(3, -5, -1)]
_MOVED = 0.3
_RULES = ("default", "discrepancy", "sure", "best")
# A default that loses less than this is right, in dB.
_LOST = 0.3


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan whose picture is known.

    Attributes
    ----------
    name : str
        of the scan.
    data, moved : CoilData or RayData
        the measurement, and the same with signs added to it.
    start : Tensor
        picture to begin with.
    signs : Tensor
        what was added, in multiples of the noise, times 0.3.
    residual : callable
        of a picture, over the noise, in the shape of the signs.
    quality : callable
        PSNR of a picture.
    default : callable
        sigma and PSNR of what the command does.
    """

    name: str
    data: CoilData | RayData
    moved: CoilData | RayData
    start: Tensor
    signs: Tensor
    residual: Callable[[Tensor], Tensor]
    quality: Callable[[Tensor], float]
    default: Callable[[], tuple[float, float]]


def of_coils(case: CoilCase, model: ConvexRegularizer) -> Scan:
    """A scan of coils."""
    data = prepare_coils(case.kspace, maps=case.maps)
    signs = _signs(data.y.shape) * case.kspace.mask

    def quality(u: Tensor) -> float:
        return psnr(data.noise.level * torch.linalg.vector_norm(u.double()[0], dim=0), case.clean)

    def default() -> tuple[float, float]:
        found = reconstruct_mri(case.kspace, maps=case.maps, regularizer=model)
        return found.sigma, psnr(found.x.abs().double(), case.clean)

    def residual(u: Tensor) -> Tensor:
        return data.y - data.physics().A(u.double())

    moved = replace(data, y=data.y + _MOVED * signs)
    return Scan(case.name, data, moved, data.sense, signs, residual, quality, default)


def of_rays(case: RayCase, model: ConvexRegularizer) -> Scan:
    """A scan of rays, its likelihood expanded around a first slice."""
    first = prepare_rays(case.sinogram, case.geometry)
    start = solve_prepared(first, model, 16 / 255, start=first.rough, **ROUGH).x
    data, inside = first.expanded(start), case.geometry.circle
    signs = _signs(data.sinogram.integrals.shape)
    integrals = data.sinogram.integrals + _MOVED * signs * data.sinogram.levels

    def quality(x: Tensor) -> float:
        return psnr(data.unit * x[0, 0].double() * inside, case.clean, inside)

    def default() -> tuple[float, float]:
        found = reconstruct_ct(case.sinogram, case.geometry, regularizer=model)
        return found.sigma, psnr(found.x.double(), case.clean, inside)

    moved = replace(data, sinogram=replace(data.sinogram, integrals=integrals))
    return Scan(case.name, data, moved, start, signs, data.residual, quality, default)


def _signs(shape: torch.Size) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).double() * 2 - 1


def measured(scan: Scan, model: ConvexRegularizer) -> dict[str, dict[str, float]]:
    """Sigma, of 255, and PSNR of each rule."""
    regularizer = PerChannel(model) if scan.data.signed else model
    x, count = scan.start, float(scan.signs.abs().sum())
    points: list[dict[str, float]] = []
    for sigma in _SIGMAS:
        x = solve_prepared(scan.data, regularizer, sigma / 255, start=x, **ROUGH).x
        other = solve_prepared(scan.moved, regularizer, sigma / 255, start=x, **ROUGH).x
        left = scan.residual(x)
        divergence = float((scan.signs * (left - scan.residual(other))).sum()) / _MOVED
        squares = float(left.square().sum())
        risk = (squares + 2 * divergence) / count - 1
        points.append({"sigma": sigma, "psnr": scan.quality(x), "misfit": (squares / count) ** 0.5, "risk": risk})
    sigma, quality = scan.default()
    chosen = {
        "discrepancy": min(points, key=lambda p: abs(p["misfit"] - 1)),
        "sure": min(points, key=lambda p: p["risk"]),
        "best": max(points, key=lambda p: p["psnr"]),
    }
    return {"default": {"sigma": 255 * sigma, "psnr": quality}} | chosen


def scans(model: ConvexRegularizer) -> Iterator[tuple[str, Callable[[], Scan]]]:
    """Names of all scans, and what makes each."""
    for name, clean in pictures().items():
        for pattern, factor in (("lines", 4), ("lines", 8), ("points", 4), ("points", 8)):
            task = f"MRI {name}, {pattern} x{factor}"
            yield task, lambda n=name, c=clean, p=pattern, f=factor: of_coils(coil_case(f"MRI {n}", c, p, f), model)
    for label, views, degrees, fan in SCANS:
        for photons in PHOTONS if label == SCANS[0][0] else PHOTONS[1:2]:
            task = f"CT {label}, {photons:.0e} counts"
            yield (
                task,
                lambda t=task, p=photons, v=views, d=degrees, f=fan: of_rays(ray_case(t, p, v, d, fan=f), model),
            )


def page(content: dict[str, Any]) -> str:
    """The table, Markdown."""
    rows = []
    for task, found in content["rows"].items():
        best = max(r["psnr"] for r in found.values())
        cells = [f"{r['sigma']:.1f}: {r['psnr']:.2f}" for r in (found[rule] for rule in _RULES)]
        rows.append((task, *cells, f"**{best - found['default']['psnr']:.2f}**"))
    lost = [float(r[-1].strip("*")) for r in rows]
    summary = (
        f"The default loses {max(lost):.2f} dB at most and {sum(lost) / len(lost):.2f} in the mean;"
        f" {sum(v <= _LOST for v in lost)} of {len(lost)} are within {_LOST} dB of the best."
    )
    words = "Sigma of 255: PSNR in dB, by rule; lost is the best of all less the default."
    return "\n".join([words, "", table(("task", *_RULES, "lost"), rows), "", summary])


def main(
    only: Annotated[str, typer.Option(help="Tasks whose name contains this.")] = "",
    out: Out = None,
    threads: Threads = 1,
) -> None:
    """Measure what is not measured yet."""
    torch.set_num_threads(threads)
    folder, model = RESULTS / "strength" if out is None else out, load_pretrained(MODEL)
    settings = {"threads": threads, **conditions("torch", "deepinv", "numpy", "nibabel", "pydicom")}
    content = resumed(folder / "results.json", settings, rows={})
    for task, made in scans(model):
        if only in task and task not in content["rows"]:
            content["rows"][task] = measured(made(), model)
            write(folder, {"results.json": content, "table.md": page(content)})
            print(task, content["rows"][task], flush=True)


if __name__ == "__main__":
    typer.run(main)
