"""Density estimation by convex potential flows: normalizing flows made of gradient networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from icgn.compat import keyword_only
from icgn.transport.composition import Composition, DiagonalAffine, fit_affine
from icgn.transport.logdet import ExactLogDet, LogDet
from icgn.transport.samples import covariance
from icgn.transport.vectors import GradientNetwork, check_vectors


class ConvexPotentialFlow(Composition):
    r"""A density from gradient networks (Huang, Chen, Tsirigotis, Courville 2021, arXiv:2012.05942).

    .. math::

        \log p(x) = -\tfrac12 |T(x)|^2 - \tfrac n2 \log 2\pi + \log\det DT(x), \qquad
        T = \nabla f_L \circ A_L \circ \dots \circ \nabla f_1 \circ A_1,

    with convex f and diagonal affine A. Samples are :math:`T^{-1}(z)` of normal z, by the package's certified solver.

    Parameters
    ----------
    networks : sequence of GradientNetwork
        :math:`\nabla f_1, \dots, \nabla f_L`, strongly convex for samples to exist.

    Raises
    ------
    ValueError
        if there is none, or two of different dimensions.
    """

    def __init__(self, networks: Sequence[GradientNetwork]) -> None:
        super().__init__([layer for net in networks for layer in (DiagonalAffine(net.dim), net)])

    @keyword_only
    def log_prob(self, x: Tensor, *, logdet: LogDet | None = None) -> Tensor:
        """Logarithms of the density at x (B, n) in nats, shape (B,).

        Raises
        ------
        TypeError, ValueError
            as :meth:`push`.
        """
        z, change = self.push(x, logdet=logdet)
        return change - z.square().sum(1) / 2 - self.dim / 2 * math.log(2 * math.pi)

    @keyword_only
    def sample(self, count: int, generator: torch.Generator, *, tol: float = 1e-4) -> Tensor:
        """Points (count, n) of the density; see :meth:`inverse`.

        Parameters
        ----------
        count : int
            number of points.
        generator : torch.Generator
            of the normal points that they come from.
        tol : float
            each is within this RMS distance of an exact one.
        """
        if count < 1:
            raise ValueError(f"count: got {count}, expected at least 1")
        z = torch.randn(count, self.dim, generator=generator, device=generator.device)
        return self.inverse(z.to(next(self.parameters())), tol=tol)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        r"""Start from the Gaussian of points x (B, n): each network near the optimal map :math:`C^{-1/2} (x - m)`.

        Raises
        ------
        TypeError, ValueError
            if x is not a floating-point tensor (B, n) of finite numbers, or its covariance is singular.
        """
        check_vectors(x, self.dim)
        covariance(x)
        for layer in self.factors:
            if isinstance(layer, DiagonalAffine):
                layer.standardize(x)
            else:
                values, vectors = torch.linalg.eigh(covariance(x))
                root = vectors * values.rsqrt() @ vectors.T
                fit_affine(layer, x, root, torch.zeros_like(x[0]))
            x = layer(x)


@keyword_only
@dataclass(frozen=True)
class FlowRecipe:
    """How :func:`fit_flow` trains.

    Attributes
    ----------
    steps : int
        steps of Adam.
    batch : int
        points of each step, drawn without replacement; all if there are fewer.
    learning_rate : float
        of the first half, then falling to zero along a cosine.
    noise : float
        standard deviation of Gaussian noise added to the points of each step, in their units.
    evaluate_every : int
        steps between evaluations of the validation points; the best parameters are kept.
    patience : int
        evaluations without improvement after which training ends.
    """

    _: KW_ONLY
    steps: int = 1500
    batch: int = 256
    learning_rate: float = 1e-2
    noise: float = 0.0
    evaluate_every: int = 50
    patience: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if not self.learning_rate > 0 or not self.noise >= 0:
            raise ValueError(
                f"learning_rate, noise: got {self.learning_rate}, {self.noise}, expected a positive number and one >= 0"
            )


@dataclass(frozen=True)
class FlowRow:
    """One evaluation: the step, and the mean log-likelihoods in nats of its training batches and of the validation."""

    step: int
    training: float
    validation: float


@keyword_only
def fit_flow(
    flow: ConvexPotentialFlow,
    x: Tensor,
    validation: Tensor,
    recipe: FlowRecipe,
    generator: torch.Generator,
    *,
    logdet: LogDet | None = None,
) -> list[FlowRow]:
    r"""Maximize the mean of :math:`\log p(x)` from the flow's present parameters; those best in validation are kept.

    Parameters
    ----------
    flow : ConvexPotentialFlow
        changed in place; :meth:`ConvexPotentialFlow.initialize` it first.
    x, validation : Tensor
        points (B, n).
    recipe : FlowRecipe
        steps, batch and so on.
    generator : torch.Generator
        of batches and noise.
    logdet : LogDet, optional
        of the training steps, by default exact; the validation is always exact.

    Returns
    -------
    list of FlowRow
        one for the start and one for each evaluation.

    Raises
    ------
    TypeError, ValueError
        if points are not floating-point tensors (B, n) of finite numbers.
    """
    check_vectors(x, flow.dim)
    check_vectors(validation, flow.dim, "validation")
    optimizer = torch.optim.Adam(flow.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: half_cosine(k / recipe.steps))
    rows = [FlowRow(0, mean_log_prob(flow, x), mean_log_prob(flow, validation))]
    best, state, waited, total = rows[0].validation, copy.deepcopy(flow.state_dict()), 0, 0.0
    batch = min(recipe.batch, len(x))
    for k in range(1, recipe.steps + 1):
        index = torch.randperm(len(x), generator=generator, device=generator.device)[:batch]
        noise = recipe.noise * torch.randn(batch, flow.dim, generator=generator, device=generator.device).to(x)
        loss = -flow.log_prob(x[index.to(x.device)] + noise, logdet=logdet).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total -= float(loss.detach())
        if k % recipe.evaluate_every and k < recipe.steps:
            continue
        rows.append(FlowRow(k, total / (k - rows[-1].step), mean_log_prob(flow, validation)))
        total, waited = 0.0, waited + 1
        if rows[-1].validation > best:
            best, state, waited = rows[-1].validation, copy.deepcopy(flow.state_dict()), 0
        if waited >= recipe.patience:
            break
    flow.load_state_dict(state)
    return rows


@keyword_only
@torch.no_grad()
def mean_log_prob(flow: ConvexPotentialFlow, x: Tensor, *, chunk: int = 2048) -> float:
    """The mean log-likelihood of points in nats, exact.

    Parameters
    ----------
    flow : ConvexPotentialFlow
        the density.
    x : Tensor
        points (B, n).
    chunk : int
        points evaluated at a time.
    """
    return float(torch.cat([flow.log_prob(part, logdet=ExactLogDet()) for part in x.split(chunk)]).double().mean())


def half_cosine(part: float) -> float:
    """A factor of the learning rate: 1 in the first half of training, then falling to 0 along a cosine."""
    return 1.0 if part < 0.5 else (1 + math.cos(math.pi * (2 * part - 1))) / 2
