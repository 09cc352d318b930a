"""
Denoise a photograph, and prove how close the result is
=======================================================

A bundled photograph with white noise of 25 gray levels, restored by the shipped network, with the certificate after
every few iterations: the proved distance to the global minimizer against the true one.

    python demos/denoise.py [FOLDER]
"""

import sys
from dataclasses import replace
from pathlib import Path

import deepinv

import icgn
from icgn.datasets import add_noise, bundled, comparison, difference, quality, visible_gain, write_picture

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
folder.mkdir(parents=True, exist_ok=True)

# %%
# A noisy photograph. Intensities are in [0, 1], batches (B, C, H, W).
sigma = 25 / 255
clean = bundled(gray=True).find("camera").image[:, 40:296, 110:366]
y = add_noise(clean, sigma, seed=0)[None]

# %%
# The minimizer of 1/2 |x - y|^2 + R(x; sigma), to 1e-6, stands for the exact one.
regularizer = icgn.load_pretrained("conditional-gray")
problem = icgn.Problem(y, deepinv.physics.Denoising(), regularizer, sigma)
solution = icgn.solve(problem, tol=1e-6)
exact = solution.x

# %%
# The network is convex given a condition, which `solve` computed from a first solution. Fixed, it poses one convex
# problem.
problem = replace(problem, condition=solution.condition)

# %%
# Stop early: the certificate is an upper bound of the true distance, whenever we stop.
print("iterations   true RMS distance   certified")
for iterations in (4, 8, 16, 24, 32, 48):
    solution = icgn.solve(problem, tol=1e-6, max_iter=iterations)
    true = float((solution.x - exact).square().mean().sqrt())
    print(f"{iterations:10d}   {true:17.2e}   {float(solution.certificate.rms_distance[0]):9.2e}")

# %%
# The picture, and a figure.
x = exact[0].clamp(0, 1)
print(f"PSNR {quality(y[0], clean).psnr:.2f} dB -> {quality(x, clean).psnr:.2f} dB")
gain = visible_gain(y[0], x)
panels = [("noisy", y[0]), ("restored", x), (f"difference x {gain:g}", difference(y[0], x, gain)), ("clean", clean)]
write_picture(folder / "demo-denoise.png", comparison(panels))
