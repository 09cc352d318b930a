"""The base of every regularizer: a deepinv prior with a rigorous convex contract."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from deepinv.optim import Prior
from torch import Tensor

from icgn.functionals.functional import ConvexFunctional
from icgn.functionals.sums import SumFunctional
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
    looseness: Sequence[float] = ()
    """One entry per condition that is computed, see :class:`icgn.regularizers.ConditionalICGN`; empty without any."""

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

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition of a conditional regularizer, computed from a first solution.

        Parameters
        ----------
        x : Tensor
            the solution, (B, C, H, W).
        sigma : float or Tensor
            noise level, in intensities, one or one per image.
        residual : Tensor
            the negative gradient of the data term at x, over the weight of the regularizer, shape of x.

        Returns
        -------
        Tensor
            the condition, with the batch first.

        Raises
        ------
        TypeError
            if the regularizer is not conditional.
        """
        raise TypeError(f"condition: {type(self).__name__} has none, expected a conditional regularizer")

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        """Raise ``ValueError`` unless a condition is for images of the size and number of x, or for one that fits."""
        if not self.looseness:
            self._refuse_condition(condition)
        shared = len(condition) == 1 and condition.ndim == 4
        if condition.shape[-2:] != x.shape[-2:] or not (shared or len(condition) == len(x)):
            raise ValueError(f"condition: got shape {tuple(condition.shape)}, expected one for images {tuple(x.shape)}")

    def given(self, condition: Tensor) -> GivenRegularizer:
        r"""The convex regularizer :math:`R_c` with a fixed condition c, for pictures of the size that c is for.

        It goes where a prior is expected: its ``fn``, ``grad`` and ``prox`` are those of :math:`R_c`.
        """
        return GivenRegularizer(self, condition)

    def fn(self, x: Tensor, sigma: float | Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        r"""Values :math:`R(x; \sigma)`, shape (B,)."""
        return self._bound(x, sigma).fn(x)

    def grad(self, x: Tensor, sigma: float | Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        r"""The gradient :math:`\nabla_x R(x; \sigma)`, shape of x."""
        return self._bound(x, sigma).grad(x)

    def hvp(self, x: Tensor, v: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        r"""The Hessian product :math:`\nabla^2_x R(x; \sigma) v`, shape of x.

        Parameters
        ----------
        x, v : Tensor
            images and directions, (B, C, H, W).
        sigma : float or Tensor, optional
            noise level, in intensities, one or one per image.
        """
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
            noise level, in intensities, one or one per image.
        *args, **kwargs
            further arguments, which deepinv's algorithms pass, are ignored.
        gamma : float or Tensor
            factor of R, nonnegative, one or one per image.
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
            hint = "; icgn.PerChannel(regularizer) takes each channel on its own" if self.channels == 1 else ""
            raise ValueError(f"x: got {x.shape[1]} channels, expected {self.channels} for {type(self).__name__}{hint}")
        if min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f"x: got {x.shape[-2]} x {x.shape[-1]} pixels, expected at least {self.min_size} x {self.min_size}"
                f" (the filter size of {type(self).__name__}); total variation takes any size (TotalVariation, --model"
                " tv), and a picture that is continued beyond its borders is larger (numpy.pad, mode 'symmetric')"
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
        conditional = [i for i, t in enumerate(terms) if t.looseness]
        if len(conditional) > 1:
            raise ValueError(f"terms: got {len(conditional)} conditional regularizers, expected at most one")
        self._conditional = conditional[0] if conditional else None
        self.looseness = terms[conditional[0]].looseness if conditional else ()

    def _terms(self) -> Iterator[ConvexRegularizer]:
        for term in self.terms:
            assert isinstance(term, ConvexRegularizer)
            yield term

    def check_image(self, x: Tensor) -> None:
        super().check_image(x)
        for term in self._terms():
            term.check_image(x)

    def condition(self, x: Tensor, sigma: float | Tensor, residual: Tensor) -> Tensor:
        """The condition of the conditional term, for what the other terms leave of the residual.

        Parameters
        ----------
        x : Tensor
            the solution, (B, C, H, W).
        sigma : float or Tensor
            noise level, in intensities, one or one per image.
        residual : Tensor
            the negative gradient of the data term at x, over the weight of the regularizer, shape of x.
        """
        if self._conditional is None:
            return super().condition(x, sigma, residual)
        rest = residual
        for i, (term, weight) in enumerate(zip(self._terms(), self.weights, strict=True)):
            if i != self._conditional:
                rest = rest - weight * term.grad(x, sigma)
        weight = self.weights[self._conditional]
        term = list(self._terms())[self._conditional]
        return term.condition(x, sigma, rest / weight if weight else torch.zeros_like(rest))

    def check_condition(self, condition: Tensor, x: Tensor) -> None:
        """As the conditional term checks it."""
        if self._conditional is None:
            super().check_condition(condition, x)
        else:
            list(self._terms())[self._conditional].check_condition(condition, x)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> SumFunctional:
        """The weighted sum of the terms at sigma; `condition` goes to the conditional one."""
        if self._conditional is None:
            self._refuse_condition(condition)
        functionals = [t.at(sigma, condition if i == self._conditional else None) for i, t in enumerate(self._terms())]
        return SumFunctional(functionals, [torch.tensor(w, dtype=torch.float64) for w in self.weights])


class GivenRegularizer(ConvexRegularizer):
    """A conditional regularizer with its condition fixed: see :meth:`ConvexRegularizer.given`."""

    def __init__(self, regularizer: ConvexRegularizer, condition: Tensor) -> None:
        super().__init__()
        if not regularizer.looseness:
            raise TypeError(f"regularizer: {type(regularizer).__name__} takes no condition")
        self.regularizer = regularizer
        self.register_buffer("fixed", condition.detach().clone())
        self.channels, self.min_size = regularizer.channels, regularizer.min_size
        self.sigma_range = regularizer.sigma_range

    def check_image(self, x: Tensor) -> None:
        self.regularizer.check_image(x)
        self.regularizer.check_condition(self._fixed, x)

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        self._refuse_condition(condition)
        return self.regularizer.at(sigma, self._fixed)

    @property
    def _fixed(self) -> Tensor:
        fixed = self.fixed
        assert isinstance(fixed, Tensor)
        return fixed


def check_image(x: Tensor, name: str = "x") -> None:
    """Raise ``TypeError`` or ``ValueError`` unless x is a nonempty floating-point batch (B, C, H, W)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a torch.Tensor (B, C, H, W)")
    if not x.is_floating_point():
        raise TypeError(f"{name}: got {x.dtype}, expected a floating-point tensor with intensities in [0, 1]")
    if x.ndim != 4:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected four dimensions (B, C, H, W)")
    if x.numel() == 0:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected at least one image, channel and pixel")


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


def check_widening(architecture: dict[str, Any], changes: dict[str, Any], grow: tuple[str, ...], free: str) -> None:
    """Raise ``ValueError`` unless all changes of an architecture are of `free`, or of arguments that `grow`."""
    for name, value in changes.items():
        if name not in (*grow, free):
            raise ValueError(f"{name}: cannot be changed, expected one of {', '.join((*grow, free))}")
        if name != free and value < architecture[name]:
            raise ValueError(f"{name}: got {value}, expected at least the {architecture[name]} of the network to widen")
