"""The sky as a radio interferometer sees it: a masked Fourier transform, restored, with intervals of its blocks.

    python benchmarks/radio.py --data RADIO

RADIO holds the skies (``M31.fits``, ``CYN.fits``, ``3c288.fits``) and the Fourier masks (``M31_fourier_mask.mat``, ...)
of Liaudat et al. 2023 (arXiv:2312.00125). Noise of 30 dB is drawn with seed 0. The level that the model is asked to
remove is 3 times the noise, the strength is found by the discrepancy principle, the picture is real and in
[0, 1]. SNR is 20 log10(|x| / |x - x^|); the published one is that of their convex ridge regularizer.

Skies that an interrupted run has measured are kept. Seconds are those of the processor, of all threads together.
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
from harness import RESULTS, Out, Threads, conditions, resumed, table, write
from skimage.transform import resize
from torch import Tensor

import icgn
from icgn.uncertainty import credible_intervals

SKIES = {"M31": (None, 26.85), "CYN": ((256, 512), 24.10), "3c288": ((256, 256), 30.25)}
"""Sizes to which skies are brought, and the published SNR."""
LEVEL, NOISE, ITERATIONS = 3.0, 30.0, 200


def main(
    data: Annotated[Path, typer.Option(help="Folder of the skies and masks.")],
    model: Annotated[str, typer.Option(help="Shipped gray model.")] = "ridge-gray-small",
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Restore all skies, print the table and write it."""
    torch.set_num_threads(threads)
    folder = out or RESULTS / "uncertainty"
    settings = {"model": model, "level": LEVEL, "noise": NOISE, "threads": threads}
    content = resumed(folder / "radio.json", settings, rows={})
    heads = ("sky", "SNR", "published", "weight", "status", "iterations", "seconds", "of intervals")
    for name in SKIES:
        if name not in content["rows"]:
            content["rows"][name] = measured(data, name, model)
        print(name, *content["rows"][name], flush=True)
        text = table(heads, [(sky, *row) for sky, row in content["rows"].items()])
        write(folder, {"radio.md": text, "radio.json": {**conditions(), **content}})


def measured(data: Path, name: str, model: str) -> tuple[str, ...]:
    """The row of one sky, without its name."""
    x = sky(data / f"{name}.fits", SKIES[name][0])
    mask = fourier_mask(data / f"{name}_fourier_mask.mat", x.shape[-2:])
    physics = masked_fourier(mask)
    seen = physics.A(x)
    noise = 10 ** (-NOISE / 20) * float(seen.norm()) / math.sqrt(2 * float(mask.sum()))
    y = seen + noise * mask * torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))
    regularizer = icgn.load_pretrained(model)
    problem = icgn.Problem(
        y, physics, regularizer, sigma=LEVEL * noise, noise=noise, box=(0.0, 1.0), weight="discrepancy"
    )
    begun = time.process_time()
    solution = icgn.solve(problem, gap_tol=1e-2, max_iter=ITERATIONS)
    solved = time.process_time()
    credible_intervals(problem, solution, blocks=8, alpha=0.01)
    finished = time.process_time()
    snr = 20 * math.log10(float(x.norm() / (x - solution.x).norm()))
    ended = solution.status[0].name, str(int(solution.stats.iterations))
    seconds = f"{solved - begun:.1f}", f"{finished - solved:.1f}"
    return (f"{snr:.2f}", f"{SKIES[name][1]:.2f}", f"{float(solution.weight):.1f}", *ended, *seconds)


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
