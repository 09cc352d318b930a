"""Training: recipes, the one loop, its losses, and the command that puts them together."""

from icgn.training.bilevel import bilevel_loss
from icgn.training.command import Pictures, build, export, load_pictures, train
from icgn.training.fit import CHECKPOINT, TrainingError, fit, read_checkpoint, validate
from icgn.training.recipe import Bilevel, Recipe, RecipeError

__all__ = [
    "CHECKPOINT",
    "Bilevel",
    "Pictures",
    "Recipe",
    "RecipeError",
    "TrainingError",
    "bilevel_loss",
    "build",
    "export",
    "fit",
    "load_pictures",
    "read_checkpoint",
    "train",
    "validate",
]
