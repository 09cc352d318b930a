"""
Computed tomography from few views
==================================

Sixty views of a picture of 128 x 128 pixels, and then thirty: filtered back-projection, which inverts the operator
and knows nothing of pictures, total variation, and a learned regularizer. The operator is deepinv's; it computes in
float32 only, which the certificate says, and in which rounding may stop the solver before the gap that it was asked
for: the status says that then, and the gap that was reached is proved all the same.

    python demos/ct.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812

import icgn
from icgn.datasets import add_noise, bundled, quality

parser = argparse.ArgumentParser(description="Computed tomography from few views.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a small picture, solved roughly")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, gap_tol = (32, 0.1) if options.quick else (128, 1e-3)

# %%
# The picture, and what is to be compared. Sigma was found on other pictures, by ``python benchmarks/inverse.py``.
noise = 2.55 / 255
photograph = bundled(gray=True).find("coins").image[None, :, 20:276, 20:276]
clean = F.interpolate(photograph, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
regularizers = {
    "total variation": (icgn.TotalVariation(eps=3e-3), 22.6 / 255),
    "conditional network": (icgn.load_pretrained("conditional-gray"), 38.1 / 255),
}

# %%
# For each number of views a row of pictures. The physics is scaled to norm 1, by a power iteration from a random
# picture: a view of thirty is measured better than one of sixty, the same dose being given to fewer.
rows: list[list[torch.Tensor]] = []
labels = []
for views in (60, 30):
    torch.manual_seed(0)
    physics = deepinv.physics.Tomography(angles=views, img_width=side, normalize=True)
    y = add_noise(physics.A(clean), noise, seed=0)
    rows.append([physics.A_dagger(y)])
    for name, (regularizer, sigma) in regularizers.items():
        problem = icgn.Problem(y, physics, regularizer, sigma=sigma, noise=noise, box=(0, 1))
        solution = icgn.solve(problem, gap_tol=gap_tol)
        rows[-1].append(solution.x)
        gap = float(solution.certificate.relative_gap[0])
        iterations, precision = int(solution.stats.iterations[0]), solution.certificate.dtype
        print(f"{views} views, {name:20s} F(x) within {100 * gap:.3f} % of its minimum, {iterations} iterations,"
              f" {precision}, {solution.status[0].name}")  # fmt: skip
    labels.append([*(f"{views} views: {quality(x[0], clean[0]).psnr:.2f} dB" for x in rows[-1]), ""])
    rows[-1].append(clean)
    print(labels[-1][:-1])

# %%
# The pictures.
deepinv.utils.plot(
    [torch.cat(column) for column in zip(*rows, strict=True)],
    ["filtered back-projection", *regularizers, "clean"], subtitles=labels, rescale_mode="clip", vmin=0, vmax=1,
    figsize=(12, 6.6), fontsize=13, show=False, save_fn=options.folder / "ct.png", dpi=120,
)  # fmt: skip
