"""Tests of structures: whether a part of a picture can be replaced without leaving a credible region."""

from __future__ import annotations

from dataclasses import dataclass, replace

import deepinv
import torch
from torch import Tensor

from icgn.functionals.functional import per_image
from icgn.solvers import Problem, solve
from icgn.solvers.run import minimize
from icgn.solvers.tolerance import Tolerance
from icgn.uncertainty.pinned import PinnedBox
from icgn.uncertainty.posterior import Posterior

# The known pixels around a structure have this part of the level as their noise while it is filled in.
_TRUSTED = 0.1


@dataclass(frozen=True, eq=False, kw_only=True)
class StructureTest:
    """Whether structures can be replaced within a credible region; one entry per picture.

    Attributes
    ----------
    rejected : Tensor
        whether every picture with the filling in the place of the structure is outside the region, bool (B,): the data
        and the model insist that there is something else.
    energy : Tensor
        f of `x`, float64 (B,).
    least : Tensor
        what f of pictures with the filling is at least, by the certificate, float64 (B,); -inf where the solution with
        the structure replaced is in the region as it is, so that nothing was fitted again.
    threshold : Tensor
        what f is at most in the region, float64 (B,).
    filled : Tensor
        the solution with the structure replaced, (B, C, H, W).
    x : Tensor
        pictures with the filling whose other pixels were fitted to the data again, the surrogates, (B, C, H, W).
    """

    rejected: Tensor
    energy: Tensor
    least: Tensor
    threshold: Tensor
    filled: Tensor
    x: Tensor

    def text(self) -> str:
        """The outcome of each picture in words."""
        numbers = zip(self.energy.tolist(), self.least.tolist(), self.threshold.tolist(), strict=True)
        return "\n".join(_outcome(*one) for one in numbers)


def _outcome(energy: float, least: float, most: float) -> str:
    if least > most:
        return f"rejected: without the structure f is at least {least:.6g}, above the threshold {most:.6g}"
    if energy <= most:
        return f"not rejected: a picture without the structure has f = {energy:.6g}, within the threshold {most:.6g}"
    return f"not rejected: without the structure f may be {least:.6g}, the threshold being {most:.6g}"


def replaced(
    posterior: Posterior,
    problem: Problem,
    threshold: Tensor,
    mask: Tensor,
    fill: Tensor | None,
    gap_tol: float,
    max_iter: int,
) -> StructureTest:
    """Replace structures and minimize f beside them: see :meth:`icgn.uncertainty.CredibleRegion.test`.

    Parameters
    ----------
    posterior : Posterior
        f.
    problem : Problem
        with the weight of the solution and no condition.
    threshold : Tensor
        the largest f of the region, (B,).
    mask, fill, gap_tol, max_iter
        as there.

    Raises
    ------
    ValueError
        as there.
    """
    fixed = checked_mask(mask, posterior.x)
    if fill is None:
        fill = filled_in(problem, posterior.x, fixed, max_iter)
    elif fill.shape != posterior.x.shape:
        raise ValueError(f"fill: got shape {tuple(fill.shape)}, expected {tuple(posterior.x.shape)}")
    filled = torch.where(fixed, fill.to(posterior.x), posterior.x)
    if posterior.box is not None:
        filled = posterior.box.project(filled)
    energy, least, x = posterior.energy(filled), torch.full_like(threshold, torch.nan), filled.clone()
    for i in torch.nonzero(posterior.solved).flatten().tolist():
        at = slice(i, i + 1)
        if bool(energy[i] <= threshold[i]):  # one picture of the hypothesis is in the region
            least[i] = -torch.inf
            continue
        found, value, gap = _fitted(posterior, filled[at], fixed[at], i, gap_tol, max_iter)
        x[at], energy[i], least[i] = found, value, value - gap - posterior.rounding(value)
    return StructureTest(
        rejected=least > threshold, energy=energy, least=least, threshold=threshold, filled=filled, x=x
    )


def checked_mask(mask: Tensor, x: Tensor) -> Tensor:
    """The mask of a structure as bool (B, C, H, W), for pictures x.

    Raises
    ------
    ValueError
        for a mask that does not fit, or is empty or everything for some picture.
    """
    try:
        fixed = torch.as_tensor(mask, device=x.device).bool().expand(x.shape)
    except RuntimeError as error:
        found = tuple(torch.as_tensor(mask).shape)
        raise ValueError(f"mask: got shape {found}, expected one that broadcasts to {tuple(x.shape)}") from error
    share = fixed.flatten(1).double().mean(1)
    if bool((share == 0).any()) or bool((share == 1).any()):
        raise ValueError("mask: got one that is empty or everything, expected True where the structure is")
    return fixed


def filled_in(problem: Problem, x: Tensor, fixed: Tensor, max_iter: int) -> Tensor:
    """Pictures x with the pixels of a mask inpainted from the others by the regularizer of a problem.

    Parameters
    ----------
    problem : Problem
        its regularizer, sigma, weight, box and range count.
    x : Tensor
        pictures (B, C, H, W).
    fixed : Tensor
        True where they are to be inpainted, bool, shape of x.
    max_iter : int
        iterations allowed.
    """
    y = x.to(problem.y.dtype).nan_to_num(0.0, 0.0, 0.0)
    known = (~fixed).to(y)
    mean = (known * y).flatten(1).sum(1) / known.flatten(1).sum(1)
    start = torch.where(fixed, per_image(mean, y), y)
    physics = deepinv.physics.Inpainting(tuple(y.shape[1:]), mask=known, device=y.device)
    noise = _TRUSTED * torch.as_tensor(problem.sigma, dtype=torch.float64)
    posed = replace(problem, y=known * y, physics=physics, noise=noise, data_fidelity=None, condition=None)
    found = solve(posed, gap_tol=1e-2, tol=None, max_iter=max_iter, x0=start)
    return torch.where(fixed, found.x.to(x), x)


def _fitted(
    posterior: Posterior, filled: Tensor, fixed: Tensor, i: int, gap_tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The picture i that is fitted to the data beside fixed pixels, its f, and the gap of f."""
    at = torch.tensor([i], device=filled.device)
    box, own = posterior.box, posterior.objective.select(at)
    low, high = (-torch.inf, torch.inf) if box is None else (box.low, box.high)
    pinned = replace(own, box=PinnedBox(low=low, high=high, fixed=fixed, values=filled))
    tolerance = Tolerance(1e-3 * posterior.sigma[at], gap_tol)
    found = minimize("structure", pinned, "auto", filled, tolerance, max_iter, torch.tensor([0], device=at.device))
    square = posterior.sigma[i].square()
    return found.x, found.certificate.objective[0] / square, found.certificate.objective_gap[0] / square
