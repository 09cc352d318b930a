"""A network whose level follows a map: more is removed where there is more noise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from icgn.functionals.functional import per_image
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.base import ConvexRegularizer
from icgn.regularizers.conditional import ConditionalICGN
from icgn.regularizers.ridge import RidgeICGN
from icgn.regularizers.ridge_head import RidgeHead

# Levels at which saturations are computed; between them they are log-linear.
_KNOTS = 33


class LocalLevels(ConvexRegularizer):
    r"""A ridge or conditional network whose noise level is :math:`\sigma\, m(p)` at the pixel p.

    .. math::

        \nabla R_m(x; \sigma) = W^T \operatorname{clip}(k(\sigma)\, W x, -\lambda(\sigma m), +\lambda(\sigma m))

    The saturations of each filter are those of the level at its place; the slopes, and with them the Lipschitz
    constant, are those of :math:`\sigma`. It is convex for every map, and with m = 1 it is the network itself. A
    conditional network sees the map where it sees the level.

    Parameters
    ----------
    regularizer : RidgeICGN or ConditionalICGN
        R, with a border that keeps the size of pictures.
    relative : Tensor
        m > 0, (B, 1, H, W), or (1, 1, H, W) for all pictures; the level of a pixel over sigma. :meth:`of` makes it of a
        map of levels.

    Raises
    ------
    TypeError
        for another regularizer.
    ValueError
        for a map of another shape, or with numbers that are not positive and finite.
    """

    def __init__(self, regularizer: ConvexRegularizer, relative: Tensor) -> None:
        super().__init__()
        if not isinstance(regularizer, RidgeICGN | ConditionalICGN):
            raise TypeError(
                f"regularizer: got {type(regularizer).__name__}, expected a RidgeICGN or ConditionalICGN, whose"
                " saturations can follow a map"
            )
        if relative.ndim != 4 or relative.shape[1] != 1:
            raise ValueError(f"relative: got shape {tuple(relative.shape)}, expected (B, 1, H, W)")
        if not bool((torch.isfinite(relative) & (relative > 0)).all()):
            raise ValueError("relative: got levels that are not positive and finite, expected a map > 0")
        self.regularizer = regularizer
        self.register_buffer("relative", relative.detach().clone(), persistent=False)
        self.channels, self.min_size = regularizer.channels, regularizer.min_size
        self.sigma_range, self.looseness = regularizer.sigma_range, regularizer.looseness

    relative: Tensor

    @classmethod
    def of(cls, regularizer: ConvexRegularizer, levels: Tensor) -> tuple[LocalLevels, Tensor]:
        """The regularizer of a map of levels, and the sigma to ask it for: the root mean square of each map, (B,).

        Parameters
        ----------
        regularizer : RidgeICGN or ConditionalICGN
            R.
        levels : Tensor
            noise level of each pixel, (B, 1, H, W), in the unit of the pictures.
        """
        if levels.ndim != 4 or levels.shape[1] != 1:
            raise ValueError(f"levels: got shape {tuple(levels.shape)}, expected a map (B, 1, H, W)")
        sigma = levels.square().mean((1, 2, 3)).sqrt()
        return cls(regularizer, levels / per_image(sigma, levels)), sigma

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> BankFunctional:
        r"""The functional :math:`R_m(\cdot; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        functional = self.regularizer.at(sigma, condition)
        ridge = self._ridge(condition)
        assert isinstance(functional.head, RidgeHead)
        assert sigma is not None
        mask = self._saturations(ridge, sigma).to(functional.bank.operator.weight)
        own = functional.head.mask
        return replace(functional, head=replace(functional.head, mask=mask if own is None else own.to(mask) * mask))

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        if not isinstance(self.regularizer, ConditionalICGN):
            return super().condition(x, sigma, residual)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
        return self.regularizer.condition(x, level * self.relative.to(x), residual)

    def check_image(self, x: Tensor) -> None:
        self.regularizer.check_image(x)
        if self.relative.shape[-2:] != x.shape[-2:] or len(self.relative) not in (1, len(x)):
            raise ValueError(
                f"x: got shape {tuple(x.shape)} for a map of levels of shape {tuple(self.relative.shape)}, expected one"
                " map, or one for each picture, of their size"
            )

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        self.regularizer.check_condition(condition, x)

    def _ridge(self, condition: Tensor | None) -> RidgeICGN:
        inner = self.regularizer
        if isinstance(inner, RidgeICGN):
            return inner
        return inner.first if condition is None else inner.ridge

    def _saturations(self, ridge: RidgeICGN, sigma: float | Tensor) -> Tensor:
        """Saturations at the levels of the map over those at sigma, (B, K, H, W)."""
        like = ridge.bank.raw
        own = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).reshape(-1, 1, 1, 1)
        levels = own * self.relative.to(like)
        knots = torch.linspace(0, 1, _KNOTS, dtype=like.dtype, device=like.device)
        low, high = levels.min().log(), levels.max().log() + 1e-6
        known = (low + (high - low) * knots).exp()
        curves = ridge.curves(known)[0].sum(1).log()  # (knots, K)
        place = (levels.log() - low) / (high - low) * (_KNOTS - 1)
        before = place.floor().long().clamp(0, _KNOTS - 2)
        part = place - before
        flat = before[:, 0]
        lower, upper = curves[flat], curves[flat + 1]  # (B, H, W, K)
        logs = torch.lerp(lower, upper, part[:, 0, ..., None])
        base = ridge.curves(own.reshape(-1))[0].sum(1).log()
        ratio: Tensor = (logs - base[:, None, None]).exp().permute(0, 3, 1, 2)
        return ratio
