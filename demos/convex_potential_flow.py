"""
Densities from convex potentials
================================

The gradient of a strongly convex function is invertible with a positive definite Jacobian: a map T of the data to
normal noise, whose density follows by change of variables, log p(x) = log N(T(x)) + log det DT(x). Three layers of
ridge networks learn three toys; two learn a table of 30 measurements of 569 tumours, with the exact log-determinant
and with the stochastic one, beside Gaussian mixtures. Samples are inverses of T by the certified solver.

    python demos/convex_potential_flow.py [FOLDER] [--quick] [--seed N]
"""

import argparse
import csv
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_breast_cancer, make_circles, make_moons
from sklearn.mixture import GaussianMixture

from icgn.transport import (
    ConvexPotentialFlow,
    DenseRidgeICGN,
    ExactLogDet,
    FlowRecipe,
    StochasticLogDet,
    fit_flow,
    mean_log_prob,
)

parser = argparse.ArgumentParser(description="Density estimation with gradients of convex networks.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure and the table go")
parser.add_argument("--quick", action="store_true", help="a few training steps, to see that it runs")
parser.add_argument("--seed", type=int, default=0, help="of data, splits, parameters and batches")
arguments = parser.parse_args()
arguments.folder.mkdir(parents=True, exist_ok=True)
generator = torch.Generator().manual_seed(arguments.seed)
torch.manual_seed(arguments.seed)
seed = arguments.seed
quick = arguments.quick


# %%
# Toys: 3000 points to train on, 1000 for validation, 2000 held out.
def eight_gaussians(count: int) -> torch.Tensor:
    """Points (count, 2) of eight Gaussians on a circle."""
    angle = math.pi / 4 * torch.randint(8, (count,), generator=generator)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.2 * torch.randn(count, 2, generator=generator)


toys = {
    "two moons": torch.tensor(make_moons(6000, noise=0.08, random_state=seed)[0]).float(),
    "circles": torch.tensor(make_circles(6000, noise=0.06, factor=0.5, random_state=seed)[0]).float(),
    "eight Gaussians": eight_gaussians(6000),
}


# %%
# The baselines: one Gaussian, and the mixture, of those with up to 20 full, tied or diagonal covariances, that is best
# in validation.
def mixtures(train: torch.Tensor, validation: torch.Tensor, test: torch.Tensor) -> dict[str, float]:
    """Held-out log-likelihoods of one Gaussian and of the best mixture."""
    counts, kinds = ((1, 2), ("full",)) if quick else ((1, 2, 3, 4, 6, 8, 12, 20), ("full", "tied", "diag"))
    choices = [(k, kind, floor) for k in counts for kind in kinds for floor in (1e-6, 1e-2)]
    models = [
        GaussianMixture(k, covariance_type=kind, reg_covar=floor, random_state=seed).fit(train)
        for k, kind, floor in choices
    ]
    best = max(models, key=lambda model: model.score(validation))
    gaussian = GaussianMixture(1, random_state=seed).fit(train)
    return {"Gaussian": gaussian.score(test), "Gaussian mixture": best.score(test)}


def trained(parts: list[torch.Tensor], layers: int, recipe: FlowRecipe, logdet) -> tuple[ConvexPotentialFlow, float]:
    """A flow fitted to the first of the parts, chosen by the second, and its training time in seconds."""
    dim = parts[0].shape[1]
    flow = ConvexPotentialFlow(
        [DenseRidgeICGN(dim, width=64, strong_convexity=0.02, quadratic=dim) for _ in range(layers)]
    )
    flow.initialize(parts[0])
    begin = time.perf_counter()
    fit_flow(flow, parts[0], parts[1], recipe, generator, logdet=logdet)
    return flow, time.perf_counter() - begin


rows = []


def report(data: str, model: str, score: float) -> None:
    """Keep and print one row of the table."""
    rows.append({"data": data, "seed": seed, "model": model, "held-out log-likelihood, nats": f"{score:.3f}"})
    print(f"{data:16s} {model:34s} {score:8.3f} nats")


figure, panels = plt.subplots(3, 4, figsize=(13, 8.4), layout="constrained", width_ratios=(1, 1, 1, 1.3))
recipe = FlowRecipe(steps=4 if quick else 700, batch=256, learning_rate=4e-2, patience=20)
side = 60 if quick else 160
for row, (name, points) in zip(panels, toys.items(), strict=True):
    parts = list(points.split([3000, 1000, 2000]))
    scores = mixtures(*parts)
    flow, seconds = trained(parts, 3, recipe, ExactLogDet())
    scores["flow"] = mean_log_prob(flow, parts[2])
    print(f"three layers trained in {seconds:.1f} s")
    for model, score in scores.items():
        report(name, model, score)
    samples = flow.sample(100 if quick else 1500, generator, tol=1e-3)
    low, high = points.min(0).values, points.max(0).values
    reach, centre = 0.6 * float((high - low).max()), (high + low) / 2
    line = torch.linspace(-reach, reach, side)
    grid = centre + torch.cartesian_prod(line, line)
    with torch.no_grad():
        density = flow.log_prob(grid).exp().view(side, side).T
    x, y = centre.tolist()
    extent = (x - reach, x + reach, y - reach, y + reach)
    row[0].scatter(*parts[2][:1500].T, s=2, color="tab:gray")
    row[1].scatter(*samples.T, s=2, color="tab:blue")
    row[2].imshow(density, origin="lower", extent=extent, cmap="magma")
    row[0].set_ylabel(name)
    for ax, title in zip(row[:3], ("held-out data", "samples of the flow", "its density"), strict=True):
        ax.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xticks=[], yticks=[], title=title)
    caption = f"{scores['flow']:.2f} nats held out; mixture {scores['Gaussian mixture']:.2f}"
    row[2].set_xlabel(f"{caption}, Gaussian {scores['Gaussian']:.2f}", fontsize=8)

# %%
# The table: standardized by the training rows; 364 to train on, 91 for validation, 114 held out.
table = torch.tensor(load_breast_cancer().data)
table = table[torch.randperm(len(table), generator=generator)]
train, validation, test = table.split([364, 91, 114])
mean, std = train.mean(0), train.std(0)
parts = [((part - mean) / std).float() for part in (train, validation, test)]
scores = mixtures(*parts)
recipe = FlowRecipe(steps=4 if quick else 400, batch=128, learning_rate=5e-3, evaluate_every=20, patience=6)
stochastic = StochasticLogDet(probes=1, iterations=10, generator=generator)
for label, logdet in {"exact log-determinant": ExactLogDet(), "Lanczos, one probe": stochastic}.items():
    flow, seconds = trained(parts, 1, recipe, logdet)
    scores[f"flow, {label}"] = mean_log_prob(flow, parts[2])
    print(f"training with {label}: {seconds:.1f} s")
for model, score in scores.items():
    report("breast cancer", model, score)

for ax in panels[:, 3]:
    ax.remove()
ax = figure.add_subplot(panels[0, 3].get_gridspec()[:, 3])
bars = ax.bar(range(len(scores)), list(scores.values()), color=["tab:gray", "tab:gray", "tab:blue", "tab:cyan"])
ax.bar_label(bars, fmt="%.2f", color="white", label_type="center")
ax.set_xticks(range(len(scores)), ["one\nGaussian", "Gaussian\nmixture", "flow,\nexact", "flow,\nLanczos"])
ax.set_ylabel("held-out log-likelihood, nats per row (higher is better)")
ax.set_title("breast cancer: 30 measurements")
figure.savefig(arguments.folder / "convex_potential_flow.png", dpi=110)

with (arguments.folder / "convex_potential_flow.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
