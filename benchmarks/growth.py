"""Growth of seconds and memory with the pixels of a picture, and with the pictures of a batch.

    python benchmarks/growth.py --sizes 128 256 512 1024 --batches 1 4 16 64 --output docs/results/growth

Each size runs in a process of its own, whose peak resident memory is that of the size: the table says how much of it
is there before anything is solved. Pictures are bundled photographs, mirrored to the size, with noise of sigma 25.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import table, write

SIGMA = 25 / 255
_BATCH_SIDE = 128


def measure(side: int, batch: int, model: str, threads: int) -> dict[str, Any]:
    """Denoise `batch` pictures of side x side pixels in this process; seconds, and peak memory in MiB."""
    import torch

    import icgn

    torch.set_num_threads(threads)
    reg = icgn.load_pretrained(model)
    y = pictures(side, batch)
    before = _peak()
    begin = time.perf_counter()
    solution = icgn.denoise(y, SIGMA, regularizer=reg, tol=1e-4)
    seconds = time.perf_counter() - begin
    return {
        "side": side,
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


def pictures(side: int, batch: int) -> Any:
    """Noisy pictures (B, 1, side, side) in [0, 1] plus noise: photographs continued by mirroring."""
    import torch

    from icgn import datasets

    bundled = datasets.bundled(gray=True)
    images = []
    for i in range(batch):
        image = bundled[i % len(bundled)].image
        while min(image.shape[-2:]) < side:
            image = torch.cat([image, image.flip(-1)], -1) if image.shape[-1] < side else image
            image = torch.cat([image, image.flip(-2)], -2) if image.shape[-2] < side else image
        images.append(image[:, :side, :side])
    clean = torch.stack(images)
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table; the ratio is that of seconds per pixel and iteration to those of the first row."""
    first = _rate(rows[0])
    cells = [
        (
            f"{row['side']} x {row['side']}", row["batch"], row["iterations"], f"{row['seconds']:.2f}",
            f"{1e6 * _rate(row):.3f}", f"{_rate(row) / first:.2f}",
            f"{row['memory_mib']:.0f} ({row['memory_before_mib']:.0f} before)", f"{row['rms_distance']:.1e}",
        )
        for row in rows
    ]  # fmt: skip
    heads = (
        "pixels", "batch", "iterations", "seconds", "us per pixel and iteration", "ratio", "peak memory, MiB",
        "certified",
    )  # fmt: skip
    return table(heads, cells)


def main(arguments: list[str] | None = None) -> None:
    """Run the sizes, print the table, and write it with its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--batches", type=int, nargs="*", default=[4, 16, 64], help=f"of {_BATCH_SIDE} x {_BATCH_SIDE}")
    parser.add_argument("--model", default="ridge-gray-small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for results.json and table.md")
    parser.add_argument("--one", type=int, nargs=2, metavar=("SIDE", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*options.one, options.model, options.threads)))
        return
    rows: list[dict[str, Any]] = []
    for side, batch in [(s, 1) for s in options.sizes] + [(_BATCH_SIDE, b) for b in options.batches]:
        shared = ["--model", options.model, "--threads", str(options.threads)]
        command = [sys.executable, __file__, "--one", str(side), str(batch), *shared]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{side} x {side}, batch {batch}: {done.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(
            f"{side} x {side}, batch {batch}: {rows[-1]['seconds']:.1f} s, {rows[-1]['memory_mib']:.0f} MiB", flush=True
        )
        if options.output:
            write(options.output, {"results.json": rows, "table.md": markdown(rows)})
    print(markdown(rows))


def _rate(row: dict[str, Any]) -> float:
    return float(row["seconds"]) / (row["side"] ** 2 * row["batch"] * max(1, row["iterations"]))


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    kilo = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilo / 1024 if sys.platform != "darwin" else kilo / 1024**2


if __name__ == "__main__":
    main()
