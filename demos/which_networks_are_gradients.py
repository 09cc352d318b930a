"""
Which networks give gradients?
==============================

N(x) = int_0^1 J_M(sx)^T J_M(sx) x ds is the gradient of a convex function for some networks M only. ICGN(M) measures
the defect on N itself, and refuses an M that fails.

    python demos/which_networks_are_gradients.py
"""

import torch
from torch import nn

import icgn

torch.manual_seed(0)


class Dense(nn.Module):
    """A dense network on the pixels of small pictures."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The features of a batch of pictures, (B, width)."""
        return self.body(x)


n = 36
networks = {
    "one hidden layer, tanh": Dense(nn.Linear(n, 24), nn.Tanh()),
    "one hidden layer, ReLU": Dense(nn.Linear(n, 24), nn.ReLU()),
    "one hidden layer, then a mixing layer": Dense(nn.Linear(n, 24), nn.Tanh(), nn.Linear(24, 24)),
    "two hidden layers": Dense(nn.Linear(n, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh()),
}
x = torch.rand(2, 1, 6, 6, dtype=torch.float64)

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
    print(f"{name:40s} {defect.asymmetry:9.4f}  {defect.least_curvature:15.4f}  {verdict}")
