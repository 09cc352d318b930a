"""What is compared in a table: icgn's models and baselines, behind one call."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import icgn
from icgn.compat import keyword_only
from icgn.pictures import restore_picture
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.named import is_code, load_regularizer
from icgn.regularizers.pretrained import read_card

BASELINES = ("tv", "bm3d")


@keyword_only
@dataclass(frozen=True, eq=False)
class Restoration:
    """A restored picture and what it took.

    Attributes
    ----------
    image : Tensor
        (C, H, W), intensities.
    seconds, iterations : float
        wall-clock time, and iterations of the solver; nan for methods without.
    rms_distance : float
        certified, in intensities; nan where none is proved.
    status : str
        how the solver ended.
    """

    image: Tensor
    seconds: float
    _: KW_ONLY
    iterations: float = math.nan
    rms_distance: float = math.nan
    status: str = "no certificate"


def card_of(name: str) -> dict[str, Any]:
    """The card of a model; of one in a file of code its name, and the hash of the file in place of that of weights."""
    if not is_code(name):
        return read_card(name)
    file, _, own = name.rpartition(":")
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return {"name": own, "architecture": name, "sha256": digest}


class Restorer(ABC):
    """A denoising method.

    Attributes
    ----------
    name : str
        in tables.
    parameters : int
        number of learned parameters.
    """

    name: str
    parameters: int = 0

    def __call__(self, noisy: Tensor, sigma: float) -> Restoration:
        """Denoise a picture (C, H, W), intensities in [0, 1] plus noise of standard deviation sigma."""
        begin = time.perf_counter()
        result = self.restore(noisy, sigma)
        return replace(result, image=result.image.cpu(), seconds=time.perf_counter() - begin)

    @abstractmethod
    def restore(self, noisy: Tensor, sigma: float) -> Restoration:
        """As the call, which adds the seconds."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """All that is needed to repeat the method: hash of the weights, recipe, parameters, version of its package."""


class Model(Restorer):
    """A convex regularizer: the certified minimizer. A gray one takes the channels of a colour picture one by one.

    Parameters
    ----------
    name : str
        as for :func:`icgn.regularizers.load_regularizer`.
    device : torch.device
        where it computes.
    tol : float
        certified RMS distance, in intensities.
    weight : float or str
        factor of the regularizer, or the rule that finds it; one other than 1 is part of the name.

    Attributes
    ----------
    label : str
        the name without the weight: that of the folder where it is one, else that of the card.

    Raises
    ------
    ModelError
        if it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device, tol: float, weight: float | str = 1.0) -> None:
        self.regularizer: ConvexRegularizer = load_regularizer(name, device=device)
        self.card = card_of(name)
        self.parameters = sum(p.numel() for p in self.regularizer.parameters())
        self.tol, self.weight = tol, weight
        own = Path(name).resolve().name
        # A run is listed by its folder: several have the name of one recipe.
        self.call(own if Path(name).is_dir() else str(self.card.get("name", own)))

    def call(self, name: str) -> None:
        """Take a name, to which a weight other than 1 is added."""
        self.label = name
        weight = self.weight if isinstance(self.weight, str) else f"{self.weight:g}"
        self.name = name if self.weight == 1.0 else f"{name}, {weight}"

    def restore(self, noisy: Tensor, sigma: float) -> Restoration:
        result = restore_picture(noisy, sigma=sigma, regularizer=self.regularizer, tol=self.tol, weight=self.weight)
        return Restoration(
            image=result.picture.pixels,
            seconds=math.nan,
            iterations=float(result.solution.stats.iterations.double().mean()),
            rms_distance=result.rms_distance,
            status=str(result.status).split(":")[0],
        )

    def description(self) -> dict[str, Any]:
        kept = ("architecture", "sha256", "recipe_file", "seed", "steps", "data")
        weight = {} if self.weight == 1.0 else {"weight": self.weight}
        own = {k: self.card[k] for k in kept if k in self.card}
        return {"kind": "model", "icgn": icgn.__version__, "tol": self.tol, **weight, **own}


class TotalVariation(Restorer):
    r"""Total variation (Rudin, Osher, Fatemi 1992) by scikit-image, every channel on its own.

    Its weight is :math:`a \sigma^b`, a and b fitted on photographs that are not those of the test
    (docs/decisions.md).
    """

    name = "tv"
    factor, exponent = 1.469, 1.351
    tolerance, iterations = 1e-6, 500

    def weight(self, sigma: float) -> float:
        """The weight at a noise level in intensities."""
        return self.factor * sigma**self.exponent

    def restore(self, noisy: Tensor, sigma: float) -> Restoration:
        from skimage import restoration as skimage_restoration

        tv: Any = skimage_restoration  # untyped
        channels = [
            tv.denoise_tv_chambolle(c.double().numpy(), self.weight(sigma), self.tolerance, self.iterations)
            for c in noisy.cpu()
        ]
        return Restoration(torch.stack([torch.from_numpy(c) for c in channels]).to(noisy.dtype), math.nan)

    def description(self) -> dict[str, Any]:
        own = {"factor": self.factor, "exponent": self.exponent}
        limits = {"eps": self.tolerance, "max_num_iter": self.iterations}
        return {"kind": "skimage.restoration.denoise_tv_chambolle", **_versions("scikit-image"), **own, **limits}


class BM3D(Restorer):
    """BM3D (Dabov et al. 2007) by the package ``bm3d`` of its authors, through deepinv.

    Raises
    ------
    ModuleNotFoundError
        if ``bm3d`` is not installed.
    """

    name = "bm3d"

    def __init__(self) -> None:
        try:
            import bm3d  # noqa: F401
        except ImportError:
            raise ModuleNotFoundError("bm3d is not installed, expected: pip install bm3d") from None
        from deepinv.models import BM3D as Denoiser  # noqa: N811

        self._denoiser = Denoiser()

    def restore(self, noisy: Tensor, sigma: float) -> Restoration:
        return Restoration(self._denoiser(noisy[None].cpu(), sigma)[0].to(noisy.dtype), math.nan)

    def description(self) -> dict[str, Any]:
        return {"kind": "deepinv.models.BM3D", **_versions("deepinv", "bm3d")}


@keyword_only
def make_restorer(name: str, device: torch.device, tol: float, *, weight: float | str = 1.0) -> Restorer:
    """Make a method by its name.

    Parameters
    ----------
    name : str
        ``tv``, ``bm3d``, a shipped model, the path of one, or ``FILE.py:NAME`` as for
        :func:`icgn.regularizers.load_regularizer`.
    device : torch.device
        where models compute.
    tol : float
        certified RMS distance of models, in intensities.
    weight : float or str
        factor of a model's regularizer, or the rule that finds it for each picture.

    Raises
    ------
    ModelError
        for a model that cannot be loaded.
    ModuleNotFoundError
        for ``bm3d`` where it is not installed.
    """
    if name == "tv":
        return TotalVariation()
    return BM3D() if name == "bm3d" else Model(name, device, tol, weight)


def fingerprint(restorer: Restorer) -> str:
    """A hash of what a method's results depend on beside the pictures."""
    return hashlib.sha256(repr(sorted(restorer.description().items())).encode()).hexdigest()[:16]


def _versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}
