"""What ``icgn train`` does: read a recipe and pictures, train, and write the model with its card."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import icgn
from icgn import datasets
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.pretrained import ModelError, build_model, load_pretrained, save_model
from icgn.training.fit import CHECKPOINT, TrainingError, fit, read_checkpoint, recipe_of
from icgn.training.recipe import Recipe

_CROP = 160  # side of the validation pictures, so that a validation takes seconds
_BSDS500_LICENCE = (
    "BSDS500: non-commercial research and educational purposes. These are the terms on which its authors offer the"
    " photographs; see https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
)
_OWN_LICENCE = "not recorded: pictures of whoever ran the training"


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a model is trained and validated on.

    Attributes
    ----------
    name, licence : str
        of the data, for the card.
    training : list of Tensor
        pictures (C, H, W): bytes where those hold them exactly, else floats in [0, 1].
    validation : list of Tensor
        pictures (C, H, W) in [0, 1].
    """

    name: str
    licence: str
    training: list[Tensor]
    validation: list[Tensor]

    def card(self) -> dict[str, Any]:
        """Describe the data in a model's card."""
        return {
            "name": self.name,
            "pictures": len(self.training),
            "validation_pictures": len(self.validation),
            "licence": self.licence,
        }


def train(
    recipe_file: str | Path,
    data: str | Path,
    out: str | Path,
    resume: bool = False,
    device: str | torch.device = "cpu",
    console: Console | None = None,
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
    device : str or torch.device
        where to train.
    console : rich.console.Console, optional
        where progress is shown; default standard error.

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
    regularizer = build(recipe, str(recipe_file)).to(device)
    pictures = load_pictures(data, regularizer.channels or 3, recipe.patch)
    weights = out / f"{recipe.name}.safetensors"

    def write() -> None:
        export(out / CHECKPOINT, weights, {"recipe_file": recipe_file.name, "data": pictures.card()})

    try:
        fit(
            regularizer,
            recipe,
            pictures.training,
            pictures.validation,
            out,
            resume=resume,
            console=console,
            on_validation=lambda row: write(),
        )
    except KeyboardInterrupt:
        write()
        raise
    # A run that was complete when it was resumed made no validation.
    write()
    return weights


def build(recipe: Recipe, source: str = "recipe") -> ConvexRegularizer:
    """Make the regularizer that a recipe starts from, trainable: new, seeded by the recipe, or the model of its `init`.

    Raises
    ------
    ModelError
        if the class or its arguments are unknown, if there is no model of the name in `init`, or if that model is not
        of the architecture that the recipe asks for; `source` is named in the message.
    """
    if not recipe.init:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return build_model(recipe.model, source)
    model = load_pretrained(recipe.init)
    model.train().requires_grad_(True)
    architecture = {"type": type(model).__name__, **model.architecture}
    for key, wanted in recipe.model.items():
        if key not in architecture or architecture[key] != wanted:
            has = architecture.get(key, "no such argument")
            raise ModelError(f"{source}: init {recipe.init!r} has {key} {has!r}, but [model] asks for {wanted!r}")
    return model


def load_pictures(root: str | Path, channels: int, smallest: int = 1) -> Pictures:
    """Read the pictures to train on: BSDS500, or a folder of photographs.

    Of BSDS500, train and test are trained on, and every fourth picture of val that is not in BSD68 validates. Of a
    folder, the last tenth by name, at least one, validates. Validation pictures are cropped to their central 160 x 160
    pixels. Pictures that cannot be read or are too small are left out with a warning that names them.

    Parameters
    ----------
    root : path
        root of BSDS500, as for :func:`icgn.datasets.bsds500`, with ``BSD68.txt``; or the folder.
    channels : int
        1 for gray, 3 for colour.
    smallest : int
        height and width that a picture must have.

    Raises
    ------
    ValueError
        if `channels` is neither 1 nor 3, or fewer than two pictures are left.
    FileNotFoundError
        if `root` is no folder or holds no pictures.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels}, expected 1 for gray pictures or 3 for colour")
    gray = channels == 1
    if _is_bsds500(root):
        name, licence = "BSDS500, train and test", _BSDS500_LICENCE
        training = [image for split in ("train", "test") for image in _large(root, split, gray, smallest)]
        validation = list(_large(root, "val-rest", gray, smallest))[::4]
    else:
        name, licence = f"folder {Path(root).resolve().name}", _OWN_LICENCE
        images = list(_large(root, None, gray, smallest))
        kept = len(images) - max(1, len(images) // 10)
        training, validation = images[:kept], images[kept:]
    if not training:
        raise ValueError(
            f"{root}: got {len(validation)} pictures of at least {smallest} x {smallest}, expected at least 2:"
            " one to train on, one to validate on"
        )
    return Pictures(name, licence, training, [_centre(_floats(image)) for image in validation])


def export(checkpoint: str | Path, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write the model in a checkpoint as weights and card, ready for :func:`icgn.load_pretrained`.

    The card holds the architecture, the recipe, its seed, the steps made, the seconds they took, the versions of the
    packages, the last row of the validation history and its PSNR by noise level.

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
        if it is damaged, or its weights do not fit the model of its recipe.
    ModelError
        if the model cannot be built, or `path` has another suffix.
    """
    content = read_checkpoint(checkpoint)
    recipe = recipe_of(content, checkpoint)
    model = build(recipe, str(checkpoint))
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise TrainingError(f"{checkpoint}: the weights do not fit the model of the recipe: {error}") from error
    save_model(model, path, {**_card(recipe, content), **(extra or {})})


def _card(recipe: Recipe, content: dict[str, Any]) -> dict[str, Any]:
    history = json.loads(content["history"])
    last = history[-1] if history else {}
    packages = {name: version(name) for name in ("torch", "deepinv", "numpy")}
    return {
        "name": recipe.name,
        "recipe": recipe.to_dict(),
        "seed": recipe.seed,
        "steps": content["step"],
        "seconds": round(content["seconds"], 1) if "seconds" in content else None,
        "versions": {"icgn": icgn.__version__, "python": platform.python_version(), **packages},
        "validation": last,
        "psnr": {"validation": {k[5:]: round(v, 3) for k, v in last.items() if k.startswith("psnr_")}},
    }


def _is_bsds500(root: str | Path) -> bool:
    try:
        datasets.bsds500(root, "train")
    except FileNotFoundError:
        return False
    return True


def _large(root: str | Path, split: str | None, gray: bool, smallest: int) -> Iterator[Tensor]:
    """Read the pictures that are large enough."""
    pictures = datasets.folder(root, gray) if split is None else datasets.bsds500(root, split, gray)
    for sample in pictures:
        height, width = sample.image.shape[-2:]
        if min(height, width) >= smallest:
            yield _compact(sample.image)
        else:
            small = f"{height} x {width} pixels, expected at least {smallest} x {smallest}"
            warnings.warn(f"left out: {Path(root) / sample.name}: {small}", stacklevel=2)


def _compact(image: Tensor) -> Tensor:
    """Store 8-bit pictures as bytes: photographs of a camera would fill the memory with floats."""
    levels = (image * 255).round().to(torch.uint8)
    return levels if torch.equal(_floats(levels), image) else image


def _floats(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _centre(image: Tensor) -> Tensor:
    top, left = (max(0, (side - _CROP) // 2) for side in image.shape[-2:])
    return image[:, top : top + _CROP, left : left + _CROP].clone()
