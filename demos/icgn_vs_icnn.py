"""
ICGN or ICNN?
=============

Two ways to a convex gradient: a network that *is* the gradient (ICGN), or a convex network that automatic
differentiation turns into one (ICNN), which training then differentiates again. Here both learn the gradient of the
same function, the largest of five affine functions, smoothed, with the same number of parameters, in the same seconds.
A ridge network, one hidden layer however wide, cannot represent it; coupled units (softmax, group) can, and so can
depth.

    python demos/icgn_vs_icnn.py [FOLDER] [--quick]
"""

import argparse
import sys
from pathlib import Path

import torch

# What is compared, and how, is that of the benchmark, which has more targets, sizes and seeds.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from gradients import fields
from gradients_fit import Choice, defects, evaluation_seconds, fitted, quality
from gradients_networks import parameters
from gradients_report import drawing
from gradients_targets import random_maximum

arguments = argparse.ArgumentParser(description="ICGN or ICNN?")
arguments.add_argument("FOLDER", nargs="?", default="out", type=Path)
arguments.add_argument("--quick", action="store_true", help="a shortened run, to see that it works")
options = arguments.parse_args()
size, seconds, seeds, count, side = (100, 0.02, 1, 512, 21) if options.quick else (100, 3.0, 2, 16384, 81)
torch.set_num_threads(1)

# %%
# Gradients of the target, exact to rounding, at random points: some to learn from, others to measure with.
target = random_maximum(seed=0)
generator = torch.Generator().manual_seed(0)
train, test = (target.samples(points, generator).to(torch.float32) for points in (count, count // 4))

# %%
# How each is built, the scale of its first weights and its learning rate: what does well on functions of this kind. All
# have about 100 parameters and a quadratic term; where they end depends on where they start, so each starts more than
# once.
choices = {
    "quadrature": Choice("16 Gauss-Legendre nodes", 3, 0.3),
    "ridge": Choice("tanh", 3, 0.3),
    "deep": Choice("softplus, 3 layers", 3, 0.3),
    "softmax": Choice("one module", 3, 0.3),
    "group": Choice("groups", 3, 0.03),
    "ICNN": Choice("3 layers", 3, 0.3),
}
print(f"{'network':12s} parameters  steps  mean dB  least  us/evaluation  asymmetry  least curvature")
networks, rows = {}, []
for name, choice in choices.items():
    fits = []
    for seed in range(seeds):
        network, training = fitted(name, size, choice, train, seconds, seed)
        fits.append(quality(network, train, test))
        networks.setdefault(name, network)
        rows.append({"network": name, "size": size, "parameters": parameters(network), "decibels": fits[-1]})
    evaluation = evaluation_seconds(networks[name], test.points)
    asymmetry, least = defects(networks[name], test.points)
    print(
        f"{name:12s} {parameters(network):10d} {training.steps:6d} {sum(fits) / seeds:8.1f} {min(fits):6.1f}"
        f" {1e6 * evaluation:14.0f} {asymmetry:10.0e} {least:16.0e}"
    )

# %%
# Where the errors of the first of each are: a ridge network misses what happens where the creases of the maximum meet.
options.FOLDER.mkdir(parents=True, exist_ok=True)
title = f"Smoothed maximum of 5 affine functions: about {size} parameters, {seconds:g} s for each training"
# The networks are in float64 since their Jacobians were measured.
picture = drawing(title, fields(target, networks, train.size, side), rows, ("x1", "x2"))
(options.FOLDER / "icgn_vs_icnn.png").write_bytes(picture)
