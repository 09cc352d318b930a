"""The base of dense gradient networks: vectors (B, n) instead of pictures, and the functionals of matrices."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.functionals.functional import BlackBoxFunctional, ConvexFunctional, Responses, tensor
from icgn.functionals.sums import SumFunctional
from icgn.regularizers.frozen import Frozen
from icgn.regularizers.head import HeadFunctional
from icgn.regularizers.network import FiniteState
from icgn.regularizers.sweep import matrix_norm
from icgn.solvers.prox import prox


def check_vectors(x: Tensor, dim: int | None = None, name: str = "x", least: int = 0) -> Tensor:
    """Return x, or raise unless it is a tensor (B, n) of at least `least` finite vectors, with n = `dim` where given.

    Raises
    ------
    TypeError
        unless it is a floating-point tensor.
    ValueError
        for another shape, too few vectors, or some with NaN or infinite numbers; all messages begin with `name`.
    """
    shape = f"(B, {'n' if dim is None else dim})"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: got {given}, expected a floating-point tensor {shape}")
    if x.ndim != 2 or x.shape[1] < 1 or (dim is not None and x.shape[1] != dim):
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected {shape}")
    if len(x) < least:
        raise ValueError(f"{name}: got {len(x)} vectors, expected at least {least}")
    try:
        finite = bool(torch.isfinite(x).all())
    except RuntimeError:  # inside torch.func.vmap numbers cannot be looked at
        return x
    if not finite:
        rows = (~torch.isfinite(x)).any(1).nonzero().flatten().tolist()
        raise ValueError(f"{name}: got nan or infinite numbers in rows {rows[:5]}, expected finite ones")
    return x


class GradientNetwork(FiniteState):
    r"""Base of the dense networks: the gradient N of a convex function f of vectors x (B, n).

    .. math::

        f(x) = h(W x) + \tfrac12 |Q x|^2 + \tfrac{\mu}{2} |x|^2 + \langle a, x\rangle, \qquad
        N(x) = \nabla f(x) = W^T \nabla h(W x) + Q^T Q x + \mu x + a,

    with h of the subclass, h(0) = 0 and a zero gradient at 0: so :math:`N(0) = a` and :math:`f(0) = 0`. Calling the
    network evaluates N, without automatic differentiation and differentiably, in the parameters and in x. Results have
    the precision of x, whatever that of the parameters.

    Parameters
    ----------
    dim : int
        dimension n.
    strong_convexity : float
        :math:`\mu \ge 0`.
    quadratic : int
        number of rows of Q.

    Raises
    ------
    TypeError, ValueError
        if x is not a floating-point tensor (B, n) of finite numbers; if a parameter is out of range; on loading a
        state dict with numbers that are not finite. The weights that must not be negative are parametrized, so that no
        file can make them so.
    """

    @keyword_only
    def __init__(self, dim: int, *, strong_convexity: float = 0.0, quadratic: int = 0) -> None:
        super().__init__()
        if dim < 1 or quadratic < 0:
            raise ValueError(f"dim, quadratic: got {dim}, {quadratic}, expected at least 1 and 0")
        if not 0 <= strong_convexity < math.inf:
            raise ValueError(f"strong_convexity: got {strong_convexity}, expected a finite number >= 0")
        self.dim, self.mu = dim, float(strong_convexity)
        self.shift = nn.Parameter(torch.zeros(dim))
        self.Q = nn.Parameter(torch.randn(quadratic, dim) / math.sqrt(max(1, quadratic)))

    @abstractmethod
    def curved(self) -> MatrixFunctional:
        """The part h(W x) with the present parameters."""

    def functional(self) -> ConvexFunctional:
        """The function f as solvers see it, with the present parameters."""
        terms = [self.curved(), QuadraticFunctional(self.Q, self.shift, self.mu)]
        return SumFunctional(terms, [torch.ones((), dtype=torch.float64)] * 2)

    def forward(self, x: Tensor) -> Tensor:
        """Same as :meth:`grad`."""
        return self.grad(x)

    def fn(self, x: Tensor) -> Tensor:
        """Values f(x), shape (B,)."""
        return self._bound(x).fn(x)

    def grad(self, x: Tensor) -> Tensor:
        """The gradient N(x), shape (B, n)."""
        return self._bound(x).grad(x)

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""The product :math:`\nabla^2 f(x) v` with directions v (B, n), shape (B, n)."""
        if v.shape != x.shape:
            raise ValueError(f"v: got shape {tuple(v.shape)}, expected that of x, {tuple(x.shape)}")
        return self._bound(x).hvp(x, v)

    def jacobian(self, x: Tensor) -> Tensor:
        r"""The Jacobians :math:`\nabla^2 f(x)` of N, symmetric and positive semi-definite, shape (B, n, n)."""
        functional = self._bound(x)
        basis = torch.eye(self.dim).to(x).repeat(len(x), 1)
        return functional.hvp(x.repeat_interleave(self.dim, 0), basis).unflatten(0, (len(x), self.dim))

    @keyword_only
    def inverse(self, y: Tensor, *, tol: float = 1e-5, max_iter: int = 2000) -> Tensor:
        r"""The points x (B, n) with N(x) = y, each within a certified RMS distance.

        They minimize :math:`f(x) - \langle y, x\rangle`, strongly convex by :math:`\mu` or by Q.

        Parameters
        ----------
        y : Tensor
            points (B, n).
        tol : float
            the RMS distance.
        max_iter : int
            iterations allowed.

        Raises
        ------
        ValueError
            if :meth:`strong_convexity` is zero: N then need not have an inverse.
        RuntimeError
            if `tol` is not reached.
        """
        # The modulus is split off as the quadratic part of a proximal map; the rest is convex without it.
        modulus = float(self.strong_convexity())
        if not modulus > 0:
            raise ValueError(f"strong_convexity: got {modulus:g}, expected a positive number for an inverse to exist")
        check_vectors(y, self.dim)
        terms = [self.curved(), QuadraticFunctional(self.Q, self.shift, self.mu - modulus)]
        rest = SumFunctional(terms, [torch.ones((), dtype=torch.float64)] * 2).to(y.dtype)
        return prox(rest, y / modulus, 1 / modulus, tol=tol, max_iter=max_iter)

    def linearized(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""N(x), and :math:`\nabla^2 f(x)` as a map of directions (B, n) that does once what its products share."""
        check_vectors(x, self.dim)
        curved = self.curved().to(x.dtype)
        quadratic = QuadraticFunctional(self.Q, self.shift, self.mu).to(x.dtype)
        grad, bent = curved.head.linearized(tensor(curved.linear(x)))

        def product(v: Tensor) -> Tensor:
            return curved.linear_adjoint(bent(tensor(curved.linear(v))), v.shape) + quadratic.hvp(x, v)

        return curved.linear_adjoint(grad, x.shape) + quadratic.grad(x), product

    @torch.no_grad()
    def lipschitz(self) -> Tensor:
        """Rigorous upper bound of the Lipschitz constant of N, a float64 scalar."""
        return self.functional().lipschitz().reshape(())

    @torch.no_grad()
    def strong_convexity(self) -> Tensor:
        """Rigorous lower bound of the modulus of strong convexity of f, a float64 scalar."""
        return self.functional().strong_convexity().reshape(())

    def _bound(self, x: Tensor) -> ConvexFunctional:
        check_vectors(x, self.dim)
        return self.functional().to(x.dtype)


@dataclass(frozen=True, eq=False)
class MatrixFunctional(HeadFunctional):
    """h(W x) of vectors x (B, n), `weight` being W (K, n)."""

    weight: Tensor

    def linear(self, x: Tensor) -> Responses:
        return x @ self.weight.T

    def linear_adjoint(self, z: Responses, shape: torch.Size) -> Tensor:
        return tensor(z) @ self.weight

    def weights(self) -> Tensor:
        return self.weight.detach().double()[None]

    def squared_norm(self, weight: Tensor) -> Tensor:
        return matrix_norm(weight).square()

    def select(self, index: Tensor) -> MatrixFunctional:
        return self


@dataclass(frozen=True, eq=False)
class QuadraticFunctional(Frozen, BlackBoxFunctional):
    r""":math:`\tfrac12 |Q x|^2 + \tfrac{\mu}{2} |x|^2 + \langle a, x\rangle` of vectors x (B, n)."""

    Q: Tensor
    a: Tensor
    mu: float

    def fn(self, x: Tensor) -> Tensor:
        return ((x @ self.Q.T).square().sum(1) + self.mu * x.square().sum(1)) / 2 + x @ self.a

    def grad(self, x: Tensor) -> Tensor:
        return self.hvp(x, x) + self.a

    def hvp(self, x: Tensor, v: Tensor) -> Tensor:
        return (v @ self.Q.T) @ self.Q + self.mu * v

    def lipschitz(self) -> Tensor:
        return self._norm.square() + self.mu

    def strong_convexity(self) -> Tensor:
        if len(self.Q) < len(self.a):
            return torch.zeros_like(self._norm) + self.mu
        least = torch.linalg.svdvals(self.Q.detach().double())[-1] - 1e-12 * self._norm
        return least.clamp_min(0).square() + self.mu

    def select(self, index: Tensor) -> QuadraticFunctional:
        return self

    @property
    def _norm(self) -> Tensor:
        return matrix_norm(self.Q.detach().double())
