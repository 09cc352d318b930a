"""Denoising quality on a set of photographs: mean PSNR and SSIM at the certified minimizer.

    python benchmarks/denoising.py --data ROOT --model ridge-gray --sigma 5 --sigma 15 --sigma 25 --sigma 50

ROOT holds BSDS500 (and BSD68.txt). ``--update README.md`` writes the table between the marker lines of a file. A gray
model with ``--color`` restores each channel of the colour pictures on its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import typer
from rich.progress import track

import icgn
from icgn.datasets import Photographs, Sample, add_noise, bsd68, bundled, quality, seed_of
from icgn.regularizers import ConvexRegularizer
from icgn.solvers import Status


@dataclass(frozen=True)
class Row:
    """Means over the pictures for one model and noise level; distances in gray levels, the worst of all pictures."""

    model: str
    color: bool
    sigma: float
    pictures: int
    noisy_psnr: float
    psnr: float
    ssim: float
    iterations: float
    worst_distance: float
    converged: int


def restore(
    sample: Sample, sigma: float, regularizer: ConvexRegularizer, tol: float
) -> tuple[torch.Tensor, icgn.Solution]:
    """The noisy picture and the solution, channels as a batch where the model is gray."""
    noisy = add_noise(sample.image, sigma, seed_of(sample.name))
    y = noisy[:, None] if regularizer.channels == 1 else noisy[None]
    return noisy, icgn.denoise(y, sigma, regularizer, tol=tol)


def measure(name: str, pictures: Photographs, sigma: float, color: bool, tol: float) -> Row:
    """Restore every picture at one noise level (8-bit gray levels)."""
    regularizer = icgn.load_pretrained(name)
    results = []
    for sample in track(pictures, f"{name}, sigma {sigma:g}", transient=True):
        noisy, solution = restore(sample, sigma / 255, regularizer, tol)
        before = quality(noisy, sample.image)
        after = quality(solution.x.reshape(sample.image.shape), sample.image)
        results.append((before, after, solution))
    return Row(
        model=name,
        color=color,
        sigma=sigma,
        pictures=len(results),
        noisy_psnr=mean(b.psnr for b, _, _ in results),
        psnr=mean(a.psnr for _, a, _ in results),
        ssim=mean(a.ssim for _, a, _ in results),
        iterations=mean(float(s.stats.iterations.double().mean()) for _, _, s in results),
        worst_distance=255 * max(float(s.certificate.rms_distance.max()) for _, _, s in results),
        converged=sum(all(v is Status.CONVERGED for v in s.status) for _, _, s in results),
    )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    head = ["model", "pictures", "sigma", "noisy, dB", "restored, dB", "SSIM", "iterations"]
    lines = ["| " + " | ".join([*head, "worst certified distance"]) + " |", "|---" * 8 + "|"]
    for r in rows:
        kind = "colour" if r.color else "gray"
        lines.append(
            f"| {r.model} | {r.pictures} {kind} | {r.sigma:g} | {r.noisy_psnr:.2f} | **{r.psnr:.2f}** | {r.ssim:.4f} |"
            f" {r.iterations:.0f} | {r.worst_distance:.4f} |"
        )
    return "\n".join(lines)


def update(path: Path, text: str) -> None:
    """Replace what stands between the marker lines of a Markdown file."""
    old = path.read_text()
    new, count = re.subn(
        r"(<!-- denoising -->\n).*?(<!-- /denoising -->)", lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL
    )
    if count != 1:
        raise typer.BadParameter(f"{path}: has no lines <!-- denoising --> and <!-- /denoising -->")
    path.write_text(new)


def main(
    model: Annotated[list[str], typer.Option(help="Names or paths of models.")],
    data: Annotated[Path | None, typer.Option(help="Root of BSDS500; without it, the bundled photographs.")] = None,
    sigma: Annotated[list[float] | None, typer.Option(help="Noise levels, 8-bit gray levels.")] = None,
    color: Annotated[bool, typer.Option(help="Colour pictures.")] = False,
    every: Annotated[int, typer.Option(help="Take every n-th picture.")] = 1,
    tol: Annotated[float, typer.Option(help="Certified RMS distance, intensities.")] = 1e-4,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's default.")] = 0,
    output: Annotated[Path | None, typer.Option(help="JSON file to add the rows to.")] = None,
    update_file: Annotated[Path | None, typer.Option("--update", help="Markdown file to write all rows into.")] = None,
) -> None:
    """Measure models on BSD68 or on the bundled photographs."""
    if threads:
        torch.set_num_threads(threads)
    pictures = bundled(gray=not color) if data is None else bsd68(data, gray=not color)
    samples = pictures[::every]
    rows = [Row(**r) for r in json.loads(output.read_text())] if output and output.exists() else []
    for name in model:
        for level in sigma or [5.0, 15.0, 25.0, 50.0]:
            row = measure(name, samples, level, color, tol)
            print(f"{name} sigma {level:g}: {row.psnr:.3f} dB, {row.iterations:.0f} iterations", flush=True)
            rows = [r for r in rows if (r.model, r.color, r.sigma) != (row.model, row.color, row.sigma)] + [row]
            if output:
                output.parent.mkdir(parents=True, exist_ok=True)
                output.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    rows.sort(key=lambda r: (r.color, r.model, r.sigma))
    print(table(rows))
    if update_file:
        update(update_file, table(rows))


if __name__ == "__main__":
    typer.run(main)
