"""Rings of CT: cells whose gains differ, taken for alike or found with the slice.

    python benchmarks/rings.py

The slice of pydicom's test data, 90 parallel views of 10,000 counts, the gains of cells log-normal; `conditional-gray`
at the strength that equal cells have in the table of strengths, to a gap of 1e-2.
"""

from __future__ import annotations

import torch
import typer
from harness import RESULTS, Out, Threads, conditions, table, write
from scanner_cases import ray_case

from icgn.regularizers import load_pretrained
from icgn.scanners import Sinogram, cell_gains, reconstruct_ct
from scanners import MODEL, psnr

PHOTONS, SIGMA = 1e4, 22.6 / 255
GAINS = (0.0, 0.003, 0.01, 0.03)


def main(threads: Threads = 1, out: Out = None) -> None:
    """Measure and write the table."""
    torch.set_num_threads(threads)
    case, model, rows = ray_case("rings", PHOTONS, 90, 180.0), load_pretrained(MODEL), []
    drawn = torch.randn(case.geometry.cells, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert case.sinogram.counts is not None
    for gain in GAINS:
        made = Sinogram.of_counts((case.sinogram.counts * (gain * drawn).exp()).round(), PHOTONS)
        row = [f"{100 * gain:g} %", f"{100 * cell_gains(made.integrals, made.levels):.2g} %"]
        for gains in (0.0, None):
            found = reconstruct_ct(made, case.geometry, gains=gains, regularizer=model, sigma=SIGMA, gap_tol=1e-2)
            row.append(f"{psnr(found.x.double(), case.clean, case.geometry.circle):.2f}")
        rows.append(tuple(row))
        print(rows[-1], flush=True)
    text = table(("gains differ by", "found", "taken for alike, dB", "found with the slice, dB"), rows)
    write(out or RESULTS / "scanners", {"rings.md": text, "rings.json": {**conditions("pydicom"), "rows": rows}})


if __name__ == "__main__":
    typer.run(main)
