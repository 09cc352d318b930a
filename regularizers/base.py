"""The base of every regularizer: a deepinv prior with a rigorous convex contract."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from deepinv.optim import Prior
from torch import Tensor

from icgn.solvers.functional import ConvexFunctional, SumFunctional
from icgn.solvers.prox import prox


class ConvexRegularizer(Prior):  # type: ignore[misc]
    r"""A family of convex, differentiable functions :math:`R(x; \sigma)` of images x (B, C, H, W).

    A subclass defines :meth:`at` and, where it applies, :attr:`channels`, :attr:`min_size` and :attr:`sigma_range`;
    everything else follows. Intensities are in [0, 1] and sigma, the noise level that the regularizer is asked to
    remove, is in the same unit: a float or a tensor of shape (), (1,) or (B,). Every method raises ``ValueError`` for
    an image of the wrong rank, channel count or size and for a negative or non-finite sigma, and ``TypeError`` for an
    image that is not floating point.

    It is a :class:`deepinv.optim.Prior` (explicit, ``fn`` of shape (B,)); further positional arguments, which deepinv's
    algorithms pass, are ignored. ``R1 + R2`` and ``a * R`` with a >= 0 are regularizers again.
    """

    channels: int | None = None
    min_size: int = 1
    sigma_range: tuple[float, float] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.explicit_prior = True

    @abstractmethod
    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        r"""The frozen functional :math:`R(\cdot; \sigma)`, all that a solver sees.

        Parameters
        ----------
        sigma : float or Tensor
            noise level, one or one per image.
        condition : Tensor, optional
            data-dependent input of a conditional regularizer; others raise ``ValueError`` when given one.
        """

    def fn(self, x: Tensor, sigma: float | Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        r"""Values :math:`R(x; \sigma)`, shape (B,)."""
        return self._bound(x, sigma).fn(x)

    def grad(self, x: Tensor, sigma: float | Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        r"""The gradient :math:`\nabla_x R(x; \sigma)`, shape of x."""
        return self._bound(x, sigma).grad(x)

    def hvp(self, x: Tensor, v: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        r"""The Hessian product :math:`\nabla^2_x R(x; \sigma) v`, shape of x."""
        return self._bound(x, sigma).hvp(x, v)

    def lipschitz(self, sigma: float | Tensor | None = None) -> Tensor:
        r"""Rigorous upper bound of the Lipschitz constant of :math:`\nabla R(\cdot; \sigma)` in float64, or inf."""
        return self.at(sigma).lipschitz()

    def strong_convexity(self, sigma: float | Tensor | None = None) -> Tensor:
        r"""Rigorous lower bound of the modulus of strong convexity of :math:`R(\cdot; \sigma)` in float64."""
        return self.at(sigma).strong_convexity()

    def prox(
        self,
        x: Tensor,
        sigma: float | Tensor | None = None,
        *args: Any,
        gamma: float | Tensor = 1.0,
        tol: float = 1e-5,
        max_iter: int = 2000,
        **kwargs: Any,
    ) -> Tensor:
        r"""The proximal map :math:`\arg\min_z \tfrac12 |z - x|^2 + \gamma R(z; \sigma)` to certified accuracy.

        Parameters
        ----------
        x : Tensor
            images (B, C, H, W).
        sigma : float or Tensor
            noise level.
        gamma : float or Tensor
            strength, nonnegative, one or one per image.
        tol : float
            the RMS distance to the exact proximal point, in intensities, is at most this: it is certified, since the
            objective is 1-strongly convex.
        max_iter : int
            iterations allowed.

        Raises
        ------
        RuntimeError
            if `tol` is not reached, with the certified distance that was.
        """
        return prox(self._bound(x, sigma), x, gamma, tol=tol, max_iter=max_iter)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Same as :meth:`fn`."""
        return self.fn(x, *args, **kwargs)

    def check_image(self, x: Tensor) -> None:
        """Raise ``TypeError`` or ``ValueError``, naming what is wrong, unless x is a batch this regularizer takes."""
        check_image(x)
        if self.channels is not None and x.shape[1] != self.channels:
            raise ValueError(f"x: got {x.shape[1]} channels, expected {self.channels} for {type(self).__name__}")
        if min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f"x: got {x.shape[-2]} x {x.shape[-1]} pixels, expected at least {self.min_size} x {self.min_size}"
                f" (the filter size of {type(self).__name__})"
            )

    def __add__(self, other: ConvexRegularizer) -> SumRegularizer:
        if not isinstance(other, ConvexRegularizer):
            return NotImplemented
        return SumRegularizer([self, other], [1.0, 1.0])

    def __rmul__(self, factor: float) -> SumRegularizer:
        if not isinstance(factor, int | float):
            return NotImplemented
        return SumRegularizer([self], [factor])

    __mul__ = __rmul__

    def _bound(self, x: Tensor, sigma: float | Tensor | None) -> ConvexFunctional:
        self.check_image(x)
        if isinstance(sigma, Tensor) and sigma.numel() not in (1, len(x)):
            raise ValueError(f"sigma: got {sigma.numel()} values for {len(x)} images, expected one or one per image")
        functional = self.at(sigma)
        return functional.to(x.dtype)

    def _refuse_condition(self, condition: Tensor | None) -> None:
        if condition is not None:
            raise ValueError(f"condition: {type(self).__name__} takes none, got a tensor of {tuple(condition.shape)}")


class SumRegularizer(ConvexRegularizer):
    r"""The conic combination :math:`\sum_j w_j R_j(x; \sigma)`, w_j >= 0; Lipschitz constants and moduli add up.

    Raises
    ------
    ValueError
        if a weight is negative or not finite, or if the terms take different channel counts.
    """

    def __init__(self, terms: Sequence[ConvexRegularizer], weights: Sequence[float]) -> None:
        super().__init__()
        for w in weights:
            if not 0 <= w < float("inf"):
                raise ValueError(f"weight: got {w}, expected a finite number >= 0 (a negative one is not convex)")
        channels = {t.channels for t in terms if t.channels is not None}
        if len(channels) > 1:
            raise ValueError(f"terms: got regularizers of {sorted(channels)} channels, expected the same number")
        self.terms = torch.nn.ModuleList(terms)
        self.weights = tuple(float(w) for w in weights)
        self.channels = channels.pop() if channels else None
        self.min_size = max(t.min_size for t in terms)
        ranges = [t.sigma_range for t in terms if t.sigma_range is not None]
        self.sigma_range = (max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else None

    def _terms(self) -> Iterator[ConvexRegularizer]:
        for term in self.terms:
            assert isinstance(term, ConvexRegularizer)
            yield term

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> SumFunctional:
        """The weighted sum of the terms at sigma; `condition` goes to every term."""
        functionals = [t.at(sigma, condition) for t in self._terms()]
        return SumFunctional(functionals, [torch.tensor(w, dtype=torch.float64) for w in self.weights])


def check_image(x: Tensor) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless x is a nonempty floating-point batch (B, C, H, W)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: got {type(x).__name__}, expected a torch.Tensor (B, C, H, W)")
    if not x.is_floating_point():
        raise TypeError(f"x: got {x.dtype}, expected a floating-point tensor with intensities in [0, 1]")
    if x.ndim != 4:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected four dimensions (B, C, H, W)")
    if x.numel() == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected at least one image, channel and pixel")


def check_sigma(sigma: float | Tensor | None, like: Tensor) -> Tensor:
    """Noise levels as a tensor of shape (1,) or (B,) in the dtype and device of `like`.

    Raises
    ------
    ValueError
        if sigma is missing, negative or not finite.
    """
    if sigma is None:
        raise ValueError("sigma: got None, expected the noise level in intensities (images in [0, 1])")
    s = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).reshape(-1)
    if not bool((torch.isfinite(s) & (s >= 0)).all()):
        raise ValueError(f"sigma: got {s.tolist()}, expected finite numbers >= 0, in intensities (images in [0, 1])")
    return s
