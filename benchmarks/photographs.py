"""Photographs as cameras wrote them, denoised blindly: pairs of one shot and the mean of many.

    python benchmarks/photographs.py --pairs polyu --every 4
    python benchmarks/photographs.py --pairs polyu --every 4 --gray

`--pairs` is a folder of ``*_real.JPG`` with ``*_mean.JPG`` beside each, as the PolyU set is (Xu et al. 2018,
arXiv:1804.02603). Compared are the noisy picture, :func:`icgn.pictures.restore_picture` with all found by itself, with
the model for white noise, and CBM3D (package bm3d) at the level of scikit-image's estimator and at that of
:func:`icgn.estimate_noise`, of which the better one counts. With `--gray` the luma of both pictures is taken, for which
the model for white noise is the default, and BM3D.
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
from icgn.datasets import Picture, estimate_sigma, luma, measure_sigma, read_picture
from icgn.pictures import restore_picture
from icgn.pictures.noise import NoiseEstimate, estimate_noise
from icgn.regularizers import ConvexRegularizer


def main(
    pairs: Annotated[Path, typer.Option(help="Folder of *_real.JPG and *_mean.JPG.")],
    every: Annotated[int, typer.Option(min=1, help="Take every so many pairs.")] = 1,
    side: Annotated[int, typer.Option(min=0, help="Side of the middle part that is taken; 0 takes all.")] = 0,
    gray: Annotated[bool, typer.Option(help="Take the luma of the pictures.")] = False,
    bm3d: Annotated[bool, typer.Option(help="Run BM3D too.")] = True,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure, print the table and write it with its numbers."""
    torch.set_num_threads(threads)
    white = None if gray else load_pretrained("conditional-color")
    rows: list[list[object]] = []
    for path in sorted(pairs.glob("*_real.JPG"))[::every]:
        clean_path = path.with_name(path.name.replace("_real", "_mean"))
        noisy, clean = (_part(read_picture(p), side, gray) for p in (path, clean_path))
        found = estimate_noise(noisy)
        values = [
            _psnr(noisy.pixels, clean.pixels),
            _psnr(_restored(noisy), clean.pixels),
            *([] if white is None else [_psnr(_restored(noisy, white), clean.pixels)]),
            *(_bm3d(noisy.pixels, clean.pixels, found) if bm3d else (float("nan"),) * 2),
        ]
        levels = found.level, measure_sigma(noisy.pixels, clean.pixels)
        rows.append(
            [path.stem.removesuffix("_real"), *(f"{255 * v:.2f}" for v in levels), *(f"{v:.3f}" for v in values)]
        )
        print(*rows[-1], flush=True)
    numbers = np.array([row[3:] for row in rows], float)
    gains = numbers - numbers[:, :1]
    rows.append(["mean", "", "", *(f"{v:.2f}" for v in numbers.mean(0))])
    rows.append(["gain, mean", "", "", *(f"{v:+.2f}" for v in gains.mean(0))])
    rows.append(["gain, least", "", "", *(f"{v:+.2f}" for v in gains.min(0))])
    models, rival = ((), "BM3D") if gray else (("conditional-color",), "CBM3D")
    text = table(("pair", "level found", "true", "noisy", "icgn", *models, rival, f"{rival}, our level"), rows)
    print(text)
    settings = {"pairs": pairs.name, "every": every, "side": side, "gray": gray}
    name = "photographs-gray" if gray else "photographs"
    write(
        out or RESULTS / "noise",
        {f"{name}.md": text, f"{name}.json": {**conditions(), **settings, "rows": rows}},
    )


def _part(picture: Picture, side: int, gray: bool) -> Picture:
    pixels = picture.pixels
    if side:
        top, left = ((n - side) // 2 for n in pixels.shape[1:])
        pixels = pixels[:, top : top + side, left : left + side]
    return Picture(luma(pixels) if gray else pixels)


def _restored(noisy: Picture, regularizer: ConvexRegularizer | None = None) -> Tensor:
    return restore_picture(noisy, regularizer=regularizer, tol=1e-3).picture.pixels


def _bm3d(noisy: Tensor, clean: Tensor, found: NoiseEstimate) -> list[float]:
    """BM3D at the level of scikit-image's estimator, and at that which was found."""
    import bm3d

    levels = (max(estimate_sigma(noisy), 1e-4), max(found.sigma, 1e-4))
    if len(noisy) == 1:
        results = (bm3d.bm3d(noisy[0].double().numpy(), level)[None] for level in levels)
    else:
        y = noisy.permute(1, 2, 0).double().numpy()
        results = (np.moveaxis(bm3d.bm3d_rgb(y, level), -1, 0) for level in levels)
    return [_psnr(torch.from_numpy(np.ascontiguousarray(x)).float(), clean) for x in results]


def _psnr(x: Tensor, clean: Tensor) -> float:
    return float(-10 * (x.clamp(0, 1) - clean).square().mean().log10())


if __name__ == "__main__":
    typer.run(main)
