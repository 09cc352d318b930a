"""
Train a regularizer, three ways, and compare
============================================

A small ridge network learns from the bundled photographs by the bilevel loss, adversarially, and by score matching:
same loop, same data, another loss. Minutes, not hours: the figures are those of a start, not of the shipped weights.

    python demos/train_your_own.py [FOLDER] [STEPS]
"""

import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

import icgn
from icgn.datasets import add_noise, bundled, comparison, quality, write_picture
from icgn.training import Adversarial, Bilevel, Pictures, Recipe, ScoreMatching, Weights, build, fit

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 60
folder.mkdir(parents=True, exist_ok=True)

# %%
# Photographs: the camera is kept for the test, a crop of the coins for validation.
photographs = {s.name: s.image for s in bundled(gray=True)}
clean = photographs.pop("camera")[:, 40:232, 110:302]
data = Pictures("scikit-image", "see scikit-image", list(photographs.values()), [photographs["coins"][:, :64, :64]])

# %%
# One recipe, three losses. Adversarial training and score matching leave the weight open; it is fitted at the end.
sigma = 25 / 255
noisy = add_noise(clean, sigma, seed=0)
panels = [("noisy", noisy)]
losses = {"bilevel": Bilevel(max_iter=20), "adversarial": Adversarial(), "score matching": ScoreMatching()}
for name, loss in losses.items():
    recipe = Recipe(
        name="demo",
        model={"type": "RidgeICGN", "filters": 16, "size": 7, "min_knee": 0.05},
        loss=loss,
        steps=steps,
        batch=4,
        patch=40,
        sigma=(sigma, sigma),
        learning_rate={"bank": 1e-2, "log_": 1.5e-1},
        validate_every=steps,
        validation_sigma=(sigma,),
    )
    model = build(recipe)
    with tempfile.TemporaryDirectory() as run:
        history = fit(model, recipe, data, run, console=Console(quiet=True))
    weights = Weights.of_row(history[-1])
    model = model if weights is None else weights.applied(model)
    with torch.no_grad():
        solution = icgn.denoise(noisy[None], sigma, regularizer=model, tol=3e-4)
    psnr = quality(solution.x[0], clean).psnr
    distance = 255 * float(solution.certificate.rms_distance[0])
    print(f"{name:15s} {psnr:.2f} dB, within {distance:.3f} gray levels of the minimizer")
    panels.append((f"{name}: {psnr:.2f} dB", solution.x[0]))

write_picture(folder / "train_your_own.png", comparison([*panels, ("clean", clean)]))
