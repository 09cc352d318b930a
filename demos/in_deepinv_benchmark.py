"""
Nothing trained, nothing tuned: deepinv's own test loop
=======================================================

Blurred photographs go through ``deepinv.test``: the model with the strength that the command takes, six to eight times
the noise, beside total variation and wavelets of deepinv at the factors that are best for these very photographs.

    python demos/in_deepinv_benchmark.py [FOLDER] [--quick]
"""

import argparse
import importlib.util
from pathlib import Path

import deepinv
import torch
from deepinv.optim import FISTA, L2, TVPrior, WaveletPrior
from deepinv.physics.functional import gaussian_blur
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, TensorDataset

import icgn
from icgn.datasets import bundled

parser = argparse.ArgumentParser(description="A model in deepinv's test loop, beside its priors.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figures go")
parser.add_argument("--quick", action="store_true", help="one small picture and few iterations")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, count, steps = (32, 1, 5) if options.quick else (128, 4, 150)
noise = 0.02

# %%
# The data: four photographs, blurred by a Gaussian of 1.6 pixels, with noise of 5 gray levels.
names = ("camera", "astronaut", "coffee", "rocket")[:count]
clean = torch.stack([bundled(gray=True).find(n).image[:, 100 : 100 + side, 150 : 150 + side] for n in names])
physics = deepinv.physics.BlurFFT(
    (1, side, side), filter=gaussian_blur(sigma=(1.6, 1.6)), noise_model=deepinv.physics.GaussianNoise(noise)
)
torch.manual_seed(0)
data = DataLoader(TensorDataset(clean, physics(clean)), batch_size=count)


def tested(model: torch.nn.Module) -> float:
    """Mean PSNR of deepinv's loop, in dB."""
    found = deepinv.test(
        model, data, physics, metrics=[deepinv.metric.PSNR()], show_progress_bar=False, verbose=False,
        non_blocking_transfers=False,
    )  # fmt: skip
    return float(found["PSNR"])


# %%
# The baselines of deepinv, each at the best of its factors.
priors = {"TV": lambda: TVPrior(n_it_max=20)}
if importlib.util.find_spec("ptwt") is None:
    print("wavelets of deepinv are left out: pip install ptwt")
else:
    priors["wavelets"] = lambda: WaveletPrior(level=3, wv="db4")
factors = (3e-3, 1e-2) if options.quick else (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
scores: dict[str, float] = {}
for name, prior in priors.items():
    found = {}
    for factor in factors:
        model = FISTA(data_fidelity=L2(), prior=prior(), lambda_reg=factor, stepsize=1.0, max_iter=steps)
        found[factor] = tested(model)
    best = max(found, key=found.__getitem__)
    scores[f"{name}, factor {best:g}"] = found[best]

# %%
# The model: the shipped weights, 7.5 times the noise, as ``icgn deblur`` takes it.
regularizer = icgn.load_pretrained("ridge-gray-small" if options.quick else "conditional-gray")
gap_tol = 0.3 if options.quick else 1e-2
scores["icgn, nothing tuned"] = tested(icgn.Reconstructor(regularizer, sigma=7.5 * noise, box=(0, 1), gap_tol=gap_tol))
for name, score in scores.items():
    print(f"{name:24s} {score:.2f} dB")
baseline = max(v for k, v in scores.items() if not k.startswith("icgn"))
print(f"gain over the best baseline of deepinv: {scores['icgn, nothing tuned'] - baseline:+.2f} dB")

# %%
# The figure.
figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
bars = ax.barh(list(scores), list(scores.values()), color="0.6")
ax.bar_label(bars, fmt="%.2f dB", padding=3)
ax.set(xlim=(min(scores.values()) - 1, max(scores.values()) + 1), xlabel="mean PSNR")
figure.savefig(options.folder / "in_deepinv_benchmark.png", dpi=120)
