"""Seconds for one certified denoising, beside the matrix-product rate of the machine measured in the same run.

    python benchmarks/seconds.py --threads 2

The picture is a bundled photograph cropped to 321 x 481, the size of BSD68; no data is needed.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from harness import Threads, seconds

import icgn
from icgn.datasets import add_noise, bundled


def main(
    threads: Threads = 2,
    model: Annotated[str, typer.Option(help="Name or path of a gray model.")] = "ridge-gray",
    sigma: Annotated[float, typer.Option(help="Noise level, 8-bit gray levels.")] = 25.0,
    tol: Annotated[float, typer.Option(help="Certified RMS distance, intensities.")] = 1e-4,
    repeat: Annotated[int, typer.Option(help="Timed runs, of which the median counts.")] = 3,
) -> None:
    """Time one denoising, one gradient, and a matrix product."""
    torch.set_num_threads(threads)
    regularizer = icgn.load_pretrained(model)
    image = bundled(gray=True).find("camera").image[:, 60:381, 10:491]
    y = add_noise(image, sigma / 255, 0)[None]
    solution = icgn.denoise(y, sigma / 255, regularizer=regularizer, tol=tol)
    functional = regularizer.at(sigma / 255)
    with torch.no_grad():
        gradient = seconds(lambda: functional.grad(y), 10)
    total = seconds(lambda: icgn.denoise(y, sigma / 255, regularizer=regularizer, tol=tol), repeat)
    a = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / seconds(lambda: a @ a, 5) / 1e9
    print(f"{model}, {y.shape[-2]} x {y.shape[-1]}, sigma {sigma:g}, {threads} threads")
    print(f"certified denoising   {total:.2f} s, {int(solution.stats.iterations[0])} iterations,", end=" ")
    print(f"RMS distance {float(solution.certificate.rms_distance[0]):.1e}")
    print(f"one gradient of R     {gradient * 1e3:.0f} ms ({total / gradient:.0f} gradients a denoising)")
    print(f"matrix product        {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    typer.run(main)
