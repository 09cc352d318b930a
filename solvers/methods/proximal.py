"""Forward-backward splitting, plain and accelerated, with the proximal map of either part."""

from __future__ import annotations

from typing import Literal, get_args

from icgn.compat import keyword_only
from icgn.functionals.box import Box
from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional
from icgn.solvers.methods.accelerated import AcceleratedGradient
from icgn.solvers.methods.gradient import GradientDescent
from icgn.solvers.methods.splitting import DataSplitting, RegularizerSplitting, Splitting

Part = Literal["data", "regularizer"]


class _Split:
    """The choice of the part whose proximal map is taken, shared by the plain and the accelerated method."""

    name: str
    splits = True
    boxes = False

    @keyword_only
    def __init__(self, *, prox: Part = "data", accuracy: float = 0.1) -> None:
        if prox not in get_args(Part):
            raise ValueError(f"prox: got {prox!r}, expected one of {', '.join(get_args(Part))}")
        if not 0 < accuracy < 1:
            raise ValueError(f"accuracy: got {accuracy}, expected a number between 0 and 1")
        self.prox, self.accuracy = prox, accuracy
        self.of_data = frozenset({Capability.QUADRATIC}) if prox == "data" else frozenset()

    def splitting(self, objective: ConvexFunctional, box: Box | None) -> Splitting:
        if self.prox == "data":
            return DataSplitting.of(objective)
        return RegularizerSplitting.of(objective, self.accuracy)


class ProximalGradient(_Split, GradientDescent):
    r"""Forward-backward splitting :math:`x_{k+1} = \mathrm{prox}_{t_k g}(x_k - t_k \nabla f(x_k))`, F = f + g.

    Theorem (Beck 2017, First-Order Methods in Optimization, Theorems 10.21 and 10.29): for convex f with Lipschitz
    gradient and convex g, :math:`F(x_k) - F^* = O(1/k)`, linear where f or g is strongly convex. Inexact proximal maps
    with a relative error keep the rate (Bello-Cruz, Goncalves, Krislock 2020, arXiv:2005.03766). Assumes no box, and a
    quadratic data term where its proximal map is taken.

    Parameters
    ----------
    prox : {"data", "regularizer"}
        the part g. ``data``: by deepinv's exact formula where there is one
        (:func:`icgn.solvers.methods.splitting.data_prox`); ``regularizer``: by an inner solver, to the relative
        accuracy `accuracy`.
    accuracy : float
        largest residual of an inexact proximal map, as a part of the step.

    Raises
    ------
    ValueError
        for another part, or an accuracy outside (0, 1).
    """


class FISTA(_Split, AcceleratedGradient):
    r"""Accelerated forward-backward splitting (Beck and Teboulle 2009) with strongly convex momentum and restarts.

    Theorem (Chambolle and Pock 2016, Acta Numerica 25, Theorem B.1): :math:`F(x_k) - F^* = O(1/k^2)`, linear with
    factor :math:`1 - \sqrt{\mu / (L + \mu_g)}` where F is :math:`\mu`-strongly convex. Inexact proximal maps with a
    relative error keep the rate (arXiv:2005.03766). Assumes no box, and a quadratic data term where its proximal map
    is taken.

    Parameters
    ----------
    prox, accuracy :
        as for :class:`ProximalGradient`.

    Raises
    ------
    ValueError
        for another part, or an accuracy outside (0, 1).
    """
