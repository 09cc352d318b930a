"""
Denoise a photograph as a camera wrote it
=========================================

The noise of a photograph is not white: a camera computes two of three colours of each pixel, smooths and compresses.
Here a camera is simulated, or a real shot is taken whose truth, the mean of many, is known. What the noise is is found
from the picture alone.

    python demos/photograph.py [FOLDER] [--quick] [--pair NOISY CLEAN]
"""

import argparse
from pathlib import Path

import deepinv
import torch

import icgn
from icgn.datasets import (
    Picture,
    bundled,
    difference,
    estimate_sigma,
    quality,
    read_picture,
    simulate_camera,
    visible_gain,
)
from icgn.pictures import restore_picture

parser = argparse.ArgumentParser(description="Denoise a photograph as a camera wrote it.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a small picture")
parser.add_argument("--pair", nargs=2, type=Path, metavar=("NOISY", "CLEAN"), help="a real shot and its truth")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side = 96 if options.quick else 256

# %%
# A shot of a simulated camera, or a real one.
if options.pair:
    noisy, clean = (read_picture(path).pixels[:, :side, :side] for path in options.pair)
else:
    scene = bundled().find("coffee").image[:, 60 : 60 + side, 120 : 120 + side]
    shot = simulate_camera(scene, 8 / 255, torch.Generator().manual_seed(4))
    noisy, clean = shot.noisy, shot.clean

# %%
# What is found in it, in words; and what the noise of the shot really is.
found = icgn.estimate_noise(noisy)
true = (noisy - clean).square().mean().sqrt()
print(f"found: {found.text(255, 'gray levels')}; {255 * found.sigma:.3g} are asked to be removed")
print(f"true: {255 * true:.3g} gray levels")

# %%
# The same in one call. The problem is convex given what was found, and the distance to its minimizer is certified.
restored = restore_picture(Picture(noisy), tol=1e-3)
print(f"{restored.status.name}, within {255 * restored.rms_distance:.2g} gray levels of the minimizer")

# %%
# An estimator for white noise looks at the finest details, where a camera has left little, and finds too little.
level = max(estimate_sigma(noisy), 1 / 255)
print(f"an estimator for white noise finds {255 * level:.3g} gray levels")
white = icgn.denoise(noisy[None], level, tol=1e-3).x[0]

# %%
# The pictures, and what was removed, enlarged.
x = restored.picture.pixels
values = [quality(p.clamp(0, 1), clean).psnr for p in (noisy, white, x)]
print("PSNR: noisy {:.2f}, as white noise {:.2f}, as found {:.2f} dB".format(*values))
gain = visible_gain(noisy, x)
deepinv.utils.plot(
    [p[None].clamp(0, 1) for p in (noisy, white, x, difference(noisy, x, gain), clean)],
    ["noisy", "as white noise", "as found", f"difference x {gain:g}", "clean"],
    subtitles=[*(f"{v:.2f} dB" for v in values), "", ""], rescale_mode="clip", vmin=0, vmax=1,
    figsize=(15, 3.4), show=False, save_fn=options.folder / "photograph.png", dpi=120,
)  # fmt: skip
