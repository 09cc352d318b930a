r"""
Which networks give gradients?
==============================

:math:`N(x) = \int_0^1 J_M(sx)^T J_M(sx)\, x\, ds` is the gradient of a convex function for some networks M only.
``ICGN(M)`` measures the defect on N itself, and refuses an M that fails.

    python demos/which_networks_are_gradients.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import nn

import icgn

parser = argparse.ArgumentParser(description="Which networks give gradients?")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="smaller pictures")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)


class Dense(nn.Module):
    """A dense network on the pixels of small pictures."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The features of a batch of pictures, (B, width)."""
        return self.body(x)


# %%
# Four networks on pictures of a few pixels, with weights large enough to bend.
side = 4 if options.quick else 6
n = side * side
networks = {
    "one hidden layer, tanh": Dense(nn.Linear(n, 24), nn.Tanh()),
    "one hidden layer, ReLU": Dense(nn.Linear(n, 24), nn.ReLU()),
    "one hidden layer, then a mixing layer": Dense(nn.Linear(n, 24), nn.Tanh(), nn.Linear(24, 24)),
    "two hidden layers": Dense(nn.Linear(n, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh()),
}
x = torch.rand(2, 1, side, side, dtype=torch.float64)

# %%
# The asymmetry of the Jacobian of N, 0 for a gradient, and its least curvature, at least 0 for a convex function, are
# measured by finite differences of N: automatic differentiation does not see what happens at the kinks of a ReLU.
rows = []
print(f"{'M':40s} asymmetry  least curvature  verdict")
for name, network in networks.items():
    network = network.double()
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.5 / layer.in_features**0.5)
    defect = icgn.ICGN(network, check=False).integrability_defect(x)
    try:
        icgn.ICGN(network).grad(x)
        verdict = "a gradient"
    except ValueError:
        verdict = "refused"
    rows.append((name, float(defect.asymmetry), float(defect.least_curvature), verdict))
    print(f"{name:40s} {defect.asymmetry:9.4f}  {defect.least_curvature:15.4f}  {verdict}")

# %%
# The measurements side by side.
names, asymmetries, curvatures, verdicts = zip(*rows, strict=True)
colours = ["tab:red" if verdict == "refused" else "tab:blue" for verdict in verdicts]
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained", sharey=True)
labels = [f"{name}: {verdict}" for name, verdict in zip(names, verdicts, strict=True)]
for ax, values, title in zip(
    axes,
    (asymmetries, curvatures),
    ("asymmetry of $DN$, relative", "least curvature of $N$ over the greatest"),
    strict=True,
):
    ax.barh(labels, values, color=colours)
    ax.bar_label(ax.containers[0], fmt="%.1e", padding=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel(title)
    ax.margins(x=0.25)
axes[0].invert_yaxis()
figure.savefig(options.folder / "which_networks_are_gradients.png", dpi=120)
