"""
Inside deepinv's pipeline
=========================

Every regularizer is a prior for the algorithms of deepinv, and the solver is one of its reconstruction models. Here
both restore the same blurred picture: deepinv's proximal gradient descent, FISTA and ADMM approach the minimizer
whose place the certificate of the solver proves. Then the model goes through deepinv's own test loop.

    python demos/inside_deepinv.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv
import torch
from deepinv.optim import ADMM, FISTA, L2, PGD
from deepinv.physics.functional import gaussian_blur
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, TensorDataset

import icgn
from icgn.datasets import add_noise, bundled, quality

parser = argparse.ArgumentParser(description="Regularizers and solver inside deepinv.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figures go")
parser.add_argument("--quick", action="store_true", help="a small picture and few iterations")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, counts, tol = (32, (1, 2), 1e-3) if options.quick else (64, (1, 2, 4, 8, 16), 1e-5)

# %%
# A mildly blurred picture: half of it is the sharp one, so that the blur is invertible, and a distance can be proved.
clean = bundled(gray=True).find("camera").image[None, :, 80 : 80 + side, 200 : 200 + side].double()
kernel = gaussian_blur(sigma=(1.5, 1.5)).double() / 2
kernel[..., kernel.shape[-2] // 2, kernel.shape[-1] // 2] += 0.5
physics = deepinv.physics.BlurFFT((1, side, side), filter=kernel).double()
y = add_noise(physics.A(clean), 0.03, seed=0)

# %%
# The minimizer of :math:`\tfrac12 |A x - y|^2 + R(x; \sigma)`, with the certificate.
regularizer = icgn.load_pretrained("ridge-gray-small").double()
sigma = 0.03
problem = icgn.Problem(y, physics, regularizer, sigma=sigma)
solution = icgn.solve(problem, tol=tol)
proved = float(solution.certificate.rms_distance[0])
print(f"minimizer found, proved to an RMS distance of {proved:.1e}")

# %%
# The same problem by algorithms of deepinv, with the regularizer as their prior.
figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for algorithm in (PGD, FISTA, ADMM):
    distances = []
    for count in counts:
        model = algorithm(
            data_fidelity=L2(), prior=regularizer, g_param=sigma, lambda_reg=1.0, stepsize=1.0, max_iter=count
        )
        with torch.no_grad():
            x = model(y, physics)
        distances.append(float((x - solution.x).square().mean().sqrt()))
    print(f"{algorithm.__name__:6s} after {counts[-1]} iterations: RMS distance {distances[-1]:.1e}")
    ax.loglog(counts, distances, "o-", label=f"deepinv.optim.{algorithm.__name__}")
ax.axhline(proved, color="black", linestyle="--", label="proved accuracy of the minimizer")
ax.set(xlabel="iterations", ylabel="RMS distance to icgn's minimizer")
ax.grid(alpha=0.3, which="both")
ax.legend()
figure.savefig(options.folder / "inside_deepinv.png", dpi=120)

# %%
# The solver as a model: deepinv's loop over a data set, with its metrics.
photographs = ("astronaut", "coffee", "rocket")[: 1 if options.quick else 3]
crops = [bundled(gray=True).find(name).image[:, 100 : 100 + side, 150 : 150 + side] for name in photographs]
x = torch.stack(crops).double()
noisy_physics = deepinv.physics.BlurFFT((1, side, side), filter=kernel).double()
noisy_physics.noise_model = deepinv.physics.GaussianNoise(0.03)
data = DataLoader(TensorDataset(x, add_noise(physics.A(x), 0.03, seed=1)), batch_size=3)
model = icgn.Reconstructor(regularizer, sigma=sigma)
metrics = [deepinv.metric.PSNR(), deepinv.metric.SSIM()]
results = deepinv.test(
    model, data, noisy_physics, metrics=metrics, show_progress_bar=False, verbose=False, non_blocking_transfers=False
)
for name in ("PSNR", "SSIM"):
    print(
        f"{name} of {len(x)} photographs: {results[f'{name} no learning']:.2f} measured, {results[name]:.2f} restored"
    )

# %%
# The picture.
pictures = {"measured": y, "minimizer": solution.x, "clean": clean}
labels = [f"{quality(p[0], clean[0]).psnr:.2f} dB" for p in (y, solution.x)]
deepinv.utils.plot(
    list(pictures.values()), list(pictures), subtitles=[*labels, ""], rescale_mode="clip", vmin=0, vmax=1,
    figsize=(9, 3.4), show=False, save_fn=options.folder / "inside_deepinv_pictures.png", dpi=120,
)  # fmt: skip
