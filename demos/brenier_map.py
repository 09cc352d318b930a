"""
Optimal transport by a gradient network
=======================================

The optimal map for the squared distance is the one gradient of a convex function that takes one measure to the other
(Brenier 1991): a gradient network that does it is that map. Fitted by the Sinkhorn divergence, and by maximum
correlation with cycle consistency: Gaussians, whose map is known; a Gaussian to two moons; the colours of one
photograph to another's.

    python demos/brenier_map.py [FOLDER] [--quick] [--seed N]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import make_moons

from icgn.datasets import bundled
from icgn.transport import Correlation, DenseSoftmaxICGN, Sinkhorn, cosine, fit_map, gaussian_pair, l2_uvp

parser = argparse.ArgumentParser()
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"))
parser.add_argument("--quick", action="store_true", help="a few steps only, not the figures that are meant")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
matplotlib.use("Agg")
torch.manual_seed(options.seed)
generator = torch.Generator().manual_seed(options.seed)
losses = {"Sinkhorn divergence": Sinkhorn(), "maximum correlation": Correlation()}

# %%
# Gaussians: the map is affine and known. The default of fit_map starts from the optimal map between Gaussians with the
# moments of the samples, which would be the answer here; from a shift and a scaling all correlations are learned.
steps, dims = (15, (2,)) if options.quick else (400, (2, 8, 64))
for dim in dims:
    pair = gaussian_pair(dim, generator, condition=20.0)
    for name, loss in losses.items():
        network = DenseSoftmaxICGN(dim, groups=2, members=16, strong_convexity=0.01, quadratic=dim)
        # High-dimensional samples are far from each other: only a large batch gives a plan close to the optimal one.
        batch = 512 if dim > 8 else 256
        fit_map(network, pair.source, pair.target, loss, steps=steps, batch=batch, learning_rate=3e-2, start="scale")
        test = pair.source(10000)
        uvp, angle = l2_uvp(network, pair.map, test), cosine(network, pair.map, test)
        print(f"{pair.name:17s} {name:20s} L2-UVP {uvp:6.3f} %, cosine {angle:.4f}")


# %%
# A Gaussian to two moons. The optimal map tears the Gaussian in two; a smooth network can only pull hard.
def normal(n: int) -> torch.Tensor:
    """Samples of the standard Gaussian in the plane."""
    return torch.randn(n, 2, generator=generator)


def moons(n: int) -> torch.Tensor:
    """Samples of two moons, of about unit variance."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    points = torch.from_numpy(make_moons(n, noise=0.06, random_state=seed)[0]).float()
    return 1.6 * (points - torch.tensor([0.5, 0.25]))


maps = {}
steps = 20 if options.quick else 500
for name, loss in {"Sinkhorn divergence": Sinkhorn(blur=0.05), "maximum correlation": Correlation()}.items():
    maps[name] = DenseSoftmaxICGN(2, groups=4, members=16, strong_convexity=0.02, quadratic=2)
    history = fit_map(maps[name], normal, moons, loss, steps=steps, learning_rate=1e-1, batch=256)
    print(f"Gaussian to moons, {name}: {history.seconds:.1f} s")

# %%
# Colours: pixels are samples in the cube; the map is fitted to some and applied to all.
photographs = bundled(gray=False)
subject, palette = (photographs.find(name).image for name in ("coffee", "rocket"))
pixels, colours = (x.flatten(1).T.contiguous() for x in (subject, palette))
recolour = DenseSoftmaxICGN(3, groups=4, members=16, strong_convexity=0.02, quadratic=3)
steps = 20 if options.quick else 300
history = fit_map(recolour, pixels, colours, Sinkhorn(), steps=steps, batch=256, generator=generator)
with torch.no_grad():
    recoloured = recolour(pixels).clamp(0, 1).T.view_as(subject)
print(f"colours of one photograph to another's: {history.seconds:.1f} s")

# %%
# The figure.
figure, axes = plt.subplots(2, 3, figsize=(13, 8.2), layout="constrained", height_ratios=[1.35, 1])
source, target = normal(4000), moons(4000)
bins = np.linspace(-3.2, 3.2, 90)


def density(ax: plt.Axes, points: torch.Tensor, colour: str) -> None:
    """A histogram of samples in the plane."""
    ax.hist2d(*points.T.numpy(), bins=[bins, bins], cmap=colour, cmin=1)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))


density(axes[0, 0], source, "Blues")
density(axes[0, 0], target, "Reds")
axes[0, 0].set_title("source (blue) and target (red)")
for ax, (name, network) in zip(axes[0, 1:], maps.items(), strict=True):
    begin = source[source.norm(dim=1) < 2.8][:90]
    with torch.no_grad():
        pushed, way = network(source), network(begin) - begin
    density(ax, pushed, "Reds")
    ax.quiver(*begin.T, *way.T, angles="xy", scale_units="xy", scale=1, width=0.003, color="0.25", alpha=0.8)
    ax.plot(*begin.T, ".", color="tab:blue", markersize=4)
    ax.set_title(f"pushed samples, {name}")
pictures = {"photograph": subject, "its new colours": recoloured, "whose colours they are": palette}
for ax, (title, picture) in zip(axes[1], pictures.items(), strict=True):
    ax.imshow(picture.permute(1, 2, 0).numpy())
    ax.set_title(title)
    ax.set_axis_off()
figure.savefig(options.folder / "brenier_map.png", dpi=80)
