"""
Train a regularizer, three ways, and compare
============================================

A small ridge network learns from the bundled photographs by the bilevel loss, adversarially, and by score matching:
same loop, same data, another loss. Minutes, not hours: the figures are those of a start, not of the shipped weights.

    python demos/train_your_own.py [FOLDER] [--quick]
"""

import argparse
import tempfile
from pathlib import Path

import deepinv
import torch

import icgn
from icgn.datasets import add_noise, bundled, quality
from icgn.training import Adversarial, Bilevel, Pictures, Recipe, ScoreMatching, Weights, build, fit

parser = argparse.ArgumentParser(description="Train a regularizer, three ways, and compare.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
steps, side, held = (2, 48, 24) if options.quick else (60, 192, 64)

# %%
# Photographs: the camera is kept for the test, a crop of the coins for validation.
photographs = {s.name: s.image for s in bundled(gray=True)}
clean = photographs.pop("camera")[:, 40 : 40 + side, 110 : 110 + side]
data = Pictures("scikit-image", "see scikit-image", list(photographs.values()), [photographs["coins"][:, :held, :held]])

# %%
# One recipe, three losses. Adversarial training and score matching leave the weight open; it is fitted at the end.
sigma = 25 / 255
noisy = add_noise(clean, sigma, seed=0)
losses = {"bilevel": Bilevel(max_iter=20), "adversarial": Adversarial(), "score matching": ScoreMatching()}
pictures, labels = {"noisy": noisy}, [f"{quality(noisy, clean).psnr:.2f} dB"]
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
        history = fit(model, recipe, data, run)
    weights = Weights.of_row(history[-1])
    model = model if weights is None else weights.applied(model)
    with torch.no_grad():
        solution = icgn.denoise(noisy[None], sigma, regularizer=model, tol=3e-4)
    psnr = quality(solution.x[0], clean).psnr
    distance = 255 * float(solution.certificate.rms_distance[0])
    print(f"{name:15s} {psnr:.2f} dB, within {distance:.3f} gray levels of the minimizer")
    pictures[name] = solution.x[0]
    labels.append(f"{psnr:.2f} dB")
pictures["clean"] = clean

# %%
# The pictures.
deepinv.utils.plot(
    list(pictures.values()), list(pictures), subtitles=[*labels, ""], rescale_mode="clip", vmin=0, vmax=1,
    figsize=(14, 3.3), show=False, save_fn=options.folder / "train_your_own.png", dpi=120,
)  # fmt: skip
