"""Scanners: MRI with coils and CT by counts, beside tuned total variation and what scanners compute without a model.

    python benchmarks/scanners.py [--kspace KSPACE.npy]

MRI: a slice of nibabel's test data and one of dipy's (if it is installed), with a smooth phase, measured by eight
coils; maps and a noise scan are known. CT: the slice of pydicom's test data, with Poisson counts. Quality is the PSNR
of the modulus, or of the attenuation within the circle, in dB, its peak that of the true picture. With ``--kspace``
measured k-space as well: a tenth of the samples chooses the strength of every method, and the error on another tenth,
over its noise, is the quality.

*l1 wavelets* are sigpy's, Daubechies of order 4. *tv* is tuned on the true picture (*best*), and so is the model with
``--oracle``; *held out* finds the strength by held-out samples, as ``icgn mri`` and ``icgn ct`` do. Rows that
docs/results/scanners/results.json has are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from harness import RESULTS, Out, Threads, conditions, resumed, table, write
from scanner_cases import CoilCase, RayCase, coil_case, pictures, ray_case
from torch import Tensor

from icgn.regularizers import ConvexRegularizer, PerChannel, TotalVariation, load_pretrained
from icgn.scanners import CoilData, prepare_coils, read_kspace, reconstruct_ct, reconstruct_mri, solve_prepared, split
from icgn.scanners.coils import calibration
from icgn.scanners.held_out import search
from icgn.solvers import Solution

GAP, ROUGH = 1e-3, {"gap_tol": 1e-2, "max_iter": 150}
# Total variation, whose bounds fall slowly, need not be certified to show what it reaches.
FINAL: dict[str, dict[str, Any]] = {"tv": {"gap_tol": 1e-2, "max_iter": 400}}
LAST: dict[str, Any] = {"gap_tol": GAP, "max_iter": 1000}
MODEL = "conditional-gray"
# Sigma at which searches begin, and its bounds, as parts of the range; smoothing of total variation.
_FIRST, _BOUNDS, _EPS = 8 / 255, (0.5 / 255, 100 / 255), 3e-3
# Conjugate gradients without a regularizer: the number of steps is chosen as a strength is.
_STEPS = (3, 5, 8, 12, 18, 27)
_HEAD = ("task", "method", "strength", "sigma", "quality", "gap", "iterations", "seconds", "status")

Row = dict[str, Any]
Solve = Callable[[float, dict[str, Any]], tuple[Tensor, Solution]]


class Results:
    """The file of rows, written after each of them."""

    def __init__(self, folder: Path, threads: int) -> None:
        settings = {"gap": GAP, "threads": threads, **conditions("torch", "deepinv", "numpy", "nibabel", "pydicom")}
        self.folder = folder
        self.content = resumed(folder / "results.json", settings, rows=[])

    def has(self, task: str, method: str, strength: str) -> bool:
        """Whether a row is there."""
        return any((r["task"], r["method"], r["strength"]) == (task, method, strength) for r in self.content["rows"])

    def add(self, task: str, method: str, strength: str, quality: float, **more: Any) -> None:
        """Keep a row, and print it."""
        row: Row = {"task": task, "method": method, "strength": strength, "quality": quality, **more}
        self.content["rows"].append(row)
        write(self.folder, {"results.json": self.content, "table.md": page(self.content)})
        print(f"{task}, {method}, {strength}: {quality:.3f}", more, flush=True)


def page(content: dict[str, Any]) -> str:
    """The table, Markdown."""
    rows = [
        (
            r["task"], r["method"], r["strength"], f"{255 * r['sigma']:.1f}" if "sigma" in r else "-",
            f"**{r['quality']:.3f}**" if "measured" in r["task"] else f"**{r['quality']:.2f}**",
            *((f"{r['gap']:.1e}", r["iterations"], f"{r['seconds']:.0f}", r["status"]) if "gap" in r else ("-",) * 4),
        )
        for r in content["rows"]
    ]  # fmt: skip
    versions = ", ".join(f"{k} {v}" for k, v in content["settings"]["versions"].items())
    text = "Quality: PSNR in dB; of the measured slice the error on held-out samples over their noise, less is better."
    return "\n".join([text, "", table(_HEAD, rows), "", f"{content['settings']['threads']} CPU thread(s); {versions}."])


def proofs(solution: Solution) -> Row:
    """What is proved of a picture, and what it took."""
    return {
        "gap": float(solution.certificate.relative_gap[0]),
        "iterations": int(solution.stats.iterations[0]),
        "seconds": round(solution.stats.seconds, 2),
        "status": solution.status[0].name.lower().replace("_", " "),
    }


def tuned(results: Results, task: str, method: str, solve: Solve, loss: Callable[[Tensor], float]) -> None:
    """The row of the sigma of least loss."""
    if results.has(task, method, "best"):
        return
    sigma, _ = search(lambda s: loss(solve(s, ROUGH)[0]), _FIRST, _BOUNDS)
    x, solution = solve(sigma, FINAL.get(method, LAST))
    results.add(task, method, "best", -loss(x), sigma=sigma, **proofs(solution))


def psnr(x: Tensor, clean: Tensor, inside: Tensor | None = None) -> float:
    """In dB, of some of the pixels, the peak being that of the true picture."""
    error = (x - clean).square()
    error = error.mean() if inside is None else error[inside].mean()
    return float(10 * torch.log10(clean.max().square() / error))


Models = dict[str, ConvexRegularizer]


def coils(results: Results, case: CoilCase, known: Models, model: ConvexRegularizer) -> None:
    """The rows of simulated k-space: of models tuned on the true picture, and of one tuned on held-out samples."""
    data = prepare_coils(case.kspace, maps=case.maps)

    def shown(u: Tensor) -> Tensor:
        return data.noise.level * torch.linalg.vector_norm(u.double()[0], dim=0)

    for name, u in (("zero filling", data.physics().A_adjoint(data.y)), ("CG-SENSE", best_sense(data, case))):
        if not results.has(case.name, name, "-"):
            results.add(case.name, name, "-", psnr(shown(u), case.clean))
    for name, regularizer in known.items():

        def solve(sigma: float, how: dict[str, Any], r: ConvexRegularizer = regularizer) -> tuple[Tensor, Solution]:
            solution = solve_prepared(data, PerChannel(r), sigma, start=data.sense, **how)
            return shown(solution.x), solution

        tuned(results, case.name, name, solve, lambda x: -psnr(x, case.clean))
    if not results.has(case.name, MODEL, "held out"):
        found = reconstruct_mri(case.kspace, maps=case.maps, regularizer=model, **LAST)
        quality = psnr(found.x.abs().double(), case.clean)
        results.add(case.name, MODEL, "held out", quality, sigma=found.sigma, **proofs(found.solution))


def best_sense(data: CoilData, case: CoilCase) -> Tensor:
    """Conjugate gradients with the number of steps that is best for the true picture."""
    found = [data.physics().A_dagger(data.y, max_iter=n, tol=1e-12) for n in _STEPS]
    level = data.noise.level
    return max(found, key=lambda u: psnr(level * torch.linalg.vector_norm(u[0], dim=0), case.clean))


def rays(results: Results, case: RayCase, known: Models, model: ConvexRegularizer) -> None:
    """The rows of simulated counts: of models tuned on the true slice, and of one tuned on held-out views."""
    inside = case.geometry.circle
    if case.geometry.beam == "parallel" and not results.has(case.name, "filtered back-projection", "-"):
        unit = 0.1 * case.geometry.pixel_spacing
        back = case.geometry.physics().fbp(case.sinogram.integrals.T[None, None])[0, 0] / unit
        results.add(case.name, "filtered back-projection", "-", psnr(back.clamp_min(0), case.clean, inside))
    for name, regularizer in known.items():

        def solve(sigma: float, how: dict[str, Any], r: ConvexRegularizer = regularizer) -> tuple[Tensor, Solution]:
            found = reconstruct_ct(case.sinogram, case.geometry, regularizer=r, sigma=sigma, **how)
            return found.x.double(), found.solution

        tuned(results, case.name, name, solve, lambda x: -psnr(x, case.clean, inside))
    if not results.has(case.name, MODEL, "held out"):
        found = reconstruct_ct(case.sinogram, case.geometry, regularizer=model, **LAST)
        quality = psnr(found.x.double(), case.clean, inside)
        results.add(case.name, MODEL, "held out", quality, sigma=found.sigma, **proofs(found.solution))


def measured(results: Results, path: Path, models: Models) -> None:
    """The rows of k-space as measured: a tenth chooses, another tenth is reported on."""
    task, kspace = "MRI, measured, x{:.0f}", read_kspace(path)
    task = task.format(kspace.acceleration)
    data, keep = prepare_coils(kspace), calibration(kspace.mask)
    choose = split(kspace.mask, keep=keep)
    report = split(kspace.mask & ~choose, keep=keep, part=1 / 9, seed=1)
    rest = data.without(choose | report)
    start = rest.physics().A_dagger(rest.y, max_iter=10)
    if not results.has(task, "zero filling", "-"):
        results.add(task, "zero filling", "-", data.error(rest.physics().A_adjoint(rest.y), report))
        pictures_ = [rest.physics().A_dagger(rest.y, max_iter=n, tol=1e-12) for n in _STEPS]
        sense = min(pictures_, key=lambda u: data.error(u, choose))
        results.add(task, "CG-SENSE", "held out", data.error(sense, report))
    if not results.has(task, "l1 wavelets", "held out"):
        lamda, _ = search(lambda s: data.error(wavelets(rest, s), choose), 1.0, (0.02, 50.0))
        results.add(task, "l1 wavelets", "held out", data.error(wavelets(rest, lamda), report))
    for name, regularizer in models.items():
        if results.has(task, name, "held out"):
            continue
        both = PerChannel(regularizer)
        sigma, _ = search(
            lambda s, r=both: data.error(solve_prepared(rest, r, s, start=start, **ROUGH).x, choose), _FIRST, _BOUNDS
        )
        solution = solve_prepared(rest, both, sigma, start=start, **FINAL.get(name, LAST))
        results.add(task, name, "held out", data.error(solution.x, report), sigma=sigma, **proofs(solution))


def wavelets(data: CoilData, lamda: float) -> Tensor:
    """The picture of sigpy's l1 wavelets at one factor, in multiples of the noise."""
    from sigpy.mri.app import L1WaveletRecon

    y = torch.view_as_complex(data.y[0].movedim(0, -1).contiguous())
    found = L1WaveletRecon(y.numpy(), data.maps.numpy(), lamda, max_iter=100, show_pbar=False).run()
    return torch.view_as_real(torch.from_numpy(found)).movedim(-1, 0)[None].contiguous()


def main(
    kspace: Annotated[Path | None, typer.Option(help="Measured k-space, for its rows.")] = None,
    only: Annotated[str, typer.Option(help="Tasks whose name contains this.")] = "",
    oracle: Annotated[bool, typer.Option("--oracle", help="Tune the model on the true picture too.")] = False,
    out: Out = None,
    threads: Threads = 1,
) -> None:
    """Measure what is not measured yet."""
    torch.set_num_threads(threads)
    results = Results(RESULTS / "scanners" if out is None else out, threads)
    models: Models = {"tv": TotalVariation(eps=_EPS), MODEL: load_pretrained(MODEL)}
    if kspace is not None and only in "MRI, measured":
        measured(results, kspace, models)
    known = models if oracle else {"tv": models["tv"]}
    for name, clean in pictures().items():
        for pattern, factor in (("lines", 4), ("lines", 8), ("points", 4), ("points", 8)):
            if only in f"MRI {name}, {pattern} x{factor}":
                coils(results, coil_case(f"MRI {name}", clean, pattern, factor), known, models[MODEL])
    for label, views, degrees, fan in SCANS:
        for photons in PHOTONS if label == SCANS[0][0] else PHOTONS[1:2]:
            name = f"CT {label}, {photons:.0e} counts"
            if only in name:
                rays(results, ray_case(name, photons, views, degrees, fan=fan), known, models[MODEL])


PHOTONS = (1e3, 1e4, 1e5)
SCANS: Sequence[tuple[str, int, float, bool]] = (
    ("parallel, 90 views", 90, 180.0, False),
    ("parallel, 120 degrees", 60, 120.0, False),
    ("fan, 90 views", 90, 360.0, True),
)


if __name__ == "__main__":
    typer.run(main)
