"""Train the networks that find noise levels, on simulated noise, and write their weights with their cards.

    python benchmarks/noise_network.py --bsds BSDS500 --steps 4000 --out RUN
    python benchmarks/noise_network.py --bsds BSDS500 --steps 6000 --out RUN-GRAY --gray

Scenes are the pictures of BSDS500 train and test. A part is photographed by simulated cameras
(:func:`icgn.datasets.simulate_camera`); the others get white noise, noise that grows with the brightness, noise that is
blurred or enlarged with its picture, or white noise compressed by JPEG; a few are pages of text or have one colour. The
loss is Huber's of the logarithms of the levels: of channels, luma and blocks, and of what to remove. It goes on from
RUN if that is there.

For gray pictures a third of the noise is that of the luma of photographs as the noise reduction of cameras leaves it
(`processed`), and half of the scenes are enlarged: photographs are smooth at the size at which cameras write them.
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
    return clean, sigma * grain(clean, 0.3 + 1.7 * float(torch.rand((), generator=g)), g)


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


def processed(clean: Tensor, sigma: float, g: torch.Generator) -> Noisy:
    """Gray noise as a camera leaves it: of two sizes of grain, of any dependence on brightness, stronger at detail."""
    draws = torch.rand(9, generator=g).tolist()
    gray = luma(clean)
    noise = grain(gray, 0.45 + 0.6 * draws[0], g) + 1.5 * draws[1] * grain(gray, 1 + 2.5 * draws[2], g)
    noise = noise + 0.1 * draws[3] * torch.randn(gray.shape, generator=g)
    noise = noise * (gray.clamp_min(0) + 0.05) ** (1.2 * draws[4] - 0.6)
    detail = smoothed((gray - smoothed(gray, 1.5)).abs(), 2.0)
    flat = 0.15 + 0.85 * draws[5]
    noise = noise * (flat + (1 - flat) * (detail / (0.01 + 0.03 * draws[6])).clamp(0, 1))
    if draws[7] < 0.4:
        gray, noise = (p + draws[7] * (p - smoothed(p, 1.0)) for p in (gray, noise))
    noise = sigma * noise / noise.square().mean().sqrt()
    if draws[8] < 0.4:
        quality = 90 + int(torch.randint(9, (), generator=g))
        noise = luma(compressed((gray + noise).expand(3, -1, -1), quality)) - gray
    return gray.expand(3, -1, -1), noise.expand(3, -1, -1)


def grain(like: Tensor, radius: float, g: torch.Generator) -> Tensor:
    """White noise smoothed by a Gaussian, of deviation 1."""
    noise = smoothed(torch.randn(like.shape, generator=g), radius)
    return noise / noise.square().mean().sqrt()


def smoothed(picture: Tensor, radius: float) -> Tensor:
    """A picture (C, H, W) convolved with a Gaussian."""
    places = torch.arange(-9, 10)
    line = torch.exp(-0.5 * (places / radius) ** 2)
    line = (line / line.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(picture[:, None], (9, 9, 9, 9), mode="reflect")
    return F.conv2d(F.conv2d(padded, line), line.transpose(2, 3))[:, 0]


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


Kind = Callable[[Tensor, float, torch.Generator], Noisy]
KINDS: list[tuple[float, Kind]] = [
    (0.34, camera), (0.15, white), (0.08, growing), (0.08, blurred), (0.08, enlarged), (0.13, jpeg), (0.05, page),
    (0.09, mosaic),
]  # fmt: skip
GRAY_KINDS: list[tuple[float, Kind]] = [
    (0.34, processed), (0.14, camera), (0.14, white), (0.06, growing), (0.06, blurred), (0.06, enlarged), (0.10, jpeg),
    (0.04, page), (0.06, mosaic),
]  # fmt: skip


def example(scenes: list[Tensor], seed: int, *, gray: bool) -> Noisy:
    """A noisy picture and its noise, (C, SIDE, SIDE)."""
    g = torch.Generator().manual_seed(seed)
    scene = scenes[int(torch.randint(len(scenes), (), generator=g))]
    draws = torch.rand(5, generator=g)
    clean = cut(scene, 1 + 4 * max(float(draws[2]) - 0.4, 0) if gray else 1, g)
    if draws[4] < 0.5:
        clean = clean.transpose(1, 2)
    sigma = LOW * (HIGH / LOW) ** float(draws[0])
    rest, kinds = float(draws[1]), GRAY_KINDS if gray else KINDS
    kind = kinds[-1][1]
    for part, candidate in kinds:
        if rest < part:
            kind = candidate
            break
        rest -= part
    clean, noise = kind(clean, sigma, g)
    if gray or draws[2] < 0.33:
        clean, noise = (luma(p).expand(1 if gray else 3, -1, -1) for p in (clean, noise))
    noisy = clean + noise
    if draws[3] < 0.8:
        noisy = (noisy.clamp(0, 1) * 255).round() / 255
    return noisy, noisy - clean


def cut(scene: Tensor, factor: float, g: torch.Generator) -> Tensor:
    """A part of a scene of 8 bits, enlarged by a factor, (3, SIDE, SIDE), in [0, 1]."""
    side = math.ceil(SIDE / factor)
    top, left = (int(torch.randint(n - side + 1, (), generator=g)) for n in scene.shape[1:])
    part = scene[:, top : top + side, left : left + side].float() / 255
    if side == SIDE:
        return part
    return F.interpolate(part[None], size=(SIDE, SIDE), mode="bicubic")[0].clamp(0, 1)


Example = tuple[Tensor, Tensor, Tensor]
"""Amplitudes (F, h, w) of a noisy picture; squared levels of the channels, of all, the luma, and to
be removed, (C + 3,); and those of blocks with their neighbours, (1, h, w)."""


def measured(network: NoiseNetwork, noisy: Tensor, noise: Tensor) -> Example:
    """What the network sees of a picture (C, H, W), and what it should find."""
    noise = noise - noise.mean((1, 2), keepdim=True)
    power = noise.square()
    whole = power.mean()
    wanted = whole * removal(1.0, neighbour_correlation(noise)) ** 2
    levels = torch.cat([power.mean((1, 2)), torch.stack([whole, scaled_luma(noise).square().mean(), wanted])])
    blocks = F.avg_pool2d(power.mean(0, keepdim=True), BLOCK)
    local = F.avg_pool2d(blocks, 5, 1, 2, count_include_pad=False)
    return network.amplitudes(noisy[None])[0], levels, local


def loss(network: NoiseNetwork, amplitudes: Tensor, levels: Tensor, local: Tensor) -> Tensor:
    """Huber's loss of logarithms: levels of channels and blocks, and the level to remove."""
    found = network.judged(amplitudes)
    squares = found.levels.square()
    means = squares.mean((2, 3)), squares.mean((1, 2, 3)), found.luma.square().mean((1, 2, 3))
    removed = found.removal.square().mean((1, 2, 3))
    channels = network.channels
    pairs = [
        (means[0], levels[:, :channels], 1.0),
        (means[1], levels[:, channels], 1.0),
        (means[2], levels[:, channels + 1], 1.0),
        (removed, levels[:, channels + 2], 1.0),
        (squares.mean(1, keepdim=True), local, 0.3),
    ]
    tiny = (0.1 / 255) ** 2
    parts = [w * F.huber_loss(0.5 * (a + tiny).log(), 0.5 * (b + tiny).log(), delta=0.3) for a, b, w in pairs]
    return torch.stack(parts).sum()


def pool(network: NoiseNetwork, scenes: list[Tensor], size: int, gray: bool) -> list[Tensor]:
    """So many examples, each part of them in one tensor."""
    with torch.no_grad():
        made = [measured(network, *example(scenes, seed, gray=gray)) for seed in range(size)]
    return [torch.stack(part) for part in zip(*made, strict=True)]


def main(
    bsds: Annotated[Path, typer.Option(help="Folder of BSDS500.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    steps: Annotated[int, typer.Option(min=1)] = 4000,
    rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 2e-3,
    examples: Annotated[int, typer.Option(min=BATCH, help="Pictures that are made once and seen again.")] = 6000,
    gray: Annotated[bool, typer.Option(help="Train the network for gray pictures.")] = False,
    threads: Threads = 1,
) -> None:
    """Train, and write weights and card once a minute."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    scenes = [(s.image * 255).round().byte() for split in ("train", "test") for s in bsds500(bsds, split=split)]
    network = NoiseNetwork(1 if gray else 3)
    parts = pool(network, scenes, examples, gray)
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
        chosen = torch.randint(examples, (BATCH,), generator=torch.Generator().manual_seed(step))
        value = loss(network, *(part[chosen] for part in parts))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, mean = step + 1, float(value.detach()) if math.isnan(mean) else 0.99 * mean + 0.01 * float(value.detach())
        if step == steps or time.monotonic() - written > 60:
            written = time.monotonic()
            state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "loss": mean}
            torch.save(state, checkpoint)
            name = "noise-network-gray" if gray else "noise-network"
            save_file(network.state_dict(), out / f"{name}.safetensors")
            card = {"steps": step, "of": steps, "examples": examples, "batch": BATCH, "side": SIDE, "rate": rate,
                    "loss": round(mean, 4), "data": "BSDS500, train and test"}  # fmt: skip
            (out / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")
            print(card, flush=True)


if __name__ == "__main__":
    typer.run(main)
