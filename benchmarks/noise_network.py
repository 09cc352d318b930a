"""Train the network that finds noise levels, on simulated noise, and write its weights with their card.

    python benchmarks/noise_network.py --bsds BSDS500 --steps 4000 --out RUN

Scenes are the pictures of BSDS500 train and test. A part is photographed by simulated cameras
(:func:`icgn.datasets.simulate_camera`); the others get white noise, noise that grows with the brightness, noise that is
blurred or enlarged with its picture, or white noise compressed by JPEG; a few are pages of text or have one colour. A
third is gray. The loss is Huber's of the logarithms of the levels: of channels, luma and blocks, and of what to remove.
It goes on from RUN if that is there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import typer
from harness import Threads
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from icgn.datasets import bsds500, luma, neighbour_correlation, scaled_luma, simulate_camera
from icgn.datasets.mosaic import bayer_places, compressed, interpolated
from icgn.functionals.noise import removal
from icgn.pictures.noise_network import BLOCK, NoiseNetwork

SIDE = 128
BATCH = 12
LOW, HIGH = 0.3 / 255, 40 / 255

Noisy = tuple[Tensor, Tensor]
"""A picture (3, H, W) and its noise."""


def white(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """White noise."""
    return clean, sigma * torch.randn(clean.shape, generator=g)


def growing(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """Noise whose variance grows with the brightness, in part or wholly."""
    share = float(torch.rand((), generator=g))
    variance = share * clean / clean.mean().clamp_min(0.05) + (1 - share)
    return clean, sigma * variance.sqrt() * torch.randn(clean.shape, generator=g)


def blurred(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """White noise smoothed by a Gaussian, of the level asked for."""
    radius = 0.3 + 1.7 * float(torch.rand((), generator=g))
    places = torch.arange(-6, 7)
    line = torch.exp(-0.5 * (places / radius) ** 2)
    line = (line / line.norm()).reshape(1, 1, 1, -1)
    noise = F.pad(torch.randn(clean.shape, generator=g)[:, None], (6, 6, 6, 6), mode="reflect")
    return clean, sigma * F.conv2d(F.conv2d(noise, line), line.transpose(2, 3))[:, 0]


def enlarged(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """A picture enlarged together with its white noise."""
    part = round(SIDE / (1.2 + 1.3 * float(torch.rand((), generator=g))))
    small = clean[:, :part, :part]
    mode = "bicubic" if torch.rand((), generator=g) < 0.6 else "bilinear"
    noise = sigma * torch.randn(small.shape, generator=g)
    x, n = (F.interpolate(p[None], size=(SIDE, SIDE), mode=mode)[0] for p in (small, noise))
    return x, n


def jpeg(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """White noise, the noisy picture being compressed by JPEG."""
    quality = 60 + int(torch.randint(39, (), generator=g))
    noisy = clean + sigma * torch.randn(clean.shape, generator=g)
    return clean, compressed(noisy, quality) - clean


def camera(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """The noise of a simulated camera."""
    shot = simulate_camera(clean, sigma, g)
    return shot.clean, shot.noisy - shot.clean


def page(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """White noise on a page of text, or on one colour."""
    paper, ink = 0.9 + 0.1 * float(torch.rand((), generator=g)), 0.3 * float(torch.rand((), generator=g))
    image = Image.new("L", (SIDE, SIDE), round(255 * paper))
    draw = ImageDraw.Draw(image)
    size = 9 + int(torch.randint(14, (), generator=g))
    letters = "".join(chr(97 + int(i)) if i < 26 else " " for i in torch.randint(30, (400,), generator=g))
    for row in range(0, SIDE, size + 3):
        draw.text((4, row), letters[row : row + 60], fill=round(255 * ink), font=ImageFont.load_default(size))
    x = torch.from_numpy(np.array(image)).float().expand(3, -1, -1) / 255
    if torch.rand((), generator=g) < 0.3:
        x = torch.full_like(x, paper)
    return white(x, sigma, g)


def mosaic(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """White noise of a Bayer mosaic, the colours being interpolated bilinearly."""
    places = bayer_places(SIDE, SIDE)
    noise = 1.6 * sigma * torch.randn(1, SIDE, SIDE, generator=g)
    return interpolated((clean * places).sum(0, keepdim=True), places), interpolated(noise, places)


KINDS: list[tuple[float, Callable[[Tensor, float, torch.Generator], Noisy]]] = [
    (0.34, camera), (0.15, white), (0.08, growing), (0.08, blurred), (0.08, enlarged), (0.13, jpeg), (0.05, page),
    (0.09, mosaic),
]  # fmt: skip


def example(scenes: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """A noisy picture and its noise, (3, SIDE, SIDE)."""
    g = torch.Generator().manual_seed(seed)
    scene = scenes[int(torch.randint(len(scenes), (), generator=g))]
    top, left = (int(torch.randint(n - SIDE + 1, (), generator=g)) for n in scene.shape[1:])
    clean = scene[:, top : top + SIDE, left : left + SIDE].float() / 255
    draws = torch.rand(5, generator=g)
    if draws[4] < 0.5:
        clean = clean.transpose(1, 2)
    sigma = LOW * (HIGH / LOW) ** float(draws[0])
    rest, kind = float(draws[1]), KINDS[-1][1]
    for part, candidate in KINDS:
        if rest < part:
            kind = candidate
            break
        rest -= part
    clean, noise = kind(clean, sigma, g)
    if draws[2] < 0.33:
        clean, noise = (luma(p).expand(3, -1, -1) for p in (clean, noise))
    noisy = clean + noise
    if draws[3] < 0.8:
        noisy = (noisy.clamp(0, 1) * 255).round() / 255
    return noisy, noisy - clean


def loss(network: NoiseNetwork, noisy: Tensor, noise: Tensor) -> Tensor:
    """Huber's loss of logarithms: levels of channels and blocks, and the level to remove."""
    found = network(noisy)
    noise = noise - noise.mean((2, 3), keepdim=True)
    power = noise.square()
    correlation = torch.tensor([neighbour_correlation(n) for n in noise])
    wanted = torch.tensor([removal(1.0, float(r)) for r in correlation]) * power.mean((1, 2, 3)).sqrt()
    local = F.avg_pool2d(F.avg_pool2d(power.mean(1, keepdim=True), BLOCK), 5, 1, 2, count_include_pad=False)
    pairs = [
        (found.levels.square().mean((2, 3)), power.mean((2, 3)), 1.0),
        (found.levels.square().mean((1, 2, 3)), power.mean((1, 2, 3)), 1.0),
        (found.luma.square().mean((1, 2, 3)), torch.stack([scaled_luma(n).square().mean() for n in noise]), 1.0),
        (found.removal.square().mean((1, 2, 3)), wanted.square(), 1.0),
        (found.levels.square().mean(1, keepdim=True), local, 0.3),
    ]
    tiny = (0.1 / 255) ** 2
    parts = [w * F.huber_loss(0.5 * (a + tiny).log(), 0.5 * (b + tiny).log(), delta=0.3) for a, b, w in pairs]
    return torch.stack(parts).sum()


def main(
    bsds: Annotated[Path, typer.Option(help="Folder of BSDS500.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    steps: Annotated[int, typer.Option(min=1)] = 4000,
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 2e-3,
    threads: Threads = 1,
) -> None:
    """Train, and write weights and card once a minute."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    scenes = [(s.image * 255).round().byte() for split in ("train", "test") for s in bsds500(bsds, split=split)]
    network = NoiseNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, step, mean, written = out / "checkpoint.pt", 0, math.nan, time.monotonic()
    if checkpoint.exists():
        content = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        step, mean = content["step"], content["loss"]
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        pairs = [example(scenes, step * BATCH + i) for i in range(BATCH)]
        value = loss(network, torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs]))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, mean = step + 1, float(value.detach()) if math.isnan(mean) else 0.99 * mean + 0.01 * float(value.detach())
        if step == steps or time.monotonic() - written > 60:
            written = time.monotonic()
            state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "loss": mean}
            torch.save(state, checkpoint)
            save_file(network.state_dict(), out / "noise-network.safetensors")
            card = {"steps": step, "of": steps, "batch": BATCH, "side": SIDE, "rate": rate, "loss": round(mean, 4),
                    "data": "BSDS500, train and test"}  # fmt: skip
            (out / "noise-network.json").write_text(json.dumps(card, indent=2) + "\n")
            print(card, flush=True)


if __name__ == "__main__":
    typer.run(main)
