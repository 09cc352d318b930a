"""The section of RESULTS.md about ``benchmarks/inverse.py``, from its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from harness import read, table

_INTRODUCTION = """## Other inverse problems

Measured by `python benchmarks/inverse.py --data ROOT`, where the operators are defined. Minimizers of
sigma^2 |A x - y|^2 / (2 noise^2) + weight R(x; sigma) over intensities in [0, 1] ([-1, 1] in MRI), noise of 2.55 gray
levels in the units of A x, with sigma (in gray levels) and weight found for each task and method by the same search, on
pictures that are not those of the test. Photographs are the {count} bundled with scikit-image or every second of them
(*certified* has the number), centre crops of {crop} x {crop} (CT: as 128 x 128), and for deblurring (Levin's kernels in
turn) ten whole pictures of BSD68 too; a phantom is Shepp and Logan's, tuned on random ellipses. *tv* is the smoothed
total variation of `icgn.TotalVariation`. *Gap* is the largest certified relative gap to the global minimum, iterations
and seconds are means, *certified* counts gaps up to {gap:g}."""

_HEAD = ("task", "method", "sigma", "weight", "PSNR, dB", "gap", "iterations", "seconds", "certified")


def section(folder: Path) -> str:
    """The section, Markdown, from ``folder/results.json``; empty where there is none.

    A picture counts once all methods have been measured on it.
    """
    content = read(folder / "results.json", None)
    if content is None:
        return ""
    settings, rows = content["settings"], content["rows"]
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    lines = [line for task in tasks for line in _of_task(task, [r for r in rows if r["task"] == task])]
    count = len({r["picture"] for r in rows if r["task"].startswith("inpainting")}) or "photographs"
    text = [_INTRODUCTION.format(count=count, crop=settings["crop"], gap=settings["gap"]), "", table(_HEAD, lines), ""]
    versions = ", ".join(f"{k} {v}" for k, v in settings["versions"].items())
    text += [f"Seed {settings['seed']}, {settings['threads']} CPU thread(s); {versions}.", ""]
    if (folder / "pictures.png").exists():
        text += [f"![pictures](docs/results/{folder.name}/pictures.png)", ""]
    return "\n".join(text)


def _of_task(task: str, rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of a task: what the methods begin with, then each of them."""
    methods = list(dict.fromkeys(r["method"] for r in rows))
    done = [{r["picture"] for r in rows if r["method"] == m} for m in methods]
    common = set.intersection(*done)
    if not common:
        return []
    kept = [r for r in rows if r["picture"] in common]
    start = mean(r["start_psnr"] for r in kept if r["method"] == methods[0])
    lines: list[tuple[str, ...]] = [(task, kept[0]["start"], "-", "-", f"{start:.2f}", "-", "-", "-", "-")]
    for method in methods:
        own = [r for r in kept if r["method"] == method]
        certified = sum(r["certified"] for r in own)
        lines.append(
            (
                task, method, f"{255 * own[0]['sigma']:.1f}", f"{own[0]['weight']:.2f}",
                f"**{mean(r['psnr'] for r in own):.2f}**", f"{max(r['relative_gap'] for r in own):.1e}",
                f"{mean(r['iterations'] for r in own):.0f}", f"{mean(r['seconds'] for r in own):.1f}",
                f"{certified}/{len(own)}",
            )
        )  # fmt: skip
    return lines
