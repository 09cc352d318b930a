"""Draws from posteriors: gradients for one independent draw, and agreement with a long chain.

    python benchmarks/sampling.py

*Work*: denoising of a crop of 64 x 64 pixels of a bundled photograph with noise of 25 gray levels, by several models:
gradients of one chain for one independent draw of the mean of a block of 8 x 8 pixels, in the median and for the worst
block, pixels and f, after the warm-up.

*Agreement*: denoising, deblurring and a masked Fourier transform, 24 x 24 pixels: means and widths of 90 % intervals of
blocks against those of a chain of other random numbers and several times the length. Differences of means are parts of
the width.
"""

from __future__ import annotations

import time
from typing import Annotated

import deepinv
import torch
import typer
from deepinv.physics.functional import gaussian_blur
from harness import RESULTS, Out, Threads, conditions, table, write
from torch import Tensor

import icgn
from icgn.datasets import add_noise, bundled
from icgn.uncertainty import PosteriorSamples, sample_posterior
from icgn.uncertainty.diagnostics import mean_ess

MODELS = ("conditional-gray", "ridge-gray")
SIGMA = 25 / 255
WORK, AGREEMENT = 64, 24


def main(
    ess: Annotated[float, typer.Option(help="Least effective sample size of a block, for the work.")] = 100.0,
    agreed: Annotated[float, typer.Option(help="The same, for the agreement.")] = 800.0,
    longer: Annotated[float, typer.Option(help="How many times that the long chain has.")] = 2.0,
    limit: Annotated[int, typer.Option(help="Gradients of a chain, at most.")] = 60_000,
    threads: Threads = 1,
    out: Out = None,
) -> None:
    """Measure both, print the tables and write them."""
    torch.set_num_threads(threads)
    work = []
    for model in MODELS:
        work.append(worked(model, ess, limit))
        print(*work[-1], flush=True)
    rows = []
    for name in PROBLEMS:
        rows.append(compared(name, agreed, longer, limit))
        print(*rows[-1], flush=True)
    heads = ("model", "median", "worst block", "median pixel", "f", "warm-up", "R-hat", "taken", "seconds")
    both = ("problem", "means, RMS", "means, worst", "widths, RMS", "widths, worst", "ESS", "ESS of the long", "median")
    text = "\n\n".join((table(heads, work), table(both, rows)))
    print(text)
    write(
        out or RESULTS / "uncertainty",
        {"sampling.md": text, "sampling.json": {**conditions("deepinv"), "work": work, "agreement": rows}},
    )


def crop(side: int) -> Tensor:
    """A part of a photograph, (1, 1, side, side)."""
    return bundled(gray=True).find("camera").image[None, :, 100 : 100 + side, 180 : 180 + side]


def denoising(model: str, side: int) -> icgn.Problem:
    """White noise of 25 gray levels."""
    y = add_noise(crop(side), SIGMA, seed=0)
    return icgn.Problem(y, deepinv.physics.Denoising(), icgn.load_pretrained(model), sigma=SIGMA)


def deblurring() -> icgn.Problem:
    """A Gaussian blur of 1 pixel, circular, noise of 5 gray levels."""
    kernel = gaussian_blur(sigma=(1.0, 1.0))
    physics = deepinv.physics.BlurFFT((1, AGREEMENT, AGREEMENT), filter=kernel)
    y = add_noise(physics.A(crop(AGREEMENT)), 5 / 255, seed=0)
    return icgn.Problem(y, physics, icgn.load_pretrained("ridge-gray"), sigma=10 / 255, noise=5 / 255)


def masked() -> icgn.Problem:
    """Half of the frequencies, all low ones, noise of 5 gray levels; the real and the imaginary part are channels."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(AGREEMENT, AGREEMENT, generator=generator) < 0.5).float()
    near = torch.fft.fftfreq(AGREEMENT).abs() < 0.1
    mask[near[:, None] & near[None]] = 1.0

    def forward(x: Tensor, **_: object) -> Tensor:
        z = mask * torch.fft.fft2(x[:, 0], norm="ortho")
        return torch.stack([z.real, z.imag], 1)

    def adjoint(y: Tensor, **_: object) -> Tensor:
        return torch.fft.ifft2(mask * torch.complex(y[:, 0], y[:, 1]), norm="ortho").real[:, None]

    physics = deepinv.physics.LinearPhysics(A=forward, A_adjoint=adjoint)
    y = mask * add_noise(physics.A(crop(AGREEMENT)), 5 / 255, seed=0)
    return icgn.Problem(y, physics, icgn.load_pretrained("ridge-gray"), sigma=10 / 255, noise=5 / 255)


PROBLEMS = {
    "denoising, conditional-gray": lambda: denoising("conditional-gray", AGREEMENT),
    "deblurring, ridge-gray": deblurring,
    "masked Fourier, ridge-gray": masked,
}


def drawn(problem: icgn.Problem, ess: float, limit: int, seed: int) -> PosteriorSamples:
    """Draws until the worst block has an effective sample size."""
    solution = icgn.solve(problem, gap_tol=1e-3, max_iter=300)
    return sample_posterior(problem, solution, ess=ess, rhat=1.05, max_gradients=limit, warmup=200, seed=seed)


def worked(model: str, ess: float, limit: int) -> tuple[str, ...]:
    """The row of a model."""
    begun = time.process_time()
    found = drawn(denoising(model, WORK), ess, limit, seed=0)
    seconds = time.process_time() - begun
    state = found.state
    spent = len(state.x) * state.tried * max(1, round(state.trajectory / state.step))
    blocks = spent / mean_ess(found.block_means().flatten(2).double().numpy())
    pixels = spent / mean_ess(found.draws.flatten(2).double().numpy())
    energy = spent / mean_ess(torch.stack(state.energies, 1)[..., None].numpy())
    numbers = (float(torch.from_numpy(blocks).median()), blocks.max(), float(torch.from_numpy(pixels).median()))
    warm = found.gradients - spent // len(state.x)
    cells = (*numbers, energy[0])
    return (
        model,
        *(f"{n:.1f}" for n in cells),
        str(warm),
        f"{float(found.rhat.max()):.3f}",
        f"{found.acceptance:.2f}",
        f"{seconds:.0f}",
    )


def compared(name: str, ess: float, longer: float, limit: int) -> tuple[str, ...]:
    """The row of a problem."""
    problem = PROBLEMS[name]()
    found, long = (drawn(problem, size, limit, seed) for size, seed in ((ess, 0), (longer * ess, 1)))
    (low, high), (first, last) = found.block_intervals(), long.block_intervals()
    width = last - first
    means = (found.block_means().mean((0, 1)) - long.block_means().mean((0, 1))) / width
    widths = (high - low) / width - 1
    parts = (means.square().mean().sqrt(), means.abs().max(), widths.square().mean().sqrt(), widths.abs().max())
    sizes = (f"{float(s.ess.min()):.0f}" for s in (found, long))
    return (name, *(f"{float(p):.2%}" for p in parts), *sizes, f"{found.per_draw:.1f}")


if __name__ == "__main__":
    typer.run(main)
