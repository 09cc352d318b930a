"""Proofs of how far a picture is from the global minimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.box import Box
from icgn.functionals.functional import ConvexFunctional, dot

# Rounding error of a sum of many numbers in float64, as a multiple of the sum and of its precision.
_ROUNDING = 32.0


@dataclass(frozen=True, eq=False)
class Certificate:
    r"""What is proved of each image of a batch; every tensor is float64 of shape (B,).

    For F convex and differentiable, :math:`\mu`-strongly convex, over a box, at the feasible point x with gradient g,

    .. math::

        G = \sum_i \max_{z_i \in [lo_i, hi_i]} g_i (x_i - z_i) - \tfrac{\mu_i}{2} (x_i - z_i)^2, \qquad
        F(x) - F^* \le G, \quad |x - x^*| \le \sqrt{2 G / \mu}.

    The :math:`\mu_i \ge \mu` are a diagonal that the Hessian is nowhere below: observed pixels of an inpainting problem
    have one, the others do not. Without a box and with one :math:`\mu`, :math:`G = |g|^2 / 2\mu` (Boyd and Vandenberghe
    2004, Convex Optimization, section 9.1.2). With :math:`\mu = 0` and a finite box G is the Frank-Wolfe gap (Jaggi
    2013, Revisiting Frank-Wolfe, section 2). With :math:`\mu = 0` the distance bound is inf, and without a box the gap
    is inf too: nothing is claimed that is not proved. No step size and no Lipschitz constant enters.

    Attributes
    ----------
    rms_distance : Tensor
        bound of :math:`|x - x^*| / \sqrt{n}`, in intensities.
    objective_gap : Tensor
        G, bound of F(x) - F*.
    residual : Tensor
        :math:`|P(x - g) - x| / \sqrt{n}`, the norm of the gradient where there is no box; 0 exactly at minimizers.
    objective : Tensor
        F(x).
    strong_convexity : Tensor
        the modulus mu that was used.
    dtype : torch.dtype
        the precision in which F and its gradient were evaluated. F is what the problem has frozen: of a problem in
        float32 the network's constants at sigma are rounded to float32, whatever the precision of the proof.
    """

    rms_distance: Tensor
    objective_gap: Tensor
    residual: Tensor
    objective: Tensor
    strong_convexity: Tensor
    dtype: torch.dtype

    @property
    def relative_gap(self) -> Tensor:
        r"""The objective gap over :math:`|F(x)|`, 0 where both vanish."""
        return torch.where(self.objective_gap == 0, 0.0, self.objective_gap / self.objective.abs())

    def beside(self, finer: Certificate, difference: Tensor) -> Certificate:
        r"""The certificate of images x, sharpened by that of other images x' of the same problem.

        Both prove a lower bound of the minimum: :math:`F(x) - F^* \le F(x) - F(x') + G'`, with the rounding of F, and
        :math:`|x - x^*| \le |x - x'| + |x' - x^*|`.

        Parameters
        ----------
        finer : Certificate
            the certificate of x'.
        difference : Tensor
            x - x', (B, C, H, W).
        """
        # The two values of F cancel: what their rounding may hide counts as gap.
        rounding = _ROUNDING * torch.finfo(torch.float64).eps * (self.objective.abs() + finer.objective.abs())
        apart_in_value = (self.objective - finer.objective).clamp_min(0) + rounding
        # fmin ignores a NaN, which proves nothing.
        gap = torch.fmin(self.objective_gap, apart_in_value + finer.objective_gap)
        n = difference[0].numel()
        apart = (dot(difference, difference) / n).sqrt()
        distance = torch.fmin(self.rms_distance, distance_bound(gap, self.strong_convexity, n))
        return replace(self, objective_gap=gap, rms_distance=torch.fmin(distance, apart + finer.rms_distance))

    def split(self) -> list[Certificate]:
        """One certificate of shape (1,) per image."""
        rows = [{n: getattr(self, n)[i : i + 1] for n in _NUMBERS} for i in range(len(self.residual))]
        return [Certificate(**row, dtype=self.dtype) for row in rows]

    @classmethod
    def join(cls, parts: Sequence[Certificate]) -> Certificate:
        """The certificates of several batches as one."""
        return cls(**{n: torch.cat([getattr(p, n) for p in parts]) for n in _NUMBERS}, dtype=parts[0].dtype)

    @classmethod
    def nothing(cls, device: torch.device, dtype: torch.dtype) -> Certificate:
        """The certificate of an image without any proof: every bound inf, the objective nan, mu 0."""
        inf = torch.full((1,), torch.inf, dtype=torch.float64, device=device)
        return cls(inf, inf, inf, inf * torch.nan, torch.zeros_like(inf), dtype)


_NUMBERS = ("rms_distance", "objective_gap", "residual", "objective", "strong_convexity")


@keyword_only
@torch.no_grad()
def certify(objective: ConvexFunctional, x: Tensor, *, box: Box | None = None) -> Certificate:
    r"""Bound how far images are from the global minimizer of a convex objective.

    The bound is the minimum over the box of the quadratic that strong convexity puts below F at x (Boyd and
    Vandenberghe 2004, Convex Optimization, section 9.1.2); with :math:`\mu = 0` and a finite box it is the Frank-Wolfe
    gap (Jaggi 2013). :class:`Certificate` has the formulas. It needs x alone, whatever found it.

    Parameters
    ----------
    objective : ConvexFunctional
        F, for example :attr:`Problem.objective`.
    x : Tensor
        images (B, C, H, W), inside the box.
    box : Box, optional
        bounds of the intensities; default none.

    Returns
    -------
    Certificate
        with one entry per image, evaluated in the precision of x and `objective`.
    """
    u = objective.linear(x)
    grad = objective.grad_from(u, x.shape).double()
    mu = objective.strong_convexity().to(x.device).expand(len(x)).double()
    # Nothing is proved of images that have become infinite or NaN.
    bounds = optimality(x.double(), grad, objective.hessian_floor(x).double(), box)
    gap, residual = (torch.where(torch.isnan(b), torch.inf, b) for b in bounds)
    del grad  # the memory of a large picture
    return Certificate(
        rms_distance=distance_bound(gap, mu, x[0].numel()),
        objective_gap=gap,
        residual=residual,
        objective=objective.potential(u).double(),
        strong_convexity=mu,
        dtype=objective.precision(x.dtype),
    )


def optimality(x: Tensor, grad: Tensor, floor: Tensor, box: Box | None) -> tuple[Tensor, Tensor]:
    """The gap bound G and the RMS residual of each image, (B,), from the gradient of F at x.

    Parameters
    ----------
    x : Tensor
        images (B, C, H, W), inside the box.
    grad : Tensor
        the gradient of F at x, shape of x.
    floor : Tensor
        the diagonal that the Hessian of F is nowhere below, broadcastable to x.
    box : Box or None
        bounds of the intensities.
    """
    rms = math.sqrt(x[0].numel())
    m = floor.to(x)
    if box is None and bool((m > 0).all()):
        return dot(grad, grad / m) / 2, dot(grad, grad).sqrt() / rms
    if box is None:
        # Not grad**2 / 2m, whose square underflows to 0 for small F.
        terms = torch.where(m > 0, grad * (grad / m) / 2, torch.where(grad != 0, torch.inf, 0.0))
        return terms.flatten(1).sum(1), dot(grad, grad).sqrt() / rms
    low, high = box.bounds(x)
    # x - z at the maximizing z; where mu = 0 it is the far end of the box, or nothing where the gradient is 0.
    far = torch.where(grad > 0, x - low, x - high)
    toward = torch.where(m > 0, grad / m, torch.where(grad != 0, far, 0.0))
    move = torch.minimum(torch.maximum(toward, x - high), x - low)
    # Toward an open end of the box without curvature the gap is inf, not 0 times inf.
    bend = torch.where(m > 0, m / 2 * move.square(), 0.0)
    gap = (torch.where(move != 0, grad * move, 0.0) - bend).flatten(1).sum(1)
    residual = box.project(x - grad) - x
    return gap.clamp_min(0), dot(residual, residual).sqrt() / rms


def distance_bound(gap: Tensor, mu: Tensor, pixels: int) -> Tensor:
    """The bound sqrt(2 G / mu) of |x - x*| as an RMS over all values of an image; inf where mu = 0.

    Parameters
    ----------
    gap : Tensor
        G, (B,).
    mu : Tensor
        the modulus of strong convexity, (B,).
    pixels : int
        number of values of an image.
    """
    bound = torch.where(mu > 0, torch.sqrt(2 * gap / (mu * pixels)), torch.inf)
    return torch.where(torch.isnan(bound), torch.inf, bound)
