"""
Deblur a photograph
===================

A shaken camera: the picture is convolved with a line of nine pixels, and noise of 2.55 gray levels is added. The blur
is hardly invertible, so that no distance to the minimizer can be proved; the certificate bounds the gap of the
objective instead. Total variation, the classical convex regularizer, is restored by the same solver.

    python demos/deblur.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv

import icgn
from icgn.datasets import add_noise, bundled, quality
from icgn.pictures.kernels import read_kernel

parser = argparse.ArgumentParser(description="Deblur a photograph.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a small picture, solved roughly")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, gap_tol = (48, 0.1) if options.quick else (160, 1e-3)

# %%
# The measurement. In float64, for the rounding of the Fourier transform is near the gap that is to be proved.
noise = 2.55 / 255
clean = bundled(gray=True).find("camera").image[None, :, 80 : 80 + side, 180 : 180 + side].double()
physics = deepinv.physics.BlurFFT((1, side, side), filter=read_kernel("motion:9,30")).double()
y = add_noise(physics.A(clean), noise, seed=0)

# %%
# Minimize :math:`\sigma^2 |A x - y|^2 / (2\,\text{noise}^2) + R(x; \sigma)` over intensities in [0, 1]. Sigma, the
# noise that the regularizer is asked to remove, is several times that of the measurement: deblurring amplifies it.
# These levels were found on other pictures, by ``python benchmarks/inverse.py``.
regularizers = {
    "total variation": (icgn.TotalVariation(eps=3e-3), 16 / 255),
    "ridge network": (icgn.load_pretrained("ridge-gray-small"), 19 / 255),
    "conditional network": (icgn.load_pretrained("conditional-gray"), 22.6 / 255),
}
pictures = {"blurred": y}
for name, (regularizer, sigma) in regularizers.items():
    problem = icgn.Problem(y, physics, regularizer, sigma=sigma, noise=noise, box=(0, 1))
    solution = icgn.solve(problem, gap_tol=gap_tol)
    pictures[name] = solution.x
    gap = float(solution.certificate.relative_gap[0])
    iterations, seconds = int(solution.stats.iterations[0]), solution.stats.seconds
    print(f"{name:20s} F(x) within {100 * gap:.3f} % of its minimum, {iterations} iterations, {seconds:.1f} s")
pictures["clean"] = clean

# %%
# The pictures.
labels = [f"{quality(x[0], clean[0]).psnr:.2f} dB" for x in pictures.values()]
labels[-1] = ""
print(dict(zip(pictures, labels, strict=True)))
deepinv.utils.plot(
    list(pictures.values()), list(pictures), subtitles=labels, rescale_mode="clip", vmin=0, vmax=1,
    figsize=(12, 3), show=False, save_fn=options.folder / "deblur.png", dpi=120,
)  # fmt: skip
