"""
Magnetic resonance imaging
==========================

A quarter of the lines of k-space of a complex picture: the phantom of Shepp and Logan with a smooth phase. Complex
pictures have two channels, real and imaginary part; a gray network takes each. Without a box nothing could be proved,
for most of the spectrum was not seen: the box [-1, 1] of both parts makes a certificate possible.

    python demos/mri.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from deepinv.physics.generator import GaussianMaskGenerator
from skimage.data import shepp_logan_phantom

import icgn
from icgn.datasets import add_noise, quality

parser = argparse.ArgumentParser(description="Magnetic resonance imaging with a quarter of the data.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a small picture, solved roughly")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, gap_tol = (48, 0.1) if options.quick else (128, 1e-3)

# %%
# The measurement. Lines are drawn at random, denser in the middle.
noise = 2.55 / 255
phantom = torch.from_numpy(shepp_logan_phantom())[None, None]
modulus = F.interpolate(phantom, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
t = torch.linspace(-1, 1, side, dtype=torch.float64)
phase = 0.8 * (t[:, None] + t[None, :].square())
clean = torch.cat([modulus * phase.cos(), modulus * phase.sin()], 1)
mask = GaussianMaskGenerator((2, side, side), acceleration=4).step(batch_size=1, seed=0)["mask"].double()
physics = deepinv.physics.MRI(mask=mask, img_size=(side, side)).double()
y = mask * add_noise(physics.A(clean), noise, seed=0)

# %%
# The modulus is piecewise constant, for which total variation is made; the two parts are not, for the phase gives them
# slopes. The network has learned from photographs. Sigma and weight were found on other pictures, by
# ``python benchmarks/inverse.py``.
conditional = icgn.PerChannel(icgn.load_pretrained("conditional-gray"))
regularizers = {
    "total variation": (icgn.TotalVariation(eps=3e-3), 8 / 255, 1.41),
    "conditional network": (conditional, 13.5 / 255, 0.35),
}
pictures = {"zero-filled": physics.A_adjoint(y)}
for name, (regularizer, sigma, weight) in regularizers.items():
    problem = icgn.Problem(y, physics, regularizer, sigma=sigma, noise=noise, weight=weight, box=(-1, 1))
    solution = icgn.solve(problem, gap_tol=gap_tol)
    pictures[name] = solution.x
    gap = float(solution.certificate.relative_gap[0])
    iterations, seconds = int(solution.stats.iterations[0]), solution.stats.seconds
    print(f"{name:20s} F(x) within {100 * gap:.3f} % of its minimum, {iterations} iterations, {seconds:.1f} s")

# %%
# What is shown is the modulus; the mask is that of k-space, the low frequencies in the middle.
shown = {name: torch.linalg.vector_norm(x, dim=1, keepdim=True) for name, x in pictures.items()}
labels = [f"{quality(x[0], modulus[0]).psnr:.2f} dB" for x in shown.values()]
print(dict(zip(shown, labels, strict=True)))
shown = {"lines measured": mask[:, :1], **shown, "clean": modulus}
deepinv.utils.plot(
    list(shown.values()), list(shown), subtitles=[f"{100 * float(mask.mean()):.0f} %", *labels, ""],
    rescale_mode="clip", vmin=0, vmax=1, figsize=(12, 3), show=False, save_fn=options.folder / "mri.png", dpi=120,
)  # fmt: skip
