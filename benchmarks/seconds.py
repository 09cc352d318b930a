"""Seconds of certified denoising beside those of BM3D and of a network of the size of DnCNN, in one run.

    python benchmarks/seconds.py --threads 1
    python benchmarks/seconds.py --threads 2

The yardsticks are BM3D by the package of its authors (``pip install bm3d``; left out without it) and 17 layers of 3 x 3
convolutions with 64 channels and ReLU, with random weights: its seconds do not depend on them. The network runs as it
comes, and in the memory format that is fastest on CPUs. All run in turns on the same picture of 321 x 481 with noise of
sigma 25, so that whatever else the machine does meets all alike; ratios are medians over the rounds. A run of another
number of threads adds its columns to the table, one of gray or of colour models alone keeps the rows of the others.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from harness import RESULTS, Out, Threads, conditions, in_turns, ratio, resumed, table, write
from torch import Tensor, nn

import icgn
from icgn.datasets import add_noise, bsd68, bundled

NETWORK, LAST, BM3D = "network", "network, channels last", "BM3D"
GRAY = ("ridge-gray-tiny", "ridge-gray-small", "conditional-gray-small", "conditional-gray", "ridge-gray")
COLOUR = ("conditional-color",)
_HEIGHT, _WIDTH = 321, 481


def main(
    threads: Threads = 1,
    sigma: Annotated[float, typer.Option(help="Noise level, 8-bit gray levels.")] = 25.0,
    tol: Annotated[
        float | None, typer.Option(help="Certified RMS distance, intensities; default that of icgn.denoise.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all methods in turns.")] = 3,
    data: Annotated[Path | None, typer.Option(help="Root of BSDS500; default the bundled pictures.")] = None,
    models: Annotated[str, typer.Option(help="Shipped models, separated by commas.")] = ",".join(GRAY + COLOUR),
    out: Out = None,
) -> None:
    """Time all methods, print the table, and write it with its numbers."""
    confine(threads)
    settings = {"sigma": sigma, "tol": tol, "rounds": rounds, "data": "bundled" if data is None else "BSD68"}
    folder = RESULTS / "seconds" if out is None else out
    content = resumed(folder / "results.json", settings, runs={})
    before = content["runs"].get(str(threads), {}).get("rows", [])
    rows = []
    for channels in (1, 3):
        chosen = [m for m in models.split(",") if ("color" in m) is (channels == 3)]
        if chosen:
            rows += measured(picture(channels, data), sigma / 255, tol, rounds, chosen)
        else:
            rows += [row for row in before if row["channels"] == channels]
    content["runs"][str(threads)] = {**conditions("torch", "numba"), "rows": rows}
    text = markdown(content)
    write(folder, {"results.json": content, "table.md": text})
    print(text)


def confine(threads: int) -> None:
    """Keep this process, and the packages that start threads of their own, to a number of cores."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def picture(channels: int, data: Path | None) -> Tensor:
    """A photograph (C, 321, 481): the first of BSD68 of that orientation, or part of a bundled one."""
    gray = channels == 1
    if data is None:
        whole = bundled(gray=gray).find("camera" if gray else "astronaut").image
        return whole[:, 60 : 60 + _HEIGHT, 10 : 10 + _WIDTH]
    return next(s.image for s in bsd68(data, gray=gray) if s.image.shape[-2:] == (_HEIGHT, _WIDTH))


def measured(clean: Tensor, sigma: float, tol: float | None, rounds: int, models: list[str]) -> list[dict[str, Any]]:
    """One row per method: seconds of every round, ratios to the yardsticks, and what was certified."""
    noisy = add_noise(clean, sigma, 0)[None]
    regularizers = {name: icgn.load_pretrained(name) for name in models}
    solutions: dict[str, icgn.Solution] = {}

    def restore(name: str) -> None:
        solutions[name] = icgn.denoise(noisy, sigma, regularizer=regularizers[name], tol=tol)

    calls: dict[str, Callable[[], object]] = {**networks(noisy), **bm3d(noisy, sigma)}
    calls.update({name: lambda name=name: restore(name) for name in models})  # type: ignore[misc]
    restore(models[0])  # compiled loops are loaded once by a process
    times = in_turns(calls, rounds)
    rows = []
    for name in calls:
        row: dict[str, Any] = {"method": name, "channels": clean.shape[0], "seconds": times[name]}
        row["over"] = {other: ratio(times, name, other) for other in (NETWORK, BM3D) if other in times}
        if name in solutions:
            solution = solutions[name]
            error = float((solution.x[0].clamp(0, 1) - clean).square().mean())
            row |= {
                "iterations": int(solution.stats.iterations[0]),
                "status": solution.status[0].name.lower(),
                "rms_distance": float(solution.certificate.rms_distance[0]),
                "psnr": -10 * float(torch.tensor(error).log10()),
            }
        rows.append(row)
    return rows


def networks(noisy: Tensor) -> dict[str, Callable[[], object]]:
    """A network of 17 layers of 64 channels, as DnCNN has for one level, in both memory formats."""
    channels = noisy.shape[1]
    inner = [layer for _ in range(15) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    layers = [nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(64, channels, 3, padding=1)]
    plain = nn.Sequential(*layers)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    pictures = noisy.contiguous(memory_format=torch.channels_last)
    run = torch.no_grad()
    return {NETWORK: run(lambda: noisy - plain(noisy)), LAST: run(lambda: pictures - last(pictures))}


def bm3d(noisy: Tensor, sigma: float) -> dict[str, Callable[[], object]]:
    """BM3D by its package, if that is installed."""
    try:
        import bm3d as package
    except ImportError:
        return {}
    pixels = noisy[0].permute(1, 2, 0).numpy()
    if pixels.shape[-1] == 1:
        return {BM3D: lambda: package.bm3d(pixels[..., 0], sigma)}
    return {BM3D: lambda: package.bm3d_rgb(pixels, sigma)}


def markdown(content: dict[str, Any]) -> str:
    """The table: seconds (best of the rounds) and ratios to network and BM3D by number of threads."""
    runs = dict(sorted((int(n), run) for n, run in content["runs"].items()))
    heads = ["method", *(f"{h}, {_threads(n)}" for n in runs for h in ("seconds", "over network", "over BM3D"))]
    found: dict[tuple[str, int], list[str]] = {}
    for run in runs.values():
        for row in run["rows"]:
            key = row["method"], row["channels"]
            cells = [f"{min(row['seconds']):.2f}", *(_times(row["over"].get(other)) for other in (NETWORK, BM3D))]
            found.setdefault(key, []).extend(cells)
    rows = [(f"{name}, colour" if c == 3 else name, *cells) for (name, c), cells in found.items()]
    s = content["settings"]
    said = [
        f"- {row['method']}: {row['iterations']} iterations, {row['status']}, RMS distance {row['rms_distance']:.1e},"
        f" {row['psnr']:.2f} dB"
        for row in next(iter(runs.values()))["rows"]
        if "iterations" in row
    ]
    tolerance = "the default tolerance, sigma / 250" if s["tol"] is None else f"tolerance {s['tol']:g}"
    legend = (
        f"One {_HEIGHT} x {_WIDTH} picture, noise of sigma {s['sigma']:g}, {tolerance}: the least of"
        f" {s['rounds']} rounds, and medians of the ratios within a round."
    )
    return "\n\n".join([table(heads, rows), legend, "\n".join(said)])


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    typer.run(main)
