"""Quality of the minimizers of a model on pictures that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.solvers import Problem, solve
from icgn.training.measure import disturbed, psnr
from icgn.training.processes import Processes
from icgn.training.recipe import Recipe
from icgn.training.weight import Weights, fit_weights


@keyword_only
@dataclass(frozen=True, eq=False)
class Validation:
    """One validation.

    Attributes
    ----------
    row : dict
        ``step``, ``loss``, the mean ``psnr_S`` at each noise level S in gray levels, and ``weight_S`` and ``scale_S``
        where they were fitted.
    examples : dict
        by noise level S: clean, measured and restored picture, if they have the same shape.
    """

    row: dict[str, float]
    _: KW_ONLY
    examples: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __str__(self) -> str:
        levels = ", ".join(f"{v:.2f} dB at sigma {k[5:]}" for k, v in self.row.items() if k.startswith("psnr_"))
        return f"step {self.row['step']:.0f}  loss {self.row['loss']:.4f}" + f"  PSNR {levels}" * bool(levels)


@keyword_only
@torch.no_grad()
def validate(
    regularizer: ConvexRegularizer,
    recipe: Recipe,
    images: Sequence[Tensor],
    physics: Any,
    *,
    step: int = 0,
    loss: float = math.nan,
    weights: Weights | None = None,
    final: bool = False,
    processes: Processes | None = None,
) -> Validation:
    """Mean PSNR of the minimizers of the objective on pictures with seeded noise, at each noise level of the recipe.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        on its own device.
    recipe : Recipe
        whose levels, noise and loss count.
    images : sequence of Tensor
        pictures (C, H, W) in [0, 1].
    physics : deepinv.physics.LinearPhysics
        the operator.
    step, loss : int, float
        for the row.
    weights : Weights, optional
        those found last, where the loss leaves the weight open: a search starts there.
    final : bool
        search for weight and scale finely.
    processes : Processes, optional
        among which the pictures are shared.
    """
    group = Processes(device=_device(regularizer)) if processes is None else processes
    row: dict[str, float] = {"step": step, "loss": loss}
    if not len(images):
        return Validation(row)
    if recipe.loss.fits_weight or (final and recipe.fit_weight):
        if not recipe.loss.fits_weight:
            weights = Weights.ones(recipe.validation_sigma)
        weights = fit_weights(
            regularizer, images, recipe.validation_sigma, physics, start=weights, fine=final, processes=group
        )
        row |= weights.row()
        regularizer = weights.applied(regularizer)
    examples = {}
    own = group.share(range(len(images)))
    for sigma in recipe.validation_sigma:
        total = torch.zeros((), dtype=torch.float64)
        for i in own:
            drawn = disturbed(images[i], sigma, i, physics, recipe.noise, _device(regularizer))
            problem = Problem(drawn.y, physics, regularizer, drawn.sigma)
            x = solve(problem, tol=2e-4, max_iter=200).x[0].cpu().clamp(0, 1)
            total += psnr(x, drawn.clean)
            if i == 0 and drawn.y.shape[1:] == drawn.clean.shape:
                examples[f"{sigma * 255:g}"] = (drawn.clean, drawn.y[0].cpu(), x)
        row[f"psnr_{sigma * 255:g}"] = float(group.sum(total.to(group.device))) / len(images)
    return Validation(row, examples=examples)


def _device(regularizer: ConvexRegularizer) -> torch.device:
    return next(regularizer.parameters()).device
