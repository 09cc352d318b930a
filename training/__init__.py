"""Training: recipes, losses, the one loop, the command around it, and evaluation."""

from icgn.training.adversarial import Adversarial
from icgn.training.bilevel import Bilevel
from icgn.training.checkpoint import CHECKPOINT, TrainingError, read_checkpoint
from icgn.training.command import build, export, train
from icgn.training.denoising import GradientSteps, ScoreMatching
from icgn.training.evaluate import Entry, evaluate
from icgn.training.evaluation import Request, evaluation
from icgn.training.fit import fit
from icgn.training.likelihood import MaskLikelihood
from icgn.training.loss import Loss
from icgn.training.patches import Batch, draw
from icgn.training.physics import make_physics
from icgn.training.pictures import Pictures, load_pictures
from icgn.training.processes import Processes
from icgn.training.ranges import RecipeError
from icgn.training.recipe import LOSSES, Recipe
from icgn.training.report import Mean, markdown, means, read_results, write_results
from icgn.training.restorers import BASELINES, Restoration, Restorer, make_restorer
from icgn.training.validation import Validation, validate
from icgn.training.weight import Weights, fit_weights

__all__ = [
    "BASELINES",
    "CHECKPOINT",
    "LOSSES",
    "Adversarial",
    "Batch",
    "Bilevel",
    "Entry",
    "GradientSteps",
    "Loss",
    "MaskLikelihood",
    "Mean",
    "Pictures",
    "Processes",
    "Recipe",
    "RecipeError",
    "Request",
    "Restoration",
    "Restorer",
    "ScoreMatching",
    "TrainingError",
    "Validation",
    "Weights",
    "build",
    "draw",
    "evaluate",
    "evaluation",
    "export",
    "fit",
    "fit_weights",
    "load_pictures",
    "make_physics",
    "make_restorer",
    "markdown",
    "means",
    "read_checkpoint",
    "read_results",
    "train",
    "validate",
    "write_results",
]
