"""The sky as a radio interferometer sees it: a masked Fourier transform, restored, with intervals of its blocks.

    python benchmarks/radio.py --data RADIO

RADIO holds the skies (``M31.fits``, ``CYN.fits``, ``3c288.fits``) and the Fourier masks (``M31_fourier_mask.mat``, ...)
of Liaudat et al. 2023 (arXiv:2312.00125). Noise of 30 dB is drawn with seed 0. The level that the model is asked to
remove is 3 times the noise for all of them, the picture real and in [0, 1]. SNR is 20 log10(|x| / |x - x^|); the
published one is that of their convex ridge regularizer. Seconds are those of the processor, of all threads together.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import deepinv
import numpy as np
import scipy.io
import torch
import typer
from astropy.io import fits
from harness import RESULTS, Out, Threads, conditions, table, write
from skimage.transform import resize
from torch import Tensor

import icgn
from icgn.uncertainty import credible_intervals

SKIES = {"M31": (None, 26.85), "CYN": ((256, 512), 24.10), "3c288": ((256, 256), 30.25)}
"""Sizes to which skies are brought, and the published SNR."""
STRENGTH, NOISE, ITERATIONS = 3.0, 30.0, 100


def main(
    data: Annotated[Path, typer.Option(help="Folder of the skies and masks.")],
    model: Annotated[str, typer.Option(help="Shipped gray model.")] = "ridge-gray-small",
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Restore all skies, print the table and write it."""
    torch.set_num_threads(threads)
    rows = []
    for name in SKIES:
        rows.append(measured(data, name, model))
        print(*rows[-1], flush=True)
    heads = ("sky", "SNR", "published", "status", "iterations", "seconds", "seconds of intervals", "mean width")
    text = table(heads, rows)
    print(text)
    write(out or RESULTS / "uncertainty", {"radio.md": text, "radio.json": {**conditions(), "rows": rows}})


def measured(data: Path, name: str, model: str) -> tuple[str, ...]:
    """The row of one sky."""
    x = sky(data / f"{name}.fits", SKIES[name][0])
    mask = fourier_mask(data / f"{name}_fourier_mask.mat", x.shape[-2:])
    physics = masked_fourier(mask)
    seen = physics.A(x)
    noise = 10 ** (-NOISE / 20) * float(seen.norm()) / math.sqrt(2 * float(mask.sum()))
    y = seen + noise * mask * torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))
    problem = icgn.Problem(y, physics, icgn.load_pretrained(model), sigma=STRENGTH * noise, noise=noise, box=(0.0, 1.0))
    begun = time.process_time()
    solution = icgn.solve(problem, gap_tol=1e-2, max_iter=ITERATIONS)
    solved = time.process_time()
    intervals = credible_intervals(problem, solution, blocks=8, alpha=0.01)
    ended = time.process_time()
    snr = 20 * math.log10(float(x.norm() / (x - solution.x).norm()))
    cells = f"{snr:.2f}", f"{SKIES[name][1]:.2f}", solution.status[0].name, str(int(solution.stats.iterations))
    widths = f"{float(intervals.width.nanmean()):.3f}"
    return (name, *cells, f"{solved - begun:.1f}", f"{ended - solved:.1f}", widths)


def sky(path: Path, size: tuple[int, int] | None) -> Tensor:
    """A sky in [0, 1], (1, 1, H, W)."""
    values = np.flipud(fits.getdata(path).squeeze().astype(float)).copy()
    if size is not None and values.shape != size:
        values = resize(values, size, order=3, anti_aliasing=True)
    values -= values.min()
    return torch.from_numpy(values / values.max())[None, None].float()


def fourier_mask(path: Path, size: torch.Size) -> Tensor:
    """Which frequencies are measured, (H, W), 1 or 0."""
    tracks = scipy.io.loadmat(path)["Ma"]
    counts = np.asarray(tracks.sum(0)).reshape(tuple(size), order="F")
    return torch.from_numpy(counts.astype(bool)).float()


def masked_fourier(mask: Tensor) -> deepinv.physics.LinearPhysics:
    """The orthonormal Fourier transform of real pictures at the frequencies of a mask, (B, 2, H, W)."""

    def forward(x: Tensor, **_: object) -> Tensor:
        z = mask * torch.fft.fft2(x[:, 0], norm="ortho")
        return torch.stack([z.real, z.imag], 1)

    def adjoint(y: Tensor, **_: object) -> Tensor:
        return torch.fft.ifft2(mask * torch.complex(y[:, 0], y[:, 1]), norm="ortho").real[:, None]

    return deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint)


if __name__ == "__main__":
    typer.run(main)
