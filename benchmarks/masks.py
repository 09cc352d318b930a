"""Pictures of the masks: what a conditional network decided to keep.

    python benchmarks/masks.py

The upper row has a noisy photograph, the unconditional solution that the condition is computed from, the answer, and
the mean over the filters of log c. The lower one has log c of single filters, each with the filter in its corner: those
whose masks vary most over the picture and resemble each other least. A mask c multiplies the saturation of a filter:
small (dark) keeps what the filter sees there, large (bright) removes it, and 0 is what the network has without masks.
All masks are on one scale. No data is needed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, Any

import deepinv
import numpy as np
import torch
import typer
from harness import RESULTS, Out, Threads, central, figure, write
from PIL import Image
from torch import Tensor

import icgn
from icgn.datasets import add_noise, bundled, quality, seed_of
from icgn.regularizers import ConditionalICGN
from icgn.solvers import Problem, solve
from icgn.solvers.conditioning import conditioned

# Share of the numbers that the colours leave out at each end, and of the picture that a filter takes.
_TAIL, _INSET = 0.01, 0.22


@dataclass(frozen=True, eq=False)
class Masked:
    """A denoised picture with what led to it.

    Attributes
    ----------
    clean, noisy, first, final : Tensor
        pictures (1, H, W): without and with noise, the solution that the masks come from, and the answer.
    logs : Tensor
        log c of every filter, (K, H, W).
    filters : Tensor
        of the conditional network, (K, d, d).
    """

    clean: Tensor
    noisy: Tensor
    first: Tensor
    final: Tensor
    logs: Tensor
    filters: Tensor


@torch.no_grad()
def masked(clean: Tensor, sigma: float, regularizer: ConditionalICGN, seed: int) -> Masked:
    """Denoise a picture (1, H, W) plus noise of standard deviation sigma, in intensities."""
    y = add_noise(clean, sigma, seed)[None]
    problem = Problem(y, deepinv.physics.Denoising(), regularizer, sigma)
    begin = conditioned(problem)
    assert begin.problem.condition is not None
    final = solve(begin.problem, x0=begin.x).x
    filters = regularizer.ridge.bank.weight[:, 0]
    return Masked(clean, y[0], begin.x[0], final[0], begin.problem.condition[0].log(), filters)


def distinct(logs: Tensor, count: int) -> list[int]:
    """The filters whose log masks (K, H, W) vary most and differ most.

    First the one of the largest variance; then always the one with the largest part of its variance that the best
    correlated of those chosen does not explain.
    """
    z = (logs - logs.mean((1, 2), keepdim=True)).flatten(1)
    spread = z.square().mean(1)
    unit = z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
    chosen: list[int] = []
    left = spread.clone()
    for _ in range(min(count, len(logs))):
        left[chosen] = -1.0
        chosen.append(int(left.argmax()))
        left = torch.minimum(left, spread * (1 - (unit @ unit[chosen[-1]]).square()))
    return chosen


def drawing(m: Masked, chosen: list[int], title: str) -> bytes:
    """The figure, a PNG."""
    sheet = figure(3.1 * max(4, len(chosen)) + 0.8, 6.7, dpi=80)
    sheet.suptitle(title, fontsize=11)
    axes = sheet.subplots(2, max(4, len(chosen)), squeeze=False)
    for a in axes.flat:
        a.set_axis_off()
    shown = (("noisy", m.noisy), ("solution before", m.first), ("final", m.final))
    for a, (label, x) in zip(axes[0], shown, strict=False):
        a.imshow(x[0].numpy(), cmap="gray", vmin=0, vmax=1)
        a.set_title(f"{label}, {quality(x, m.clean).psnr:.2f} dB", fontsize=10)
    low, high = _range(torch.cat([m.logs[chosen], m.logs.mean(0)[None]]))
    colours = {"cmap": "magma", "vmin": low, "vmax": high}
    image = axes[0, 3].imshow(m.logs.mean(0).numpy(), **colours)
    axes[0, 3].set_title(f"mean of log c, {len(m.logs)} filters", fontsize=10)
    for a, k in zip(axes[1], chosen, strict=False):
        a.imshow(m.logs[k].numpy(), **colours)
        a.set_title(f"log c of filter {k}", fontsize=10)
        _thumbnail(a, m.filters[k])
    sheet.colorbar(image, ax=axes, aspect=30, label="log c: small keeps, large removes")
    sheet.canvas.draw()
    # 256 colours, a third of the bytes.
    pixels = Image.fromarray(np.asarray(sheet.canvas.buffer_rgba())[..., :3]).quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _range(logs: Tensor) -> tuple[float, float]:
    """The range of colours: all but a small share of the numbers."""
    ends = torch.quantile(logs.flatten()[:: max(1, logs.numel() // 100_000)], torch.tensor([_TAIL, 1 - _TAIL]))
    return float(ends[0]), float(ends[1])


def _thumbnail(axes: Any, kernel: Tensor) -> None:
    """The filter in the upper left corner, in a white frame."""
    inset = axes.inset_axes((0.0, 1 - _INSET, _INSET, _INSET))
    largest = float(kernel.abs().max())
    inset.imshow(kernel.numpy(), cmap="gray", vmin=-largest, vmax=largest)
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set(color="white", linewidth=2)


def main(
    model: Annotated[str, typer.Option(help="Name or path of a gray conditional model.")] = "conditional-gray",
    picture: Annotated[str, typer.Option(help="A bundled photograph.")] = "camera",
    side: Annotated[int, typer.Option(min=16, help="Side of the central crop.")] = 320,
    sigma: Annotated[float, typer.Option(min=0, help="Noise level, gray levels.")] = 25.0,
    filters: Annotated[int, typer.Option(min=1, max=8, help="Single filters to show.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Denoise a photograph and write masks.png."""
    torch.set_num_threads(threads)
    regularizer = icgn.load_pretrained(model)
    if not isinstance(regularizer, ConditionalICGN):
        raise typer.BadParameter(f"--model: got {type(regularizer).__name__}, expected a conditional network")
    clean = central(bundled(gray=True).find(picture).image, side)
    m = masked(clean, sigma / 255, regularizer, seed_of(picture, seed=seed))
    chosen = distinct(m.logs, filters)
    write(out or RESULTS / "stability", {"masks.png": drawing(m, chosen, f"{picture}, sigma {sigma:g}")})
    print(f"log c from {float(m.logs.min()):.2f} to {float(m.logs.max()):.2f}, mean {float(m.logs.mean()):.2f}")


if __name__ == "__main__":
    typer.run(main)
