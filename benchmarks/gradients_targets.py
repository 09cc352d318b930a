r"""Convex functions with known gradients, and samples of them, for ``gradients.py``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

# Standard deviations after which the Gaussian is cut off, and Gauss-Legendre nodes per panel.
_REACH, _NODES = 9.0, 12
# Points whose quadrature is done at once.
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Samples:
    """Points (B, n) and gradients (B, n) of a function there.

    Raises
    ------
    TypeError, ValueError
        if they are not two floating-point tensors of one shape (B, n), of finite numbers.
    """

    points: Tensor
    gradients: Tensor

    def __post_init__(self) -> None:
        for name, values in (("points", self.points), ("gradients", self.gradients)):
            if not isinstance(values, Tensor) or not values.is_floating_point():
                given = values.dtype if isinstance(values, Tensor) else type(values).__name__
                raise TypeError(f"{name}: got {given}, expected a floating-point tensor (B, n)")
            if values.ndim != 2 or len(values) == 0:
                raise ValueError(f"{name}: got shape {tuple(values.shape)}, expected (B, n) with B at least 1")
            bad = (~torch.isfinite(values)).any(1).nonzero().flatten().tolist()
            if bad:
                raise ValueError(f"{name}: got nan or infinite numbers in rows {bad[:5]}, expected finite ones")
        if self.points.shape != self.gradients.shape:
            raise ValueError(
                f"gradients: got shape {tuple(self.gradients.shape)}, expected that of points,"
                f" {tuple(self.points.shape)}"
            )

    @property
    def dim(self) -> int:
        """The dimension n."""
        return self.points.shape[1]

    @property
    def size(self) -> float:
        """Root of the mean square of a component of the gradients."""
        return float(self.gradients.square().mean().sqrt())

    def to(self, dtype: torch.dtype) -> Samples:
        """The same numbers in another precision."""
        return Samples(self.points.to(dtype), self.gradients.to(dtype))


class Target(ABC):
    """A convex, differentiable function of vectors x (B, n) in float64, with the points where it is to be learned."""

    dim: int
    #: Bounds of the two coordinates of a picture of it, in the plane of :meth:`section`.
    box: tuple[float, float]

    @abstractmethod
    def fn(self, x: Tensor) -> Tensor:
        """Values, shape (B,)."""

    @abstractmethod
    def grad(self, x: Tensor) -> Tensor:
        """Gradients, shape (B, n)."""

    def points(self, count: int, generator: torch.Generator) -> Tensor:
        """Random points (count, n): uniform in the square of :attr:`box`."""
        low, high = self.box
        return low + (high - low) * torch.rand(count, self.dim, generator=generator, dtype=torch.float64)

    def samples(self, count: int, generator: torch.Generator) -> Samples:
        """Random points with their gradients."""
        x = self.points(count, generator)
        return Samples(x, self.grad(x))

    def section(self) -> tuple[Tensor, Tensor]:
        """Origin (n,) and orthonormal rows (2, n) of the plane that a picture shows."""
        return torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)


class Polynomial(Target):
    r"""The quartic :math:`c_0 x_1^4 + c_1 x_1^2 + c_2 x_1 x_2 + c_3 x_2^2 + c_4 x_2^3` on the unit square.

    The default is that of the paper (Richter-Powell, Lorraine, Amos 2021, arXiv:2111.12187).

    Raises
    ------
    ValueError
        if it is not convex on the square.
    """

    dim, box = 2, (0.0, 1.0)

    def __init__(self, coefficients: Sequence[float] = (1.0, 1 / 2, 1 / 2, 3 / 2, -1 / 3)) -> None:
        self.coefficients = tuple(coefficients)
        _, c1, c2, c3, c4 = self.coefficients
        # The Hessian [[12 c0 x1^2 + 2 c1, c2], [c2, 2 c3 + 6 c4 x2]] is least at x1 = 0 and at an end of x2.
        first, second = 2 * c1 + min(0.0, 12 * self.coefficients[0]), 2 * c3 + min(0.0, 6 * c4)
        if not (first >= 0 and second >= 0 and first * second >= c2**2):
            raise ValueError(f"coefficients: got {self.coefficients}, expected those of a convex function")

    def fn(self, x: Tensor) -> Tensor:
        (a, b), (c0, c1, c2, c3, c4) = x.unbind(1), self.coefficients
        return c0 * a**4 + c1 * a**2 + c2 * a * b + c3 * b**2 + c4 * b**3

    def grad(self, x: Tensor) -> Tensor:
        (a, b), (c0, c1, c2, c3, c4) = x.unbind(1), self.coefficients
        return torch.stack([4 * c0 * a**3 + 2 * c1 * a + c2 * b, c2 * a + 2 * c3 * b + 3 * c4 * b**2], 1)


class SmoothedMaximum(Target):
    r"""The maximum of affine functions in the plane, smoothed by a Gaussian, on :math:`[-1, 1]^2`.

    .. math:: f(x) = E \max_k \langle a_k, x + s z\rangle + b_k, \qquad \nabla f(x) = \sum_k a_k P_k(x),

    z standard normal and :math:`P_k` the probability that the k-th is the largest. Along a horizontal line each is the
    largest on one interval, whose probability has a closed form; over the lines it is integrated by Gauss-Legendre
    panels that end at the ordinates of all corners of the maximum, between which the intervals move analytically.

    Parameters
    ----------
    slopes, offsets : Tensor
        :math:`a` (K, 2) and :math:`b` (K,).
    smoothing : float
        standard deviation s > 0.
    refinement : int
        factor of the number of panels, to see that the quadrature has converged.

    Raises
    ------
    ValueError
        if a shape or a number is out of range.
    """

    dim, box = 2, (-1.0, 1.0)

    def __init__(self, slopes: Tensor, offsets: Tensor, smoothing: float = 0.1, refinement: int = 1) -> None:
        if slopes.ndim != 2 or slopes.shape[1] != 2 or offsets.shape != slopes.shape[:1]:
            raise ValueError(
                f"slopes, offsets: got shapes {tuple(slopes.shape)}, {tuple(offsets.shape)}, expected (K, 2) and (K,)"
            )
        if not 0 < smoothing < math.inf:
            raise ValueError(f"smoothing: got {smoothing}, expected a positive number")
        self.slopes, self.offsets = slopes.double(), offsets.double()
        self.smoothing, self.refinement = smoothing, refinement

    def fn(self, x: Tensor) -> Tensor:
        return torch.cat([self._values(block) for block in x.split(_BLOCK)])

    def grad(self, x: Tensor) -> Tensor:
        return torch.cat([self._probabilities(block) for block in x.split(_BLOCK)]) @ self.slopes

    def _probabilities(self, x: Tensor) -> Tensor:
        """The P_k, shape (B, K)."""
        density, _, left, right = self._standardized(x)
        return torch.einsum("bj,bjk->bk", density, _inside(left, right))

    def _values(self, x: Tensor) -> Tensor:
        density, z, left, right = self._standardized(x)
        inside = _inside(left, right)
        p, z2 = (torch.einsum("bj,bjk->bk", weight, inside) for weight in (density, density * z))
        z1 = torch.einsum("bj,bjk->bk", density, torch.where(right > left, _density(left) - _density(right), 0.0))
        affine = x @ self.slopes.T + self.offsets
        return (affine * p + self.smoothing * (self.slopes[:, 0] * z1 + self.slopes[:, 1] * z2)).sum(1)

    def _standardized(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and z2 (B, J) of the lines, and the ends of the intervals of z1 on them, (B, J, K)."""
        lines, weights, low, high = self._lines
        z = (lines - x[:, 1:]) / self.smoothing
        left, right = ((ends - x[:, :1, None]) / self.smoothing for ends in (low, high))
        return weights / self.smoothing * _density(z), z, left, right

    @cached_property
    def _lines(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ordinates (J,) and weights (J,) of horizontal lines, and the interval of each function on them, (J, K)."""
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(_NODES))
        ends = self._panels()
        middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
        lines = (middle[:, None] + half[:, None] * nodes).flatten()
        # k beats l at abscissa t where rise * t >= excess.
        rise = self.slopes[:, None, 0] - self.slopes[None, :, 0]
        height = lines[:, None] * self.slopes[:, 1] + self.offsets
        excess = height[:, None, :] - height[:, :, None]
        at = excess / torch.where(rise == 0, 1.0, rise)
        low = torch.where(rise > 0, at, -math.inf).amax(2)
        high = torch.where(rise < 0, at, math.inf).amin(2)
        never = ((rise == 0) & (excess > 0)).any(2)
        return lines, (half[:, None] * weights).flatten(), low, torch.where(never, low, high)

    def _panels(self) -> Tensor:
        reach = self.box[1] + _REACH * self.smoothing
        count = math.ceil(reach / self.smoothing) * self.refinement
        ends = torch.cat([torch.linspace(-reach, reach, count + 1, dtype=torch.float64), self._corners()])
        return torch.unique(ends.clamp(-reach, reach))

    def _corners(self) -> Tensor:
        """Ordinates where three of the functions are equal, or two that differ in the second coordinate alone."""
        found = [torch.zeros(0, dtype=torch.float64)]
        for i, j, k in combinations(range(len(self.slopes)), 3):
            matrix = self.slopes[[j, k]] - self.slopes[i]
            if torch.linalg.det(matrix).abs() > 1e-12:
                found.append(torch.linalg.solve(matrix, self.offsets[i] - self.offsets[[j, k]])[1:])
        for i, j in combinations(range(len(self.slopes)), 2):
            across, along = self.slopes[i] - self.slopes[j]
            if across == 0 and along != 0:
                found.append(((self.offsets[j] - self.offsets[i]) / along)[None])
        return torch.cat(found)


class PositiveNorms(Target):
    r"""Smoothed norms of positive parts of random affine functions, at standard normal points.

    .. math:: f(x) = \sum_j \sqrt{1 + |(A_j x - b_j)_+|^2}, \qquad A_j \in \mathbb{R}^{m \times n} \text{ Gaussian},

    convex as a nondecreasing convex function of convex functions, and continuously differentiable. None of the networks
    has this form.

    Parameters
    ----------
    dim : int
        dimension n.
    seed : int
        of A and b.
    terms, rank : int
        number of the norms, and m.
    """

    box = (-2.5, 2.5)

    def __init__(self, dim: int, seed: int, terms: int = 8, rank: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.dim = dim
        self.A = 3 / math.sqrt(dim) * torch.randn(terms, rank, dim, generator=generator, dtype=torch.float64)
        self.b = torch.randn(terms, rank, generator=generator, dtype=torch.float64)

    def points(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.dim, generator=generator, dtype=torch.float64)

    def section(self) -> tuple[Tensor, Tensor]:
        """A plane through a random point: one through 0 would show none of the points that networks learn from."""
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(self.dim, 2, generator=generator, dtype=torch.float64))[0].T
        origin = self.points(1, generator)[0]
        return origin - basis.T @ (basis @ origin), basis

    def fn(self, x: Tensor) -> Tensor:
        return self._parts(x)[1].squeeze(2).sum(1)

    def grad(self, x: Tensor) -> Tensor:
        v, norms = self._parts(x)
        return torch.einsum("bjm,jmn->bn", v / norms, self.A)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = (torch.einsum("jmn,bn->bjm", self.A, x) - self.b).relu()
        return v, (1 + v.square().sum(2, keepdim=True)).sqrt()


def random_maximum(seed: int, count: int = 5, smoothing: float = 0.1) -> SmoothedMaximum:
    """A smoothed maximum of `count` affine functions with standard normal slopes, each the largest somewhere.

    Offsets are drawn anew until each is the largest on 5 % of the square at least.
    """
    generator = torch.Generator().manual_seed(seed)
    side = torch.linspace(-1, 1, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    while True:
        slopes = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        offsets = 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)
        cells = torch.bincount((grid @ slopes.T + offsets).argmax(1), minlength=count)
        if int(cells.min()) >= 0.05 * len(grid):
            return SmoothedMaximum(slopes, offsets, smoothing)


def best_affine(train: Samples, test: Samples) -> float:
    """Decibels of the best affine map of the points, by least squares: what any nonlinear network has to beat."""
    ones = torch.ones_like(train.points[:, :1])
    solution = torch.linalg.lstsq(torch.cat([train.points, ones], 1), train.gradients).solution
    return decibels(test.points @ solution[:-1] + solution[-1], test.gradients)


def decibels(values: Tensor, gradients: Tensor) -> float:
    r""":math:`10 \log_{10}` of the mean of :math:`|\nabla f|^2` over that of the squared error; nan becomes -inf."""
    error = float((values - gradients).double().square().mean())
    if math.isnan(error):
        return -math.inf
    return 10 * math.log10(float(gradients.double().square().mean()) / max(error, 1e-300))


def _inside(left: Tensor, right: Tensor) -> Tensor:
    """The probability of an interval, 0 where its ends are the wrong way round."""
    return (torch.special.ndtr(right) - torch.special.ndtr(left)).clamp_min(0)


def _density(z: Tensor) -> Tensor:
    return (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
