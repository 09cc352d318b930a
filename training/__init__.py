"""Training: recipes, losses, the one loop and the command around it."""

from icgn.compat import moved
from icgn.training.checkpoint import CHECKPOINT, TrainingError, read_checkpoint
from icgn.training.command import build, export, train
from icgn.training.fit import fit
from icgn.training.losses.adversarial import Adversarial
from icgn.training.losses.bilevel import Bilevel
from icgn.training.losses.denoising import GradientSteps, ScoreMatching
from icgn.training.losses.likelihood import MaskLikelihood
from icgn.training.losses.loss import LOSSES, Batch, Loss
from icgn.training.patches import draw
from icgn.training.physics import make_physics
from icgn.training.pictures import Pictures, load_pictures
from icgn.training.processes import Processes
from icgn.training.progress import Progress
from icgn.training.pruning import prune
from icgn.training.ranges import RecipeError
from icgn.training.recipe import Recipe
from icgn.training.validation import Validation, validate
from icgn.training.weight import Weights, fit_weights

__all__ = [
    "CHECKPOINT",
    "LOSSES",
    "Adversarial",
    "Batch",
    "Bilevel",
    "GradientSteps",
    "Loss",
    "MaskLikelihood",
    "Pictures",
    "Processes",
    "Progress",
    "Recipe",
    "RecipeError",
    "ScoreMatching",
    "TrainingError",
    "Validation",
    "Weights",
    "build",
    "draw",
    "export",
    "fit",
    "fit_weights",
    "load_pictures",
    "make_physics",
    "prune",
    "read_checkpoint",
    "train",
    "validate",
]

_EVALUATION = (
    "BASELINES", "Entry", "Mean", "Request", "Restoration", "Restorer", "evaluate", "evaluation", "make_restorer",
    "markdown", "means", "read_results", "write_results",
)  # fmt: skip
__getattr__ = moved(__name__, dict.fromkeys(_EVALUATION, "icgn.evaluation"))
