"""The solver as a model of deepinv: ``x = model(y, physics)``."""

from __future__ import annotations

import warnings
from typing import Any

import deepinv
import torch
from torch import Tensor, nn

from icgn.compat import keyword_only
from icgn.functionals.box import Box
from icgn.functionals.intensities import RangeOption
from icgn.functionals.noise import Noise, described
from icgn.solvers.methods.method import Method, State
from icgn.solvers.problem import Problem, Regularizer
from icgn.solvers.solution import Solution, Status
from icgn.solvers.solve import solve


class Reconstructor(deepinv.models.Reconstructor):  # type: ignore[misc]
    r"""A reconstruction model of deepinv, ``x = model(y, physics)``: a convex problem and its solver.

    x minimizes :math:`\sigma^2 D(A x; y) + \text{weight} \cdot R(x; \sigma)`, as :class:`icgn.solvers.Problem` says.
    It goes wherever deepinv takes a reconstruction network: ``deepinv.test``, ``deepinv.Trainer``, its losses and
    metrics. The regularizer is a submodule, so that ``.to(device)``, ``state_dict`` and optimizers reach its
    parameters; the physics is given with each measurement.

    Parameters
    ----------
    regularizer : icgn.regularizers.ConvexRegularizer
        R.
    sigma : float or Tensor
        noise level that the regularizer is asked to remove, in intensities, one or one per image.
    noise : float, Tensor, Noise or deepinv.physics.NoiseModel, optional
        as for :class:`icgn.Problem`; default ``physics.noise_model`` where it is Gaussian, a map included, Poisson, or
        Poisson-Gaussian; else `sigma`. It cannot be combined with `data_fidelity`, which has its own scale.
    weight : float
        nonnegative factor of R.
    box : (float, float) or Box, optional
        bounds of the intensities, such as (0, 1). Without a box and without strong convexity (MRI, tomography) no
        image can be certified.
    method : str or Method
        as in :func:`icgn.solvers.solve`.
    tol : float, optional
        RMS distance to the minimizer, in intensities; default a 250th of sigma, as for :func:`icgn.solve`.
    gap_tol : float
        relative objective gap.
    max_iter : int
        iterations allowed per image.
    data_fidelity : deepinv.optim.DataFidelity, optional
        convex and differentiable; default that of the noise model of the physics, see `noise`.
    range : (float, float) or "auto", optional
        the intensities that are 0 and 1 to R, as for :class:`icgn.Problem`; `tol` is a part of it then.

    Raises
    ------
    TypeError
        if the regularizer is not a ``torch.nn.Module``.
    ValueError
        if sigma is negative or not finite, or both `noise` and `data_fidelity` are given. What depends on y and the
        physics is checked at the call.
    """

    @keyword_only
    def __init__(
        self,
        regularizer: Regularizer,
        sigma: float | Tensor,
        *,
        noise: float | Tensor | Noise | deepinv.physics.NoiseModel | None = None,
        weight: float = 1.0,
        box: Box | tuple[float, float] | None = None,
        method: str | Method[State] = "auto",
        tol: float | None = None,
        gap_tol: float = 1e-3,
        max_iter: int = 1000,
        data_fidelity: Any = None,
        range: RangeOption = None,
    ) -> None:
        super().__init__()
        if not isinstance(regularizer, nn.Module):
            raise TypeError(f"regularizer: got {type(regularizer).__name__}, expected a ConvexRegularizer")
        level = torch.as_tensor(sigma, dtype=torch.float64)
        if level.ndim > 1 and level.numel() == len(level):  # (B, 1, 1, 1), as deepinv has levels
            level = level.flatten()
        if level.ndim > 1 or not bool((torch.isfinite(level) & (level >= 0)).all()):
            raise ValueError(f"sigma: got {sigma}, expected a finite number >= 0 in intensities, or one per image")
        if noise is not None and data_fidelity is not None:
            raise ValueError(f"noise: got {noise} beside a data fidelity with its own scale, expected one of the two")
        self.regularizer, self.data_fidelity = regularizer, data_fidelity
        self.sigma = level if level.numel() > 1 else float(level)
        self.noise, self.weight, self.box, self.range = noise, weight, Box.of(box), range
        self.method, self.tol, self.gap_tol, self.max_iter = method, tol, gap_tol, max_iter

    def forward(self, y: Tensor, physics: Any, **kwargs: Any) -> Tensor:
        """Reconstruct the images x (B, C, H, W) from measurements y (B, ...), in their dtype and on their device.

        While gradients are enabled, x is a differentiable function of whatever of the regularizer's parameters and y
        requires gradients (:mod:`icgn.solvers.implicit`).

        Parameters
        ----------
        y : Tensor
            measurements, floating point, batch first.
        physics : deepinv.physics.LinearPhysics
            the operator A.
        kwargs :
            accepted because deepinv passes some, and ignored.

        Raises
        ------
        TypeError, ValueError
            as :class:`icgn.solvers.Problem`.

        Warns
        -----
        UserWarning
            naming the status, if an image has not converged.
        """
        solution = self._solve(y, physics, differentiable=torch.is_grad_enabled())
        _warn(solution)
        return solution.x

    def solve(self, y: Tensor, physics: Any) -> Solution:
        """Reconstruct as :meth:`forward`, without derivatives and warnings, with the certificate of each image."""
        return self._solve(y, physics, differentiable=False)

    def problem(self, y: Tensor, physics: Any) -> Problem:
        """The convex problem that the images of these measurements solve."""
        noise, fidelity = self._noise(physics)
        return Problem(
            y,
            physics,
            self._regularizer,
            self.sigma,
            noise=noise,
            data_fidelity=fidelity,
            weight=self.weight,
            box=self.box,
            range=self.range,
        )

    def _solve(self, y: Tensor, physics: Any, differentiable: bool) -> Solution:
        problem = self.problem(y, physics)
        return solve(
            problem,
            method=self.method,
            tol=self.tol,
            gap_tol=self.gap_tol,
            max_iter=self.max_iter,
            differentiable=differentiable,
        )

    @property
    def _regularizer(self) -> Regularizer:
        # A submodule is typed as a plain module.
        regularizer: Any = self.regularizer
        return regularizer

    def _noise(self, physics: Any) -> tuple[float | Tensor | Noise | None, Any]:
        """The noise level and the data fidelity: as given, or those of the noise model of the physics."""
        if self.data_fidelity is not None:
            return None, self.data_fidelity
        model = physics.noise_model if isinstance(physics, deepinv.physics.Physics) else None
        if self.noise is not None or model is None or isinstance(model, deepinv.physics.ZeroNoise):
            return self.noise, None
        if isinstance(model, deepinv.physics.GaussianNoise | deepinv.physics.PoissonGaussianNoise):
            return described(model), None
        if isinstance(model, deepinv.physics.PoissonNoise):
            gain = float(model.gain)
            return None, deepinv.optim.PoissonLikelihood(gain=gain, denormalize=bool(model.normalize))
        warnings.warn(
            f"noise: the physics has {type(model).__name__}, which is not known here: white Gaussian noise of sigma is"
            " assumed; give noise or data_fidelity",
            stacklevel=4,
        )
        return None, None


def _warn(solution: Solution) -> None:
    if solution.converged:
        return
    missed = [s for s in solution.status if s is not Status.CONVERGED]
    reasons = "; ".join(sorted({f"{s.name}, {s}" for s in missed}))
    warnings.warn(f"{len(missed)} of {len(solution.status)} images did not converge: {reasons}", stacklevel=3)
