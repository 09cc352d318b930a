"""
Flows of measures, one gradient network for each step
=====================================================

A diffusion moves its density down the steepest slope of the free energy E V + E log rho in Wasserstein space. Each
implicit step (Jordan, Kinderlehrer, Otto) pushes the density forward by the gradient of a convex function, here a
network. For the Ornstein-Uhlenbeck process the densities are known: the symmetric Kullback-Leibler divergence from
them is measured in d = 2, 4, 8, by change of variables, with certified preimages of points of the true density. In a
landscape of four wells the free energy is seen to fall to its minimum, known from a grid.

    python demos/wasserstein_flow.py [FOLDER] [--quick] [--seed N]
"""

import argparse
import copy
import csv
import dataclasses
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Ellipse
from torch.distributions import MultivariateNormal, kl_divergence

from icgn.transport import (
    DenseDeepICGN,
    DenseRidgeICGN,
    JKORecipe,
    OrnsteinUhlenbeck,
    WassersteinFlow,
    jko_step,
    symmetric_kl,
)
from icgn.transport.composition import fit_affine

parser = argparse.ArgumentParser(description="Wasserstein gradient flows with gradients of convex networks.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure and the table go")
parser.add_argument("--quick", action="store_true", help="a few training steps, to see that it runs")
parser.add_argument("--seed", type=int, default=0, help="of processes, parameters and batches")
arguments = parser.parse_args()
arguments.folder.mkdir(parents=True, exist_ok=True)
generator = torch.Generator().manual_seed(arguments.seed)
torch.manual_seed(arguments.seed)
quick = arguments.quick
count = 200 if quick else 20000


def draw(density: MultivariateNormal, count: int) -> torch.Tensor:
    """Points (count, n) of a Gaussian density."""
    return density.mean + torch.randn(count, len(density.mean), generator=generator) @ density.scale_tril.T


def flow_of(network, initial, potential, recipe, steps):
    """The networks of a number of implicit steps, each starting from the last one; the first is trained longer."""
    points, networks = draw(initial, count), []
    fit_affine(network, points[:512], torch.eye(network.dim), points.mean(0), curved=0.05)
    for k in range(steps):
        own = recipe if k else dataclasses.replace(recipe, steps=5 * recipe.steps)
        jko_step(network, points, potential, own, generator)
        networks.append(copy.deepcopy(network).requires_grad_(False))
        points = networks[-1](points)
    return networks


# %%
# Ornstein-Uhlenbeck: stiffnesses from 0.5 to 2.5 in a random rotation, a random centre.
h, steps = 0.05, 2 if quick else 18
shown = [2] if quick else [3, 6, 12, 18]
rows = []
figure, axes = plt.subplots(2, 3, figsize=(13, 8.4), layout="constrained")
colours = {2: "tab:blue", 4: "tab:orange", 8: "tab:green"}
for d in colours:
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    stiffness = rotation * torch.linspace(0.5, 2.5, d) @ rotation.T
    centre = (2 + torch.randn(d, generator=generator) / 2) / math.sqrt(d)
    process = OrnsteinUhlenbeck((stiffness + stiffness.T) / 2, centre)
    initial = MultivariateNormal(torch.full((d,), -2 / math.sqrt(d)), torch.eye(d) / 4)
    network = DenseRidgeICGN(d, width=32, strong_convexity=0.02, quadratic=d)
    recipe = JKORecipe(step=h, steps=3 if quick else 60)
    networks = flow_of(network, initial, process.potential, recipe, steps)
    implicit = initial
    for k in range(1, steps + 1):
        implicit = process.implicit_step(implicit, h)
        if k not in shown:
            continue
        truth = process.marginal(initial, k * h)
        start, reference = draw(initial, 200 if quick else 4000), draw(truth, 50 if quick else 500)
        learned = symmetric_kl(WassersteinFlow(initial, networks[:k]), truth, start, reference, tol=1e-4)
        exact = float(kl_divergence(implicit, truth) + kl_divergence(truth, implicit))
        still = float(kl_divergence(initial, truth) + kl_divergence(truth, initial))
        rows.append(
            {"d": d, "seed": arguments.seed, "t": round(k * h, 4), "KL(flow|truth)": learned.forward,
             "KL(truth|flow)": learned.backward, "symmetric": learned.symmetric, "standard error": learned.error,
             "exact implicit steps": exact, "initial density": still}
        )  # fmt: skip
        print(
            f"d = {d}, t = {k * h:.2f}: symmetric KL {learned.symmetric:.4f} +- {learned.error:.4f} nats"
            f" (exact implicit steps {exact:.4f}, initial density {still:.2f})"
        )
    mine = [row for row in rows if row["d"] == d]
    times = [row["t"] for row in mine]
    axes[0, 2].errorbar(
        times, [r["symmetric"] for r in mine], [r["standard error"] for r in mine],
        color=colours[d], marker="o", capsize=3, label=f"learned, d = {d}",
    )  # fmt: skip
    axes[0, 2].plot(times, [r["exact implicit steps"] for r in mine], ":", color=colours[d], label=f"exact, d = {d}")
    if d != 2:
        continue
    cloud = draw(initial, count)
    tracks = [cloud]
    for net in networks:
        tracks.append(net(tracks[-1]))
    fine = [process.marginal(initial, t) for t in torch.linspace(0, steps * h, 100).tolist()]
    axes[0, 0].plot(*torch.stack([g.mean for g in fine]).T, "k-", lw=1, label="closed form: mean; two deviations")
    for k, colour in zip([0, shown[-1] // 3, shown[-1]], ("tab:gray", "tab:cyan", "tab:purple"), strict=True):
        truth = process.marginal(initial, k * h) if k else initial
        values, vectors = torch.linalg.eigh(truth.covariance_matrix)
        angle = math.degrees(math.atan2(float(vectors[1, 1]), float(vectors[0, 1])))
        width, height = (4 * values.sqrt()).flip(0).tolist()
        axes[0, 0].add_patch(Ellipse(truth.mean.tolist(), width, height, angle=angle, fill=False, color=colour))
        axes[0, 0].scatter(*tracks[k][:600].T, s=3, color=colour, label=f"pushed points, t = {k * h:.2f}")
    axes[0, 0].set(xlabel="$x_1$", ylabel="$x_2$", title="Ornstein-Uhlenbeck, d = 2", aspect="equal")
    axes[0, 0].legend(fontsize=7, loc="best")
    for i, (style, name) in enumerate((("C0", "1"), ("C1", "2"))):
        line = torch.linspace(0, steps * h, 100)
        axes[0, 1].plot(line, [g.mean[i] for g in fine], style, label=f"mean of $x_{name}$, closed form")
        axes[0, 1].plot(line, [g.variance[i] for g in fine], style, ls="--", label=f"variance of $x_{name}$")
        at = [k * h for k in range(steps + 1)]
        axes[0, 1].plot(at, [x[:, i].mean() for x in tracks], style + "o", ms=3)
        axes[0, 1].plot(at, [x[:, i].var() for x in tracks], style + "s", ms=3)
    axes[0, 1].set(xlabel="t", title=f"moments, d = 2; marks: {count} pushed points")
    axes[0, 1].legend(fontsize=7)
axes[0, 2].set(xlabel="t", ylabel="symmetric KL from the truth, nats", title="learned and exact steps")
axes[0, 2].legend(fontsize=7)


# %%
# Four wells at (+-1.2, +-1.2), from a Gaussian in the middle. The minimum of the free energy is -log of the integral
# of exp(-V).
def wells(x: torch.Tensor) -> torch.Tensor:
    """A potential with four wells, values of shape (B,)."""
    return (x.square() - 1.44).square().sum(1)


line = torch.linspace(-2.6, 2.6, 60 if quick else 200)
grid = torch.cartesian_prod(line, line)
cell = float(line[1] - line[0]) ** 2
least = -math.log(float((-wells(grid).double()).exp().sum()) * cell)
initial = MultivariateNormal(torch.zeros(2), torch.eye(2) / 4)
network = DenseDeepICGN(2, widths=(24, 24), strong_convexity=0.02, quadratic=2)
steps = 1 if quick else 10
recipe = JKORecipe(step=0.05, steps=3 if quick else 100)
networks = flow_of(network, initial, wells, recipe, steps)
points = draw(initial, 200 if quick else 4000)
energies = [float((wells(points) + initial.log_prob(points)).mean())]
with torch.no_grad():
    for k in range(1, steps + 1):
        pushed = WassersteinFlow(initial, networks[:k]).push(points)
        energies.append(float((wells(pushed.points) + initial.log_prob(points) - pushed.logdet).mean()))
print("four wells: free energy less its minimum", " ".join(f"{e - least:.3f}" for e in energies), "nats")
flow = WassersteinFlow(initial, networks)
inner = torch.linspace(-2.2, 2.2, 12 if quick else 70)
learned = flow.log_prob(torch.cartesian_prod(inner, inner), tol=1e-3).exp().view(len(inner), -1).T
truth = (least - wells(torch.cartesian_prod(inner, inner))).exp().view(len(inner), -1).T
top = float(max(learned.max(), truth.max()))
for ax, density, name in zip(axes[1], (learned, truth), ("learned, t = %.2f" % (0.05 * steps), "limit"), strict=False):
    picture = ax.imshow(density, origin="lower", extent=(-2.2, 2.2, -2.2, 2.2), cmap="magma", vmin=0, vmax=top)
    ax.set(title=f"four wells: density, {name}", xlabel="$x_1$", ylabel="$x_2$")
figure.colorbar(picture, ax=axes[1, 1], shrink=0.8)
axes[1, 2].plot([0.05 * k for k in range(steps + 1)], [e - least for e in energies], "o-")
axes[1, 2].set(xlabel="t", ylabel="nats", yscale="log", title="four wells: KL from the limit")
figure.savefig(arguments.folder / "wasserstein_flow.png", dpi=110)

with (arguments.folder / "wasserstein_flow.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
