r"""The contract of a convex regularizer, measured: every property that solvers and certificates rely on."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.functionals.functional import ConvexFunctional, Responses, dot
from icgn.regularizers.curvature import random_direction, ritz, secant

if TYPE_CHECKING:
    from icgn.regularizers.base import ConvexRegularizer

_ITERATIONS = 20


@dataclass(frozen=True)
class Measurement:
    """A violation, at least 0, beside what is tolerated; `note` says what went wrong where there is no number."""

    value: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value is within the tolerance; nan is not."""
        return self.value <= self.tolerance


@dataclass(frozen=True)
class ContractReport(Mapping[str, Measurement]):
    """What was measured for each property of :data:`CONTRACT`, by name."""

    measurements: Mapping[str, Measurement]

    def __getitem__(self, name: str) -> Measurement:
        return self.measurements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measurements)

    def __len__(self) -> int:
        return len(self.measurements)

    @property
    def violations(self) -> dict[str, Measurement]:
        """The properties that do not hold."""
        return {name: m for name, m in self.items() if not m.passed}

    def __str__(self) -> str:
        """A line for each property; each note appears once."""
        lines, said = [], set()
        for name, m in self.items():
            note = f": {'as above' if m.note in said else m.note}" if m.note else ""
            lines.append(f"{name}: {m.value:.3g} (tolerance {m.tolerance:.3g}){note}")
            said.add(m.note)
        return "\n".join(lines)


class ContractError(AssertionError):
    """A regularizer violates its contract; `report` has all measurements, the message the violated ones."""

    def __init__(self, report: ContractReport) -> None:
        self.report = report
        super().__init__(f"the contract of a convex regularizer is violated:\n{ContractReport(report.violations)}")


@keyword_only
def check_regularizer(
    reg: ConvexRegularizer,
    shape: tuple[int, int, int, int],
    *,
    sigma: float = 0.1,
    seed: int = 0,
    step: float = 1e-6,
    tol: float = 1e-4,
) -> ContractReport:
    r"""Measure the whole contract of a regularizer and raise if any part is violated.

    Everything runs in float64 on a copy of `reg`, on random and on constant pictures with intensities in [0, 1].
    Derivatives are compared with central finite differences along several directions, and the median counts, so that
    a kink which one of them happens to cross does no harm. The properties are the entries of :data:`CONTRACT`.

    Parameters
    ----------
    reg : ConvexRegularizer
        the regularizer; it is left unchanged, on whatever device it is.
    shape : tuple of int
        images (B, C, H, W) to try. Keep them small: curvatures take some hundred gradients.
    sigma : float
        noise level, in intensities.
    seed : int
        of the pictures and directions.
    step : float
        RMS length of a finite difference, in intensities.
    tol : float
        tolerance, relative, of what finite differences measure. Identities have tolerances of their own. For a
        quadrature network of a piecewise linear module take a larger `step` and `tol`.

    Returns
    -------
    ContractReport
        the measurement of each property.

    Raises
    ------
    ContractError
        if a property is violated; its message lists each such property with the number measured.
    TypeError
        if `reg` has no ``at(sigma, condition=None)`` that returns a :class:`~icgn.solvers.ConvexFunctional`.
    ValueError
        for a shape that is not of four positive numbers.

    Examples
    --------
    >>> import icgn
    >>> report = icgn.check_regularizer(icgn.TotalVariation(), (1, 1, 6, 6))
    >>> dict(report.violations)
    {}
    """
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"shape: got {tuple(shape)}, expected (B, C, H, W)")
    case = _Case(reg, shape, sigma, seed, step, tol)
    report = ContractReport({name: _measure(check, case) for name, check in CONTRACT.items()})
    if report.violations:
        raise ContractError(report)
    return report


def _functional(reg: ConvexRegularizer, sigma: float) -> ConvexFunctional:
    """The functional of a regularizer at sigma, as solvers ask for it."""
    name = type(reg).__name__
    try:
        inspect.signature(reg.at).bind(sigma, None)
    except TypeError as error:
        raise TypeError(f"{name}.at: {error}; expected at(sigma, condition=None)") from error
    functional: object = reg.at(sigma)
    if not isinstance(functional, ConvexFunctional):
        got = type(functional).__name__
        raise TypeError(f"{name}.at: got {got}, expected a ConvexFunctional, e.g. a BlackBoxFunctional of icgn.solvers")
    return functional


class _Case:
    """What the checks work with: a double copy of the regularizer, its functional, pictures and directions."""

    def __init__(
        self, reg: ConvexRegularizer, shape: tuple[int, int, int, int], sigma: float, seed: int, step: float, tol: float
    ) -> None:
        self.sigma, self.step, self.tol = sigma, step, tol
        self.reg = copy.deepcopy(reg).double().eval()
        self.functional = _functional(self.reg, sigma)
        tensors = [*self.reg.parameters(), *self.reg.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")
        self.generator = torch.Generator().manual_seed(seed)
        self._x, self._y = (torch.rand(shape, generator=self.generator, dtype=torch.float64) for _ in range(2))

    @property
    def x(self) -> Tensor:
        """Random pictures, a fresh copy: a regularizer that writes to them spoils one check and not all."""
        return self._x.clone().to(self._device)

    @property
    def y(self) -> Tensor:
        """Other random pictures."""
        return self._y.clone().to(self._device)

    def direction(self) -> Tensor:
        """Draw a random direction of RMS 1 in each image."""
        v = torch.randn(self._x.shape, generator=self.generator, dtype=torch.float64)
        return (v / v.square().mean((1, 2, 3), keepdim=True).sqrt()).to(self._device)

    def points(self) -> list[Tensor]:
        """List single pictures at which curvatures are sought: noise, near-constant and dark."""
        x = self.x[:1]
        return [x, 0.5 + 1e-3 * (x - 0.5), 1e-3 * (x - 0.5)]

    def derivative(self, v: Tensor) -> Tensor:
        """Take the central difference of the gradient along v."""
        return secant(self.functional.grad, self.x, self.step)(v)

    @cached_property
    def spectra(self) -> list[tuple[Tensor, list[Tensor]]]:
        """Ritz values and vectors of the Hessian, by differences of the gradient, at each of the points."""
        found = []
        for x in self.points():
            product = secant(self.functional.grad, x, self.step)
            found.append(ritz(product, random_direction(x, self.generator), _ITERATIONS))
        return found

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of pictures: random ones, far and near, and those along directions of extreme curvature."""
        yield self.x, self.y
        yield self.x, self.x + 1e-3 * self.direction()
        for x, (_, directions) in zip(self.points(), self.spectra, strict=True):
            for d in (directions[0], directions[-1]):
                yield from ((x, x + length * d) for length in (1e-4, 1e-1, 1.0))


def _measure(check: Callable[[_Case], Measurement], case: _Case) -> Measurement:
    try:
        with torch.no_grad():
            return check(case)
    except Exception as error:
        # A method that raises on valid input breaks the contract as much as one that returns a wrong number.
        return Measurement(math.inf, 0.0, f"{type(error).__name__}: {error}")


def _worst(values: Iterable[float]) -> float:
    """Return the largest of numbers >= 0; nan counts as inf."""
    return max((math.inf if math.isnan(v) else v for v in values), default=0.0)


def _median(values: list[float]) -> float:
    return math.inf if any(map(math.isnan, values)) else sorted(values)[len(values) // 2]


def _apart(a: Tensor, b: Tensor) -> float:
    """Return the relative distance of two tensors, 0 if both are zero."""
    if a.shape != b.shape:
        return math.inf
    distance, size = float((a - b).norm()), float(torch.maximum(a.norm(), b.norm()))
    return distance if distance == 0 or math.isnan(distance) else distance / size


def _over(violation: Tensor, size: Tensor) -> float:
    """Find the largest positive violation relative to a nonnegative size; nan stays nan."""
    if bool(torch.isnan(violation).any()):
        return math.nan
    positive = violation > 0
    return float((violation[positive] / size[positive]).max()) if bool(positive.any()) else 0.0


# --- values and shapes ---


def _shapes(case: _Case) -> Measurement:
    """Demand one value of fn per image, grad and hvp shaped as x, constants () or (B,) in float64; all finite."""
    x, reg = case.x, case.reg
    found = [reg.fn(x, case.sigma), reg.grad(x, case.sigma), reg.hvp(x, case.direction(), case.sigma)]
    wrong = [tuple(t.shape) for t, s in zip(found, (x.shape[:1], x.shape, x.shape), strict=True) if t.shape != s]
    if wrong:
        return Measurement(len(wrong), 0.0, f"fn, grad, hvp: shapes {wrong}")
    constants = [reg.lipschitz(case.sigma), reg.strong_convexity(case.sigma)]
    bad = [c for c in constants if c.dtype != torch.float64 or c.shape not in ((), (1,), x.shape[:1])]
    infinite = sum(not bool(torch.isfinite(t).all()) for t in found)
    return Measurement(len(bad) + infinite, 0.0, "a constant's shape or dtype, or a value not finite" if bad else "")


def _unmodified(case: _Case) -> Measurement:
    """Demand that x, v and sigma are not written to nor given other flags, with and without requires_grad."""
    changes = 0
    for wants_grad in (False, True):
        x, v = case.x.clone().requires_grad_(wants_grad), case.direction()
        s = torch.full((len(x),), case.sigma, dtype=torch.float64, device=x.device)
        inputs = (x, v, s)
        before = [(t.detach().clone(), t._version, t.requires_grad) for t in inputs]
        with torch.set_grad_enabled(wants_grad):
            case.reg.fn(x, s)
            case.reg.grad(x, s)
            case.reg.hvp(x, v, s)
        case.reg.prox(x, s, gamma=0.1, tol=1e-3, max_iter=500)
        for t, (old, version, flag) in zip(inputs, before, strict=True):
            same = torch.equal(t.detach(), old) and t._version == version and t.requires_grad == flag
            changes += not (same and t.grad is None)
    return Measurement(changes, 0.0)


def _precision(case: _Case) -> Measurement:
    """Demand results in the precision of the images, whatever that of the parameters, and finite."""
    wrong = []
    for parameters in (torch.float32, torch.float64):
        reg = copy.deepcopy(case.reg).to(parameters)
        for dtype in (torch.float32, torch.float64):
            x, v = case.x.to(dtype), case.direction().to(dtype)
            results = (reg.fn(x, case.sigma), reg.grad(x, case.sigma), reg.hvp(x, v, case.sigma))
            wrong += [f"{parameters} -> {dtype}: {r.dtype}" for r in results if r.dtype != dtype]
            wrong += [f"{parameters} -> {dtype}: not finite" for r in results if not bool(torch.isfinite(r).all())]
    return Measurement(len(wrong), 0.0, ", ".join(wrong))


def _batch_independence(case: _Case) -> Measurement:
    """Compare value and gradient of each image of a batch with those that it has alone."""
    x, g = case.x, case.functional
    batch = torch.cat([x, case.y])
    alone = [(g.fn(image[None]), g.grad(image[None])) for image in batch]
    values, grads = g.fn(batch), g.grad(batch)
    errors = [_apart(values, torch.cat([a[0] for a in alone])), _apart(grads, torch.cat([a[1] for a in alone]))]
    return Measurement(_worst(errors), 1e-10)


def _sigma_per_image(case: _Case) -> Measurement:
    """Compare one sigma per image, and ``select``, with separate calls."""
    pair = torch.cat([case.x[:1], case.y[:1]])
    sigmas = torch.tensor([case.sigma, case.sigma / 2], dtype=torch.float64, device=pair.device)
    both, bound = case.reg.grad(pair, sigmas), case.reg.at(sigmas)
    errors = []
    for i in range(2):
        image = pair[i : i + 1]
        alone = case.reg.grad(image, float(sigmas[i]))
        selected = bound.select(torch.tensor([i], device=pair.device))
        errors += [_apart(both[i : i + 1], alone), _apart(selected.grad(image), alone)]
    return Measurement(_worst(errors), 1e-10)


# --- derivatives ---


def _gradient(case: _Case) -> Measurement:
    """Compare <grad x, v> with the central difference of fn along v, relative to |grad x| |v|."""
    x, g, errors = case.x, case.functional, []
    grad = g.grad(x)
    for _ in range(5):
        v = case.direction()
        slope = (g.fn(x + case.step * v) - g.fn(x - case.step * v)) / (2 * case.step)
        errors.append(_over((slope - dot(grad, v)).abs(), grad.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)))
    return Measurement(_median(errors), case.tol)


def _hessian_product(case: _Case) -> Measurement:
    """Compare hvp with central differences of grad."""
    directions = [case.direction() for _ in range(5)]
    errors = [_apart(case.functional.hvp(case.x, v), case.derivative(v)) for v in directions]
    return Measurement(_median(errors), case.tol)


def _symmetry(case: _Case) -> Measurement:
    """Estimate |H - H^T| / |H| by u^T H v - v^T H u, H by differences of grad."""
    errors = []
    for _ in range(5):
        u, v = case.direction(), case.direction()
        hu, hv = case.derivative(u), case.derivative(v)
        size = (hu.square().mean() * u.square().sum() * u.numel()).sqrt()
        errors.append(_over(((u * hv).sum() - (v * hu).sum()).abs()[None], size[None] / math.sqrt(u.numel())))
    return Measurement(_median(errors), case.tol)


def _positive_curvature(case: _Case) -> Measurement:
    """Compare the least Ritz value of the Hessian, by differences of grad, with mu; relative to the greatest."""
    mu = case.functional.strong_convexity().min()
    errors = [_over(mu - v[:1], torch.maximum(v.abs().amax(0, keepdim=True), mu)) for v, _ in case.spectra]
    return Measurement(_worst(errors), case.tol)


# --- inequalities ---


def _lipschitz(case: _Case) -> Measurement:
    """Demand |grad x - grad y| <= L |x - y|: the largest excess over 1 of the ratio of the two sides."""
    bound, errors = float(case.functional.lipschitz().max()), []
    for x, y in case.pairs():
        rise = (case.functional.grad(x) - case.functional.grad(y)).flatten(1).norm(dim=1)
        allowed = bound * (x - y).flatten(1).norm(dim=1)
        errors.append(_over(rise - allowed, allowed))
    return Measurement(_worst(errors), 1e-6)


def _monotonicity(case: _Case) -> Measurement:
    """Demand <grad x - grad y, x - y> >= mu |x - y|^2; the violation is relative to |grad x - grad y| |x - y|."""
    mu, errors = float(case.functional.strong_convexity().min()), []
    for x, y in case.pairs():
        rise, apart = case.functional.grad(x) - case.functional.grad(y), x - y
        size = rise.flatten(1).norm(dim=1) * apart.flatten(1).norm(dim=1)
        # Rounding of the gradients, which a small difference does not show.
        noise = 1e-13 * case.functional.grad(x).flatten(1).norm(dim=1) * apart.flatten(1).norm(dim=1)
        errors.append(_over(mu * dot(apart, apart) - dot(rise, apart) - noise, size))
    return Measurement(_worst(errors), case.tol)


def _convexity(case: _Case) -> Measurement:
    """Demand fn(y) - fn(x) - <grad x, y - x> >= 0, relative to the sizes of the terms."""
    g, errors = case.functional, []
    for x, y in case.pairs():
        fx, fy, rise = g.fn(x), g.fn(y), dot(g.grad(x), y - x)
        size = fx.abs() + fy.abs() + rise.abs()
        errors.append(_over(fx + rise - fy, size))
    return Measurement(_worst(errors), 1e-2 * case.tol)


def _prox(case: _Case) -> Measurement:
    """Demand that z = prox(x) solves z - x + gamma grad z = 0 to the accuracy asked, RMS."""
    gamma, tol = 0.7, 1e-6
    z = case.reg.prox(case.x, case.sigma, gamma=gamma, tol=tol, max_iter=500)
    residual = z - case.x + gamma * case.functional.grad(z)
    return Measurement(float(residual.square().mean((1, 2, 3)).sqrt().max()), tol * (1 + 1e-6))


# --- the structure that solvers use ---


def _adjoint(case: _Case) -> Measurement:
    """Compare <U x, z> with <x, U^T z> for responses z of the kind that occur."""
    g, x = case.functional, case.x
    u = g.linear(x)
    z = _scramble(g.linear(case.y), case.generator)
    left, right = _inner(u, z), dot(x, g.linear_adjoint(z, x.shape))
    return Measurement(_over((left - right).abs(), (_inner(u, u) * _inner(z, z)).sqrt()), 1e-10)


def _factorisation(case: _Case) -> Measurement:
    """Compare fn, grad and hvp with those of h(U x), and moved responses with those of moved images."""
    g, x, v = case.functional, case.x, case.direction()
    u, q = g.linear(x), g.linear(v)
    t = torch.linspace(-0.5, 1.0, len(x), dtype=torch.float64, device=x.device)
    errors = [
        _apart(g.fn(x), g.potential(u)),
        _apart(g.grad(x), g.linear_adjoint(g.potential_grad(u), x.shape)),
        _apart(g.hvp(x, v), g.linear_adjoint(g.potential_hvp(u, q), x.shape)),
        _apart(g.fn(x + t[:, None, None, None] * v), g.potential(g.move(u, q, t))),
    ]
    return Measurement(_worst(errors), 1e-9)


def _line(case: _Case) -> Measurement:
    """Compare slope and curvature along a line with central differences of fn and of the slope."""
    g, x, errors = case.functional, case.x, []
    u = g.linear(x)
    for _ in range(5):
        v = case.direction()
        q = g.linear(v)
        t = 0.1 * torch.randn(len(x), generator=case.generator, dtype=torch.float64).to(x.device)
        h = torch.full_like(t, case.step)
        slope = (g.potential(g.move(u, q, t + h)) - g.potential(g.move(u, q, t - h))) / (2 * h)
        bend = (g.slope(u, q, t + h) - g.slope(u, q, t - h)) / (2 * h)
        at_t = g.move(u, q, t)
        size = (_inner(q, q) * _inner(g.potential_grad(at_t), g.potential_grad(at_t))).sqrt()
        errors.append(max(_over((slope - g.slope(u, q, t)).abs(), size), _apart(bend, g.curvature(at_t, q))))
    return Measurement(_median(errors), case.tol)


def _inner(a: Responses, b: Responses) -> Tensor:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return torch.stack([_inner(p, q) for p, q in zip(a, b, strict=True)]).sum(0)
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return dot(a, b)


def _scramble(u: Responses, generator: torch.Generator) -> Responses:
    """Multiply responses by random numbers: where they are zero by construction they stay zero."""
    if isinstance(u, tuple):
        return tuple(_scramble(part, generator) for part in u)
    return u * torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device)


CONTRACT: dict[str, Callable[[_Case], Measurement]] = {
    "shapes": _shapes,
    "inputs unmodified": _unmodified,
    "precision kept": _precision,
    "images independent": _batch_independence,
    "sigma per image": _sigma_per_image,
    "gradient of fn": _gradient,
    "Hessian product": _hessian_product,
    "Hessian symmetric": _symmetry,
    "curvature at least mu": _positive_curvature,
    "Lipschitz": _lipschitz,
    "monotone": _monotonicity,
    "fn above its tangents": _convexity,
    "prox optimal": _prox,
    "adjoint": _adjoint,
    "factorisation": _factorisation,
    "slope and curvature": _line,
}
"""The properties of a regularizer, each with the function that measures its violation."""
