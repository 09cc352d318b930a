r"""Fitting a network to samples of a gradient in a given time, and measuring it, for ``gradients.py``."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import harness
import torch
from gradients_networks import FAMILIES, build, calibrate
from gradients_targets import Samples, decibels
from torch import Tensor, nn

# What validation tries: learning rates of Adam, factors of the first weights; in two rounds, of parts of the time.
RATES, SHARPNESS = (1e-2, 3e-2, 1e-1, 3e-1), (1.0, 3.0)
_FIRST, _SECOND, _KEPT, _POINTS = 1 / 8, 3 / 4, 2, 1024
BATCH = 256
# Points at which Jacobians are measured, and the step of their central differences in float64.
_JACOBIANS, _STEP = 16, 1e-5
# Points of one timed evaluation, and how often it is repeated.
EVALUATION, _TIMED = 1024, 21


@dataclass(frozen=True)
class Choice:
    """What validation chose for a network: the way it is built, the scale of its first weights, the learning rate."""

    variant: str
    sharpness: float
    rate: float


class Training(NamedTuple):
    """What a training took."""

    steps: int
    seconds: float


def fit(network: nn.Module, train: Samples, seconds: float, rate: float, seed: int = 0) -> Training:
    """Fit N to gradients over :attr:`~Samples.size`, by Adam on the mean square, for seconds of CPU time.

    The learning rate falls as a half cosine of the time that has passed. Batches are drawn at random; a first step that
    is not counted, and taken back, leaves the time of first calls out.

    Returns
    -------
    Training
        the steps done, and their seconds: more than asked for by a part of a step.

    Raises
    ------
    ValueError
        if the samples have another dimension than the network, or a number is out of range.
    """
    check_dimension(network, train)
    if not (0 < seconds < math.inf and 0 < rate < math.inf):
        raise ValueError(f"seconds, rate: got {seconds}, {rate}, expected positive numbers")
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    points, gradients = train.points, train.gradients / train.size
    network.train()
    calibrate(network, points[:1024])
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)

    def loss() -> Tensor:
        rows = torch.randint(len(points), (min(BATCH, len(points)),), generator=generator)
        return (network(points[rows]) - gradients[rows]).square().mean()

    loss().backward()
    optimizer.zero_grad()
    steps, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * elapsed / seconds)) / 2
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        steps += 1
    network.eval()
    return Training(steps, elapsed)


def check_dimension(network: nn.Module, samples: Samples) -> None:
    """Raise ``ValueError`` unless the network is of the dimension of the samples."""
    if network.dim != samples.dim:
        raise ValueError(f"samples: got dimension {samples.dim}, expected that of the network, {network.dim}")


def quality(network: nn.Module, train: Samples, test: Samples) -> float:
    """Decibels of a network fitted to `train` on `test`; see :func:`~gradients_targets.decibels`."""
    check_dimension(network, test)
    with torch.no_grad():
        values = torch.cat([network(x) for x in test.points.split(BATCH)])
    return decibels(train.size * values, test.gradients)


def choose(family: str, size: int, train: Samples, held_out: Samples, seconds: float) -> Choice:
    """The best of all choices at fitting samples of another function.

    After runs of an eighth of the seconds, the best two of each variant are compared after three quarters: one that
    starts slowly is not dropped for it.
    """
    few = Samples(held_out.points[:_POINTS], held_out.gradients[:_POINTS])

    def score(choice: Choice, part: float) -> float:
        return quality(fitted(family, size, choice, train, part * seconds)[0], train, few)

    finalists: list[Choice] = []
    for variant in FAMILIES[family]:
        every = itertools.starmap(Choice, itertools.product([variant.name], SHARPNESS, RATES))
        found = {choice: score(choice, _FIRST) for choice in every}
        finalists += sorted(found, key=lambda c: -found[c])[:_KEPT]
    return max(finalists, key=lambda c: score(c, _SECOND))


def fitted(
    family: str, size: int, choice: Choice, train: Samples, seconds: float, seed: int = 0
) -> tuple[nn.Module, Training]:
    """A network of a family, built and fitted as chosen, and what that took."""
    network = build(family, train.dim, size, seed, choice.variant, choice.sharpness)
    return network, fit(network, train, seconds, choice.rate, seed)


def jacobians(network: nn.Module, points: Tensor) -> Tensor:
    """Jacobians (B, n, n) of N at points (B, n) by central differences in float64; the network stays in it."""
    network = network.double()
    x, basis = points.double(), _STEP * torch.eye(points.shape[1], dtype=torch.float64)
    with torch.no_grad():
        ends = [torch.cat([network(p + sign * basis) for p in x[:, None]]) for sign in (1, -1)]
    return ((ends[0] - ends[1]) / (2 * _STEP)).unflatten(0, (len(x), -1)).transpose(1, 2)


def defects(network: nn.Module, points: Tensor) -> tuple[float, float]:
    r"""The worst asymmetry :math:`|J - J^T|_F / |J|_F` and least curvature, over the greatest, at some points.

    The curvature is the least eigenvalue of the symmetric part of J over the largest of all points: not negative for
    the gradient of a convex function.
    """
    J = jacobians(network, points[:_JACOBIANS])
    size = J.flatten(1).norm(dim=1).clamp_min(1e-300)
    values = torch.linalg.eigvalsh((J + J.mT) / 2)
    asymmetry = (J - J.mT).flatten(1).norm(dim=1) / size
    return float(asymmetry.max()), float(values[:, 0].min() / values[:, -1].max())


def evaluation_seconds(network: nn.Module, points: Tensor) -> float:
    """CPU seconds to evaluate N at the first 1024 points."""
    x = points[:EVALUATION]
    with torch.no_grad():
        return harness.seconds(lambda: network(x), _TIMED, time.process_time)
