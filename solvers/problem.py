"""The convex problem that a restored image solves."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, Protocol

import deepinv
import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.box import Box
from icgn.functionals.data import DataFunctional, data_functional
from icgn.functionals.functional import ConvexFunctional, per_image
from icgn.functionals.intensities import RangeOption, checked_range
from icgn.functionals.noise import Correlated, Noise, White, described
from icgn.functionals.physics import check_physics, converted, is_identity
from icgn.functionals.scaled import scaled
from icgn.solvers.objective import Objective
from icgn.solvers.units import brought, found_range

_RULES = ("discrepancy", "sure")
_NOT_DIFFERENTIABLE = (deepinv.optim.L1, deepinv.optim.IndicatorL2)


class Regularizer(Protocol):
    """The interface of a regularizer that a problem needs: see :class:`icgn.regularizers.ConvexRegularizer`."""

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        """The frozen functional at sigma."""

    @property
    def looseness(self) -> Sequence[float]:
        """One entry per condition that is computed; see :func:`icgn.solvers.conditioning.conditioned`."""

    def check_image(self, x: Tensor) -> None:
        """Raise unless x is an image batch that the regularizer takes."""

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        """Raise unless the regularizer takes the condition for images like x."""

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition that a solution and its residual lead to."""


@keyword_only
@dataclass(frozen=True, eq=False)
class Problem:
    r"""Minimize :math:`F(x) = \sigma^2 D(A x; y) + \text{weight} \cdot R(x; \sigma)` over a box, image by image.

    Without `data_fidelity`, :math:`D = |A x - y|^2 / (2\,\text{noise}^2)`: denoising is
    :math:`\tfrac12 |x - y|^2 + R(x; \sigma)`, and rescaling A, y and noise together changes nothing.

    Parameters
    ----------
    y : Tensor
        measurements, batch first, floating point.
    physics : deepinv.physics.LinearPhysics
        the operator A.
    regularizer : icgn.regularizers.ConvexRegularizer
        R.
    sigma : float or Tensor
        noise level that the regularizer is asked to remove, in intensities, one or one per image.
    noise : float, Tensor, Noise or deepinv.physics.NoiseModel, optional
        standard deviation of the noise in the units of y, one or one per image; default sigma. Or a map of it, which
        broadcasts to y, or a description (:mod:`icgn.functionals.noise`), which gives D: Poisson and Poisson-Gaussian
        noise a likelihood of counts.
    data_fidelity : deepinv.optim.DataFidelity, optional
        convex and differentiable; its own scale replaces `noise`.
    weight : float, Tensor or str
        nonnegative factor of R, one or one per image; or ``"discrepancy"`` or ``"sure"``, by which
        :func:`~icgn.solvers.solve` finds one per image from y and the noise (:mod:`icgn.solvers.weight`); to denoise
        large images, from a part of y.
    box : (float, float) or Box, optional
        bounds of the intensities; for a Poisson likelihood they are nonnegative in any case.
    condition : Tensor, optional
        condition of a conditional regularizer.
    range : (float, float) or "auto", optional
        the intensities that are 0 and 1 to the regularizer, in the unit of the images:
        R is :math:`s^2 R((x - b) / s; \sigma / s)` then, of images from b to b + s, exactly equivariant; sigma, noise,
        box and what is proved are in their unit. ``"auto"`` finds one for all images, by
        :func:`icgn.pictures.intensity_range` of y for denoising and of a rough least-squares image otherwise; the
        attribute is what was found. The measurement is rounded to :math:`2^{-28}` of its noise there, so that
        measurements that differ by their unit, and by rounding, are solved by the same steps: in float64 bit by bit.
        Default: the images are in [0, 1]. Only with Gaussian noise.

    Raises
    ------
    TypeError
        for a measurement that is not a floating-point tensor, or a physics that is not a linear deepinv physics.
    ValueError
        for a wrong shape, a negative or non-finite sigma, noise or weight, an empty box, a condition that does not fit
        the images or that the regularizer does not take, a data fidelity that is not differentiable, negative counts of
        a Poisson likelihood, a physics that does not fit y, maps everything to zero, or whose adjoint is none
        (:func:`icgn.functionals.physics.check_physics`), or a measurement without any image of finite values. If some
        images of a batch are finite, the others are reported as invalid input in the solution and do not disturb them.
    """

    y: Tensor
    physics: Any
    regularizer: Regularizer
    sigma: float | Tensor
    _: KW_ONLY
    noise: float | Tensor | Noise | deepinv.physics.NoiseModel | None = None
    data_fidelity: Any = None
    weight: float | Tensor | str = 1.0
    box: Box | tuple[float, float] | None = None
    condition: Tensor | None = None
    range: RangeOption = None

    def __post_init__(self) -> None:
        if not isinstance(self.y, Tensor):
            raise TypeError(f"y: got {type(self.y).__name__}, expected a torch.Tensor, batch first")
        if self.y.is_complex():
            raise TypeError(
                "y: got complex numbers, expected two real channels, real and imaginary part (torch.view_as_real)"
            )
        if not self.y.is_floating_point():
            raise TypeError(f"y: got {self.y.dtype}, expected a floating-point tensor; divide 8-bit images by 255")
        if self.y.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"y: got {self.y.dtype}, expected torch.float32 or torch.float64")
        if not isinstance(self.physics, deepinv.physics.LinearPhysics):
            raise TypeError(f"physics: got {type(self.physics).__name__}, expected a deepinv.physics.LinearPhysics")
        if self.y.ndim < 2 or self.y.numel() == 0:
            raise ValueError(f"y: got shape {tuple(self.y.shape)}, expected a nonempty batch, e.g. (B, C, H, W)")
        if isinstance(self.data_fidelity, _NOT_DIFFERENTIABLE):
            raise ValueError(
                f"data_fidelity: got {type(self.data_fidelity).__name__}, expected a differentiable one (L2, Poisson)"
            )
        object.__setattr__(self, "noise", _reduced(self.noise))
        object.__setattr__(self, "box", self._domain(Box.of(self.box)))
        for name in ("sigma", "noise", "weight"):
            self._check_number(name)
        if self.noise is not None and self.data_fidelity is not None:
            raise ValueError(
                f"noise: got {self.noise} beside the data fidelity {type(self.data_fidelity).__name__}, whose own scale"
                " counts; expected one of the two"
            )
        self._set_range()
        self._check_unit()
        self._check_rule()
        if not bool(torch.isfinite(self._data_weight).all()):
            raise ValueError(f"noise: got {self.noise}, expected one for which (sigma / noise)^2 is finite")
        if not bool(self.valid.any()):
            bad = int((~torch.isfinite(self.y)).sum())
            raise ValueError(f"y: got {bad} NaN or infinite values, expected finite measurements")
        check_physics(self.physics, self.y)
        self.regularizer.check_image(self.start())
        if self.condition is not None:
            self.regularizer.check_condition(self.condition, self.start())
        self._check_domain()

    @cached_property
    def valid(self) -> Tensor:
        """Which measurements of the batch are finite, bool (B,)."""
        return torch.isfinite(self.y).flatten(1).all(1)

    @cached_property
    def index(self) -> Tensor:
        """The places of the measurements that are finite, int64."""
        return torch.nonzero(self.valid).flatten()

    @cached_property
    def objective(self) -> Objective:
        """F as a frozen functional in the precision of y; constants are computed once."""
        with torch.no_grad():
            return self.build_objective()

    def build_objective(self) -> Objective:
        """F built anew, attached to the automatic differentiation graph of the regularizer's parameters and of y."""
        if isinstance(self.weight, str):
            raise ValueError(f"weight: {self.weight!r} is a rule, not a number yet; solve finds it")
        low, scale = self._low, self._scale
        regularizer = self.regularizer.at(self.sigma / scale, self.condition)
        regularizer = regularizer if (low, scale) == (0, 1) else scaled(regularizer, low, scale)
        regularizer = regularizer.to(self.y.dtype).blockwise(self._start.shape)
        box = self.box if isinstance(self.box, Box) else None
        return Objective.of(self._data, regularizer, self._data_weight, self._per_image(self.weight), box)

    def brought(self) -> Problem:
        """The problem of images brought from their range to [0, 1]; itself where there is no range."""
        if self.range is None:
            return self
        new = self._copy("objective", "_start", "_data", "_described", "_data_weight")
        limits = self._low, self._low + self._scale
        y, _, sigma, noise = brought(self.y, self.physics, limits, self.sigma, self.noise)
        box = self.box.brought(self._low, self._scale) if isinstance(self.box, Box) else None
        for name, value in (("y", y), ("sigma", sigma), ("noise", noise), ("box", box), ("range", None)):
            object.__setattr__(new, name, value)
        return new

    def given(self, *, weight: float | Tensor | str | None = None, condition: Tensor | None = None) -> Problem:
        """The same problem with another weight or condition; only what is new is checked.

        Parameters
        ----------
        weight : float, Tensor or str, optional
            factor of R, as the attribute.
        condition : Tensor, optional
            condition of a conditional regularizer.

        Raises
        ------
        ValueError
            for a weight that is none, or a condition that does not fit the images.
        """
        new = self._copy("objective")
        if weight is not None:
            object.__setattr__(new, "weight", weight)
            new._check_number("weight")
            new._check_rule()
        if condition is not None:
            self.regularizer.check_condition(condition, self.start())
            object.__setattr__(new, "condition", condition)
        return new

    def to(self, dtype: torch.dtype) -> Problem:
        """The same problem in another precision; a physics that cannot follow raises ``ValueError``."""
        y = self.y.to(dtype)
        physics = converted(self.physics, y)
        if physics is None:
            raise ValueError(f"dtype: {type(self.physics).__name__} cannot compute in {dtype}")
        new = self._copy("objective", "_start", "_data", "_described", "_data_weight")
        object.__setattr__(new, "y", y)
        object.__setattr__(new, "physics", physics)
        return new

    def _copy(self, *forgotten: str) -> Problem:
        """A copy that is not checked again, without some of what was computed."""
        new = copy.copy(self)
        for name in forgotten:
            new.__dict__.pop(name, None)
        return new

    def start(self) -> Tensor:
        """The default starting images: y for denoising, the adjoint of the measurements otherwise, in the box.

        For Poisson data they are constant, of the brightness of the measurements, and so inside the domain.
        """
        return self._start

    @cached_property
    def _start(self) -> Tensor:
        x = self.y if is_identity(self.physics) else self.physics.A_adjoint(self.y)
        if self._counts:
            x = self._flat(x)
        return x if self.box is None else self.feasible(x)

    def _flat(self, like: Tensor) -> Tensor:
        """Constant positive images that are measured as bright as y."""
        ones = torch.ones_like(like)
        measured = ones if is_identity(self.physics) else self.physics.A(ones)
        level = self.y.flatten(1).sum(1) / measured.flatten(1).sum(1)
        return ones * per_image(level.nan_to_num(1.0, 1.0, 1.0).clamp_min(1e-3), ones)

    def feasible(self, x: Tensor) -> Tensor:
        """The nearest images in the box."""
        return self.box.project(x) if isinstance(self.box, Box) else x

    @property
    def _counts(self) -> bool:
        """Whether D is a likelihood of counts, finite for nonnegative pictures only."""
        if isinstance(self.noise, Noise):
            return self.noise.counts
        return isinstance(self.data_fidelity, deepinv.optim.PoissonLikelihood)

    @cached_property
    def _data(self) -> DataFunctional:
        return self._described[0]

    @cached_property
    def _described(self) -> tuple[DataFunctional, Tensor]:
        """The data term as a functional, and its factor before sigma^2."""
        if isinstance(self.noise, Noise):
            return self.noise.data(self.y, self.physics)
        return data_functional(self.y, self.physics, self.data_fidelity), torch.ones((), dtype=torch.float64)

    @cached_property
    def _data_weight(self) -> Tensor:
        sigma = self._per_image(self.sigma)
        if isinstance(self.noise, Noise):
            return sigma.square() * self._described[1].to(sigma)
        if isinstance(self.data_fidelity, deepinv.optim.L2):
            return sigma.square() * float(self.data_fidelity.norm)
        if self.data_fidelity is not None:
            return sigma.square()
        # noise = sigma stays 1 at sigma = 0, where the regularizer vanishes and y is the solution.
        return torch.ones_like(sigma) if self.noise is None else (sigma / self._per_image(self.noise)).square()

    def _per_image(self, value: float | Tensor) -> Tensor:
        # A copy: the caller's tensor may change.
        numbers = torch.as_tensor(value, dtype=torch.float64, device=self.y.device).reshape(-1).clone()
        return numbers.expand(len(self.y))

    def _domain(self, box: Box | None) -> Box | None:
        """The box within the domain of the data term: Poisson means are not negative."""
        if not self._counts:
            return box
        return Box(low=0.0) if box is None else Box(low=max(box.low, 0.0), high=box.high)

    def _check_domain(self) -> None:
        """Building the data term checks counts; the start must have a finite value."""
        data = self._data
        if self._counts:
            with torch.no_grad():
                value = data.fn(self.start())[self.valid]
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    "y: got positive counts where every image in the box is measured as 0, expected a background > 0"
                    " or a physics that sees them"
                )

    @property
    def _low(self) -> float:
        return 0.0 if self.range is None else float(self.range[0])

    @property
    def _scale(self) -> float:
        return 1.0 if self.range is None else float(self.range[1]) - float(self.range[0])

    def _set_range(self) -> None:
        """Find or check the range."""
        if self.range is None:
            return
        noise = self.sigma if self.noise is None else self.noise
        known = noise if isinstance(noise, float | int | Tensor | White) and self.data_fidelity is None else None
        if known is None:
            what = noise.text() if isinstance(noise, Noise) else type(self.data_fidelity).__name__
            raise ValueError(
                f"range: got {self.range} beside a data term that is {what}, expected white Gaussian noise; otherwise"
                " take icgn.ScaledRegularizer as the regularizer"
            )
        limits = found_range(self.y, self.physics, known) if self.range == "auto" else checked_range(self.range)
        object.__setattr__(self, "range", limits)

    def _check_unit(self) -> None:
        """Refuse a sigma that can only be in gray levels, where the regularizer says what it was trained for."""
        reach = getattr(self.regularizer, "sigma_range", None)
        largest = float(torch.as_tensor(self.sigma).max())
        if self.range is not None:
            return
        if reach is not None and reach[1] < 1 < largest:
            raise ValueError(f"sigma: got {largest:g}, expected intensities, white being 1; divide gray levels by 255")

    def _check_rule(self) -> None:
        """Rules for the weight compare the residual with one level of noise per image."""
        if isinstance(self.weight, str) and isinstance(self.noise, Noise):
            raise ValueError(
                f"weight: {self.weight!r} needs one noise level per image, got a noise that is {self.noise.text()};"
                " expected a number"
            )

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, Noise):
            return
        if name == "weight" and isinstance(value, str):
            if value not in _RULES:
                raise ValueError(f"weight: got {value!r}, expected a number >= 0, or one of {', '.join(_RULES)}")
            return
        if value is None:
            if name == "sigma":
                raise ValueError("sigma: got None, expected the noise level in intensities")
            return
        v = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        if len(v) not in (1, len(self.y)):
            raise ValueError(f"{name}: got {len(v)} values for {len(self.y)} images, expected one or one per image")
        smallest = float(v.min()) if not bool(torch.isnan(v).any()) else math.nan
        positive = name == "noise"
        if not (smallest > 0 if positive else smallest >= 0) or not bool(torch.isfinite(v).all()):
            bound = "> 0" if positive else ">= 0"
            raise ValueError(f"{name}: got {v.tolist()}, expected finite numbers {bound}")


def _reduced(noise: Any) -> Any:
    """A noise as numbers, one or one per image, where it is white in the data term, else its description."""
    found = None if noise is None else described(noise)
    if isinstance(found, Correlated):
        return found.level
    return found.level if isinstance(found, White) and not found.is_map else found
