"""The noise of pictures: levels found against the truth, and ways to denoise counts.

    python benchmarks/noise.py levels --bsds BSDS500 --pictures 20
    python benchmarks/noise.py counts --side 128

`levels` simulates white, demosaicked, enlarged and compressed noise, and noise that grows with the brightness, on
photographs of BSDS500 val that are not in BSD68, and compares what :func:`icgn.pictures.estimate_noise` finds with the
root mean square of what was added; counts with an offset are of 16 bits. Noise of gray pictures is white, compressed,
that of a microscope (of counts, blurred, the picture too) and the luma of a simulated camera. `counts` denoises photons
drawn from bundled photographs by one model: stabilized by Anscombe's transform, once and again where counts are few
(:func:`icgn.denoise`), weighted by the variance at that solution, and by the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import deepinv
import numpy as np
import torch
import typer
from harness import RESULTS, Out, Threads, conditions, table, write
from scipy import ndimage
from torch import Tensor

import icgn
from icgn.datasets import Picture, bsd68, bsds500, bundled, estimate_sigma, luma, simulate_camera
from icgn.datasets.mosaic import bayer_places, compressed, interpolated
from icgn.functionals.noise import Poisson, White
from icgn.pictures import estimate_noise, stabilize


class Part(str, Enum):
    """What is measured."""

    LEVELS = "levels"
    COUNTS = "counts"


Array = np.ndarray[Any, np.dtype[Any]]


def simulated(clean: Array, seed: int) -> Iterator[tuple[str, Picture, float]]:
    """Noisy pictures of 8 bits made of a clean one (3, H, W), each with its name and its true level in intensities."""
    rng = np.random.default_rng(seed)

    def normal(level: float, like: Array = clean) -> Array:
        return level / 255 * rng.standard_normal(like.shape)

    for level in (5, 15, 30):
        yield measured(f"white {level}", clean + normal(level), clean)
    for level in (10, 25):
        mosaic = _mosaic(clean)
        yield measured(f"demosaicked {level}", demosaicked(mosaic + normal(level, mosaic)), demosaicked(mosaic))
    small = clean[:, : clean.shape[1] // 2, : clean.shape[2] // 2]
    for level in (10, 25):
        yield measured(f"enlarged {level}", enlarged(small + normal(level, small)), enlarged(small))
    for quality in (70, 85, 95):
        noisy = compressed(torch.from_numpy(clean + normal(12)), quality)
        yield f"JPEG {quality}", Picture(noisy), _rms(noisy.numpy() - clean)
    counts = np.sqrt(0.01 * clean + (2 / 255) ** 2) * rng.standard_normal(clean.shape)
    yield measured("growing", clean + counts, clean)
    for gain, offset, read, peak in ((0.5, 500, 1, 200), (2.1, 100, 5, 100), (10, 300, 20, 60)):
        yield as_a_camera_counts(clean[1:2], gain, offset, read, peak, rng)
    gray = luma(torch.from_numpy(clean)).numpy()
    yield measured("gray, white 15", gray + normal(15, gray), gray)
    for quality in (75, 90):
        noisy = compressed(torch.from_numpy(gray + normal(12, gray)).expand(3, -1, -1), quality)[:1]
        yield f"gray, JPEG {quality}", Picture(noisy), _rms(noisy.numpy() - gray)
    soft = ndimage.gaussian_filter(gray, (0, 1.5, 1.5))
    read_out = ndimage.gaussian_filter(np.sqrt(0.004 * soft + (2 / 255) ** 2) * normal(255, soft), (0, 0.5, 0.5))
    yield "gray, microscope", Picture(torch.from_numpy(soft + read_out).float()), _rms(read_out)
    shot = simulate_camera(torch.from_numpy(clean).float(), 4 / 255, torch.Generator().manual_seed(seed))
    noisy, noiseless = luma(shot.noisy), luma(shot.clean)
    yield "gray, camera 4", Picture(noisy), _rms((noisy - noiseless).numpy())


def as_a_camera_counts(
    clean: Array, gain: float, offset: float, read: float, peak: float, rng: np.random.Generator
) -> tuple[str, Picture, float]:
    """A picture of 16 bits of a camera for microscopes, which adds an offset to its counts."""
    mean = gain * peak * clean + offset
    written = gain * rng.poisson(peak * clean) + offset + read * rng.standard_normal(clean.shape)
    written = written.round().clip(0, 65535)
    name = f"counts times {gain:g} + {offset:g}"
    return name, Picture(torch.from_numpy(written / 65535).float()), _rms((written - mean) / 65535)


def measured(name: str, noisy: Array, clean: Array) -> tuple[str, Picture, float]:
    """A picture rounded to 8 bits, with the root mean square of its noise."""
    rounded = (255 * noisy).round().clip(0, 255) / 255
    return name, Picture(torch.from_numpy(rounded).float()), _rms(rounded - clean)


def demosaicked(mosaic: Array) -> Array:
    """Three colours (3, H, W) of a Bayer mosaic (H, W) by bilinear interpolation."""
    return interpolated(torch.from_numpy(mosaic)[None], bayer_places(*mosaic.shape)).numpy()


def enlarged(picture: Array) -> Array:
    """A picture (3, H, W) of twice the size by cubic splines."""
    return np.asarray(ndimage.zoom(picture, (1, 2, 2), order=3))


def _mosaic(clean: Array) -> Array:
    return np.asarray((clean * bayer_places(*clean.shape[1:]).numpy()).sum(0))


def _rms(noise: Array) -> float:
    return float(np.sqrt(np.square(noise).mean()))


def main(
    part: Part,
    bsds: Annotated[Path | None, typer.Option(help="Folder of BSDS500, for levels.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="For levels.")] = 20,
    side: Annotated[int, typer.Option(min=32, help="Side of the crops, for counts.")] = 128,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure, print the table and write it with its numbers."""
    torch.set_num_threads(threads)
    if part is Part.COUNTS:
        counts(side, out or RESULTS / "noise")
        return
    if bsds is None:
        raise typer.BadParameter("expected the folder of BSDS500", param_hint="--bsds")
    levels(bsds, pictures, out or RESULTS / "noise")


def levels(bsds: Path, pictures: int, out: Path) -> None:
    """Compare the levels that are found with the true ones."""
    known = set(bsd68(bsds).names)
    samples = [s for s in bsds500(bsds, split="val") if s.name not in known][:pictures]
    found: dict[str, list[tuple[float, float, str]]] = {}
    for seed, sample in enumerate(samples):
        for name, picture, truth in simulated(sample.image.double().numpy(), seed):
            estimate = estimate_noise(picture)
            kind = type(estimate.noise).__name__
            found.setdefault(name, []).append((estimate.level / truth, estimate_sigma(picture.pixels) / truth, kind))
    rows = []
    for name, values in found.items():
        ratios = np.array([v[0] for v in values])
        within = int((np.abs(ratios - 1) <= 0.15).sum())
        kinds = sorted({v[2] for v in values}, key=lambda k: -sum(v[2] == k for v in values))
        white = np.median([v[1] for v in values])
        low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
        cells = f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{within} of {len(ratios)}", f"{white:.2f}"
        rows.append((name, *cells, ", ".join(kinds)))
    heads = "noise", "found / true, median", "from 10 to 90 %", "within 15 %", "wavelets, median", "called"
    text = table(heads, rows)
    print(text)
    write(out, {"levels.md": text, "levels.json": {**conditions(), "found": found}})


def counts(side: int, out: Path) -> None:
    """Compare three ways to denoise counts."""
    rows = []
    for sample in bundled(gray=True):
        top, left = ((n - side) // 2 for n in sample.image.shape[1:])
        clean = sample.image[None, :, top : top + side, left : left + side]
        for peak in (5, 20, 100):
            noise = Poisson(1 / peak)
            y = noise.draw(clean, torch.Generator().manual_seed(0))
            rows.append((sample.name, peak, *(f"{_psnr(x, clean):.2f}" for x in (y, *_routes(y, noise)))))
            print(*rows[-1], flush=True)
    for peak in (5, 20, 100):
        found = np.array([row[3:] for row in rows if row[1] == peak], float)
        rows.append(("mean", peak, "", *(f"{v:.2f}" for v in found.mean(0))))
    text = table(("photograph", "peak", "noisy", "stabilized", "again", "weighted", "likelihood"), rows)
    print(text)
    write(out, {"counts.md": text, "counts.json": {**conditions(), "rows": rows}})


def _routes(y: Tensor, noise: Poisson) -> Iterator[Tensor]:
    """Pictures denoised by stabilized counts, again as :func:`icgn.denoise` does, by weights, and by the likelihood."""
    model = icgn.load_pretrained("conditional-gray")
    counts = stabilize(y, noise)
    stable = counts.back(icgn.denoise(counts.z, counts.sigma, regularizer=model, tol=1e-3)).x
    yield stable
    yield icgn.denoise(y, noise=noise, regularizer=model, tol=1e-3).x
    variance = noise.variance(stable.clamp_min(noise.gain / 2))
    sigma = float(variance.mean().sqrt())
    denoising = deepinv.physics.Denoising()
    yield icgn.solve(icgn.Problem(y, denoising, model, sigma, noise=White(variance.sqrt())), tol=1e-3).x
    yield icgn.solve(icgn.Problem(y, denoising, model, sigma, noise=noise, box=(1e-3, 2)), gap_tol=1e-2).x


def _psnr(x: Tensor, clean: Tensor) -> float:
    return float(-10 * (x - clean).square().mean().log10())


if __name__ == "__main__":
    typer.run(main)
