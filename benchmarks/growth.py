"""Growth of seconds and memory with the pixels of a picture, and with the pictures of a batch.

    python benchmarks/growth.py --sizes 128 256 512 1024 --batches 1 4 16 64 --output docs/results/growth
    python benchmarks/growth.py --model conditional-gray --short 3 --sizes 512 1024 2048 4096 --batches
    python benchmarks/growth.py --model conditional-color --short 3 --sizes 3000x4000 --batches

Each size runs in a process of its own, whose peak resident memory is that of the size: the table says how much of it
is there before anything is solved. Pictures are bundled photographs, mirrored to the size, with noise of sigma 25.
Seconds are those of the processor, so that other work on the machine counts little. With `--short` first solutions of a
conditional network are rough and iterations few: memory shows after two or three, masks and certificate included.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import table, write

SIGMA = 25 / 255
_BATCH_SIDE, _WARM = 128, 160


def measure(
    size: tuple[int, int], batch: int, model: str, threads: int, *, tol: float | None = None, short: int | None = None
) -> dict[str, Any]:
    """Denoise `batch` pictures of a size in this process; seconds, and peak memory in MiB."""
    import torch

    import icgn

    torch.set_num_threads(threads)
    reg = icgn.load_pretrained(model)
    before = _peak()
    options: dict[str, Any] = {"regularizer": reg, "range": (0, 1), "tol": tol}
    if short is not None:
        reg.looseness = (1.0,) * len(reg.looseness)
        options["max_iter"] = short
    icgn.denoise(pictures((_WARM, _WARM), 1, reg.channels), SIGMA, **options)  # what is compiled and made once
    y = pictures(size, batch, reg.channels)
    begin = time.process_time()
    solution = icgn.denoise(y, SIGMA, **options)
    seconds = time.process_time() - begin
    return {
        "side": math.sqrt(size[0] * size[1]),
        "size": size,
        "batch": batch,
        "model": model,
        "threads": threads,
        "seconds": seconds,
        "iterations": int(solution.stats.iterations.max()),
        "rms_distance": float(solution.certificate.rms_distance.max()),
        "converged": solution.converged,
        "memory_before_mib": before,
        "memory_mib": _peak(),
    }


def pictures(size: tuple[int, int], batch: int, channels: int = 1) -> Any:
    """Noisy pictures (B, C, H, W) in [0, 1] plus noise: photographs continued by mirroring."""
    import torch

    from icgn import datasets

    bundled = datasets.bundled(gray=channels == 1)
    images = []
    for i in range(batch):
        image = bundled[i % len(bundled)].image
        while image.shape[-2] < size[0] or image.shape[-1] < size[1]:
            image = torch.cat([image, image.flip(-1)], -1) if image.shape[-1] < size[1] else image
            image = torch.cat([image, image.flip(-2)], -2) if image.shape[-2] < size[0] else image
        images.append(image[:, : size[0], : size[1]])
    clean = torch.stack(images)
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table; the ratio is that of seconds per pixel and iteration to those of the first row."""
    first = _rate(rows[0])
    cells = [
        (
            "{} x {}".format(*row["size"]), row["batch"], row["iterations"], f"{row['seconds']:.2f}",
            f"{1e6 * _rate(row):.3f}", f"{_rate(row) / first:.2f}",
            f"{1e6 * row['seconds'] / (row['side'] ** 2 * row['batch']):.2f}",
            f"{row['memory_mib']:.0f} ({row['memory_before_mib']:.0f} before)", f"{row['rms_distance']:.1e}",
        )
        for row in rows
    ]  # fmt: skip
    heads = (
        "pixels", "batch", "iterations", "seconds", "us per pixel and iteration", "ratio", "us per pixel",
        "peak memory, MiB",
        "certified",
    )  # fmt: skip
    return table(heads, cells)


def main(arguments: list[str] | None = None) -> None:
    """Run the sizes, print the table, and write it with its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["128", "256", "512", "1024", "2048", "4096"], help="or 300x400")
    parser.add_argument("--batches", type=int, nargs="*", default=[4, 16, 64], help=f"of {_BATCH_SIDE} x {_BATCH_SIDE}")
    parser.add_argument("--model", default="ridge-gray-small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tol", type=float, help="certified RMS distance, default sigma / 250")
    parser.add_argument("--short", type=int, metavar="N", help="rough first solutions, and N iterations in all")
    parser.add_argument("--output", type=Path, help="folder for results.json and table.md")
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        size, batch = _size(options.one[0]), int(options.one[1])
        print(json.dumps(measure(size, batch, options.model, options.threads, tol=options.tol, short=options.short)))
        return
    rows: list[dict[str, Any]] = []
    shared = ["--model", options.model, "--threads", str(options.threads)]
    shared += [] if options.tol is None else ["--tol", str(options.tol)]
    shared += [] if options.short is None else ["--short", str(options.short)]
    for side, batch in [(s, 1) for s in options.sizes] + [(str(_BATCH_SIDE), b) for b in options.batches]:
        command = [sys.executable, __file__, "--one", side, str(batch), *shared]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{side}, batch {batch}: {done.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(f"{side}, batch {batch}: {rows[-1]['seconds']:.1f} s, {rows[-1]['memory_mib']:.0f} MiB", flush=True)
        if options.output:
            write(options.output, {"results.json": rows, "table.md": markdown(rows)})
    print(markdown(rows))


def _size(text: str) -> tuple[int, int]:
    """Height and width, of "512" or "300x400"."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _rate(row: dict[str, Any]) -> float:
    return float(row["seconds"]) / (row["side"] ** 2 * row["batch"] * max(1, row["iterations"]))


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    kilo = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilo / 1024 if sys.platform != "darwin" else kilo / 1024**2


if __name__ == "__main__":
    main()
