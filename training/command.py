"""What ``icgn train`` does: read a recipe and pictures, train, and write the model with its card."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from icgn.compat import dropped, keyword_only
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pretrained import load_pretrained, save_model
from icgn.regularizers.registry import ModelError, build_model, changed
from icgn.storage.versions import versions
from icgn.training.checkpoint import CHECKPOINT, TrainingError, read_checkpoint, recipe_of
from icgn.training.fit import Precision, fit
from icgn.training.pictures import load_pictures
from icgn.training.processes import Processes
from icgn.training.progress import Progress
from icgn.training.recipe import Recipe
from icgn.training.weight import Weights


@keyword_only
@dropped("console", "progress")
def train(
    recipe_file: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    precision: Precision = "auto",
    init: str | None = None,
) -> Path:
    """Train the model of a recipe file; returns its weights file, ``out/NAME.safetensors``, with the card beside it.

    The model is written at every validation, when interrupted, and at the end, so that ``load_pretrained(out)`` gives
    the last one at any time.

    Parameters
    ----------
    recipe_file : path
        TOML file of a :class:`~icgn.training.Recipe`.
    data : path
        root of BSDS500 or folder of photographs; see :func:`load_pictures`.
    out : path
        folder of the run, made if missing.
    resume : bool
        continue from the checkpoint in `out`, if there is one.
    device : str or torch.device, optional
        where to train; default a GPU where there is one.
    progress : Progress, optional
        see :func:`~icgn.training.fit`.
    precision : {"auto", "float32", "bfloat16"}
        see :func:`~icgn.training.fit`.
    init : str, optional
        name or path of a model to start from, instead of that of the recipe.

    Raises
    ------
    ValueError
        if the recipe or the model in it is not valid, or no picture is large enough.
    OSError
        if a file cannot be read or written.
    TrainingError
        if training cannot go on; see :func:`~icgn.training.fit`.
    """
    recipe_file, out = Path(recipe_file), Path(out)
    recipe = Recipe.load(recipe_file)
    recipe = recipe if init is None else replace(recipe, init=init)
    processes = Processes(device=device)
    begun = processes.from_main(lambda: _begun(out / CHECKPOINT)) if resume else None
    regularizer = (build(recipe, source=str(recipe_file)) if begun is None else begun).to(processes.device)
    pictures = load_pictures(
        data, regularizer.channels or 3, smallest=recipe.patch, crop=recipe.patch if recipe.physics else None
    )
    weights = out / f"{recipe.name}.safetensors"

    def write() -> None:
        if not processes.is_main:
            return
        try:
            export(out / CHECKPOINT, weights, extra={"recipe_file": recipe_file.name, "data": pictures.card()})
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"{weights}: cannot be written: {reason}; the run is kept in {out / CHECKPOINT}"
            ) from error

    try:
        fit(
            regularizer,
            recipe,
            pictures,
            out,
            resume=resume,
            progress=progress,
            on_validation=lambda row: write(),
            precision=precision,
            processes=processes,
        )
    except KeyboardInterrupt:
        with suppress(TrainingError, ModelError):  # no weight yet, no checkpoint, or a full disk
            write()
        raise
    # A run that was complete when it was resumed made no validation.
    write()
    return weights


@keyword_only
def build(recipe: Recipe, *, source: str = "recipe") -> ConvexRegularizer:
    """Make the regularizer that a recipe starts from, trainable: new, seeded by the recipe, or that of its `init`.

    Raises
    ------
    ModelError
        if the class or its arguments are unknown, if there is no model of the name in `init`, or if that model is
        neither of the architecture that the recipe asks for nor can become it; `source` is named in the message.
    """
    if not recipe.init:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return build_model(recipe.model, source)
    model = load_pretrained(recipe.init)
    architecture = {"type": type(model).__name__, **model.architecture}
    changes = {key: wanted for key, wanted in recipe.model.items() if architecture.get(key) != wanted}
    if changes:
        model = changed(model, changes, f"{source}: init {recipe.init!r}")
    return model.train().requires_grad_(True)


@keyword_only
def export(checkpoint: str | Path, path: str | Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write the model in a checkpoint as weights and card, ready for :func:`icgn.load_pretrained`.

    Weight and scale that were fitted for the model become part of it. The card holds the architecture, the recipe, its
    seed, the steps made, the seconds they took, the versions of the packages, the last row of the validation history
    and its PSNR by noise level.

    Parameters
    ----------
    checkpoint : path
        ``checkpoint.pt`` of a run.
    path : path
        file to write, ending in ``.safetensors``; the card goes beside it, ending in ``.json``.
    extra : dict, optional
        what else the card shall say, or say instead: ``recipe_file``, ``data`` (:meth:`Pictures.card`), ``psnr``...

    Raises
    ------
    FileNotFoundError
        if there is no checkpoint.
    TrainingError
        if it is damaged, its weights do not fit the model of its recipe, or the loss leaves the weight of the
        regularizer open and no validation has fitted it yet.
    ModelError
        if the model cannot be built, or `path` has another suffix.
    """
    content = read_checkpoint(checkpoint)
    recipe = recipe_of(content, checkpoint)
    model = _model_of(content, str(checkpoint)) or build(recipe, source=str(checkpoint))
    try:
        model.load_state_dict(content.get("averaged", content["model"]))
    except RuntimeError as error:
        raise TrainingError(f"{checkpoint}: the weights do not fit the model of the recipe: {error}") from error
    weights = Weights.of_row(_last_row(content))
    if weights is None and recipe.loss.fits_weight:
        raise TrainingError(f"{checkpoint}: the weight of the model is not fitted yet; a validation does it")
    model = model if weights is None else weights.applied(model)
    save_model(model, path, {**_card(recipe, content), **(extra or {})})


def _begun(checkpoint: Path) -> ConvexRegularizer | None:
    """The untrained model of a run that is there: that of `init` may have moved or changed since."""
    return _model_of(read_checkpoint(checkpoint), str(checkpoint)) if checkpoint.exists() else None


def _model_of(content: dict[str, Any], source: str) -> ConvexRegularizer | None:
    """The untrained model of a checkpoint; None if only its recipe says what it is."""
    architecture = json.loads(content.get("architecture", "null"))
    return None if architecture is None else build_model(architecture, source)


def _last_row(content: dict[str, Any]) -> dict[str, float]:
    history = json.loads(content["history"])
    return history[-1] if history else {}


def _card(recipe: Recipe, content: dict[str, Any]) -> dict[str, Any]:
    last = {k: v for k, v in _last_row(content).items() if math.isfinite(v)}
    return {
        "name": recipe.name,
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "steps": content["step"],
        "seconds": round(content["seconds"], 1) if "seconds" in content else None,
        "versions": versions("torch", "deepinv", "numpy"),
        "validation": last,
        "psnr": {"validation": {k[5:]: round(v, 3) for k, v in last.items() if k.startswith("psnr_")}},
    }
