"""Photographs as cameras wrote them, denoised blindly: pairs of one shot and the mean of many.

    python benchmarks/photographs.py --pairs polyu --every 4

`--pairs` is a folder of ``*_real.JPG`` with ``*_mean.JPG`` beside each, as the PolyU set is (Xu et al. 2018,
arXiv:1804.02603). Compared are the noisy picture, :func:`icgn.pictures.restore_picture` with all found by itself, with
the model for white noise, and CBM3D (package bm3d) at the level of scikit-image's estimator and at that of
:func:`icgn.estimate_noise`, of which the better one counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from harness import RESULTS, Out, Threads, conditions, table, write
from torch import Tensor

from icgn import load_pretrained
from icgn.datasets import Picture, estimate_sigma, read_picture
from icgn.pictures import restore_picture
from icgn.pictures.noise import NoiseEstimate, estimate_noise


def main(
    pairs: Annotated[Path, typer.Option(help="Folder of *_real.JPG and *_mean.JPG.")],
    every: Annotated[int, typer.Option(min=1, help="Take every so many pairs.")] = 1,
    side: Annotated[int, typer.Option(min=0, help="Side of the middle part that is taken; 0 takes all.")] = 0,
    bm3d: Annotated[bool, typer.Option(help="Run CBM3D too.")] = True,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure, print the table and write it with its numbers."""
    torch.set_num_threads(threads)
    white = load_pretrained("conditional-color")
    rows: list[list[object]] = []
    for path in sorted(pairs.glob("*_real.JPG"))[::every]:
        clean_path = path.with_name(path.name.replace("_real", "_mean"))
        noisy, clean = (_middle(read_picture(p), side) for p in (path, clean_path))
        found = estimate_noise(noisy)
        values = [
            _psnr(noisy.pixels, clean.pixels),
            _psnr(restore_picture(noisy, tol=1e-3).picture.pixels, clean.pixels),
            _psnr(restore_picture(noisy, regularizer=white, tol=1e-3).picture.pixels, clean.pixels),
            *(_bm3d(noisy.pixels, clean.pixels, found) if bm3d else (float("nan"),) * 2),
        ]
        rows.append([path.stem.removesuffix("_real"), f"{255 * found.level:.2f}", *(round(v, 3) for v in values)])
        print(*rows[-1], flush=True)
    numbers = np.array([row[2:] for row in rows], float)
    gains = numbers - numbers[:, :1]
    rows.append(["mean", "", *(f"{v:.2f}" for v in numbers.mean(0))])
    rows.append(["gain, mean", "", *(f"{v:+.2f}" for v in gains.mean(0))])
    rows.append(["gain, least", "", *(f"{v:+.2f}" for v in gains.min(0))])
    text = table(("pair", "level found", "noisy", "icgn", "conditional-color", "CBM3D", "CBM3D, our level"), rows)
    print(text)
    settings = {"pairs": pairs.name, "every": every, "side": side}
    write(
        out or RESULTS / "noise",
        {"photographs.md": text, "photographs.json": {**conditions(), **settings, "rows": rows}},
    )


def _middle(picture: Picture, side: int) -> Picture:
    if not side:
        return picture
    top, left = ((n - side) // 2 for n in picture.pixels.shape[1:])
    return Picture(picture.pixels[:, top : top + side, left : left + side])


def _bm3d(noisy: Tensor, clean: Tensor, found: NoiseEstimate) -> list[float]:
    """CBM3D at the level of scikit-image's estimator, and at that which was found."""
    from bm3d import bm3d_rgb

    y = noisy.permute(1, 2, 0).double().numpy()
    results = (bm3d_rgb(y, level) for level in (max(estimate_sigma(noisy), 1e-4), max(found.sigma, 1e-4)))
    return [_psnr(torch.from_numpy(np.moveaxis(x, -1, 0)).float(), clean) for x in results]


def _psnr(x: Tensor, clean: Tensor) -> float:
    return float(-10 * (x.clamp(0, 1) - clean).square().mean().log10())


if __name__ == "__main__":
    typer.run(main)
