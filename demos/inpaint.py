"""
Fill in missing pixels
======================

Half of the pixels are lost, and the others are noisy. The data say nothing about a lost pixel, and a distance to the
minimizer cannot be proved for it; the gap of the objective can, because intensities are bounded. The certificate is
followed through the iterations: it needs the current picture only, and holds wherever one stops.

    python demos/inpaint.py [FOLDER] [--quick]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import deepinv
import torch
from matplotlib import pyplot as plt

import icgn
from icgn.datasets import add_noise, bundled, quality
from icgn.solvers import Event, certify

parser = argparse.ArgumentParser(description="Fill in missing pixels.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figures go")
parser.add_argument("--quick", action="store_true", help="a small picture, solved roughly")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, gap_tol = (48, 0.1) if options.quick else (160, 1e-4)

# %%
# The measurement.
noise = 2.55 / 255
clean = bundled(gray=True).find("chelsea").image[None, :, 60 : 60 + side, 120 : 120 + side].double()
mask = (torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) < 0.5).double()
physics = deepinv.physics.Inpainting((1, side, side), mask=mask[0]).double()
y = mask * add_noise(clean, noise, seed=0)

# %%
# A conditional network is convex once its condition is known. ``solve`` computes one from a first solution; given, it
# poses one convex problem.
regularizer = icgn.load_pretrained("conditional-gray")
problem = icgn.Problem(y, physics, regularizer, sigma=13.5 / 255, noise=noise, box=(0, 1))
solution = icgn.solve(problem, gap_tol=gap_tol)
problem = replace(problem, condition=solution.condition)

# %%
# The same problem again, with a certificate for every second picture on the way.
objective, steps, proofs = problem.objective, [], []


def follow(event: Event) -> None:
    """Certify the picture at an iteration."""
    if event.iteration % 2 == 0:
        steps.append(event.iteration)
        proofs.append(certify(objective, event.x, box=problem.box))


again = icgn.solve(problem, gap_tol=gap_tol, callback=follow)
least = float(again.certificate.objective[0] - again.certificate.objective_gap[0])
for step, proof in list(zip(steps, proofs, strict=True))[:: max(1, len(steps) // 8)]:
    print(f"iteration {step:4d}: F(x) within {100 * float(proof.relative_gap[0]):8.4f} % of its minimum")

# %%
# The certified gap, and how far the objective is above the last lower bound of its minimum: the true gap, but for what
# the last certificate leaves open.
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.semilogy(steps, [float(p.objective_gap[0]) for p in proofs], label="certified: $F(x) - F^*$ is at most this")
ax.semilogy(
    steps, [float(p.objective[0]) - least for p in proofs], "--", label="$F(x)$ minus the last lower bound of $F^*$"
)
ax.set(xlabel="iteration", ylabel="gap of the objective")
ax.grid(alpha=0.3)
ax.legend()
figure.savefig(options.folder / "inpaint_certificate.png", dpi=120)

# sphinx_gallery_thumbnail_number = 2

# %%
# The pictures.
pictures = {"known pixels": y, "filled in": solution.x, "clean": clean}
labels = ["half of them", f"{quality(solution.x[0], clean[0]).psnr:.2f} dB", ""]
print(f"PSNR {labels[1]}")
deepinv.utils.plot(
    list(pictures.values()), list(pictures), subtitles=labels, rescale_mode="clip", vmin=0, vmax=1,
    figsize=(9, 3.4), show=False, save_fn=options.folder / "inpaint.png", dpi=120,
)  # fmt: skip
