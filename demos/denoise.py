"""
Denoise a photograph, and prove how close the result is
=======================================================

A bundled photograph with white noise of 25 gray levels, restored by the shipped network, with the certificate after
every few iterations: the proved distance to the global minimizer against the true one.

    python demos/denoise.py [FOLDER] [--quick]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import deepinv
from matplotlib import pyplot as plt

import icgn
from icgn.datasets import add_noise, bundled, difference, quality, visible_gain

parser = argparse.ArgumentParser(description="Denoise a photograph, and prove how close the result is.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figures go")
parser.add_argument("--quick", action="store_true", help="a small picture")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side = 48 if options.quick else 256

# %%
# A noisy photograph. Intensities are in [0, 1], batches (B, C, H, W).
sigma = 25 / 255
clean = bundled(gray=True).find("camera").image[:, 40 : 40 + side, 110 : 110 + side]
y = add_noise(clean, sigma, seed=0)[None]

# %%
# The minimizer of :math:`\tfrac12 |x - y|^2 + R(x; \sigma)`, to 1e-6, stands for the exact one.
regularizer = icgn.load_pretrained("conditional-gray")
problem = icgn.Problem(y, deepinv.physics.Denoising(), regularizer, sigma)
solution = icgn.solve(problem, tol=1e-6)
exact = solution.x

# %%
# The network is convex given a condition, which ``solve`` computed from a first solution. Fixed, it poses one convex
# problem.
problem = replace(problem, condition=solution.condition)

# %%
# Stop early: the certificate is an upper bound of the true distance, whenever we stop.
counts, truths, bounds = (4, 8, 16, 24, 32, 48), [], []
print("iterations   true RMS distance   certified")
for iterations in counts:
    solution = icgn.solve(problem, tol=1e-6, max_iter=iterations)
    truths.append(float((solution.x - exact).square().mean().sqrt()))
    bounds.append(float(solution.certificate.rms_distance[0]))
    print(f"{iterations:10d}   {truths[-1]:17.2e}   {bounds[-1]:9.2e}")
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.semilogy(counts, bounds, "o-", label="certified")
ax.semilogy(counts, truths, "s--", label="true, from the picture to the minimizer")
ax.set(xlabel="iterations", ylabel="RMS distance, intensities")
ax.grid(alpha=0.3)
ax.legend()
figure.savefig(options.folder / "denoise_certificate.png", dpi=120)

# sphinx_gallery_thumbnail_number = 2

# %%
# The pictures; the difference is what was removed, enlarged.
x = exact[0].clamp(0, 1)
before, after = quality(y[0], clean).psnr, quality(x, clean).psnr
print(f"PSNR {before:.2f} dB -> {after:.2f} dB")
gain = visible_gain(y[0], x)
deepinv.utils.plot(
    [y, x, difference(y[0], x, gain), clean], ["noisy", "restored", f"difference x {gain:g}", "clean"],
    subtitles=[f"{before:.2f} dB", f"{after:.2f} dB", "", ""], rescale_mode="clip", vmin=0, vmax=1,
    figsize=(12, 3.4), show=False, save_fn=options.folder / "denoise.png", dpi=120,
)  # fmt: skip
