"""Networks with fewer filters: those that make up most of the gradient at solutions, for training to go on from."""

from __future__ import annotations

from collections.abc import Sequence

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.datasets import add_noise
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.conditional import ConditionalICGN
from icgn.regularizers.ridge import RidgeICGN
from icgn.solvers import Problem, solve

_LEVELS = (5 / 255, 15 / 255, 25 / 255, 50 / 255)
# Solutions need not be exact: this part of sigma.
_TOLERANCE = 0.01
# Filters that stay are not made weaker than this.
_LEAST = 0.2


@torch.no_grad()
def prune(
    network: RidgeICGN | ConditionalICGN,
    filters: int,
    pictures: Sequence[Tensor],
    *,
    sigma: Sequence[float] = _LEVELS,
    seed: int = 0,
) -> RidgeICGN | ConditionalICGN:
    r"""A network with fewer filters, whose gradient is near that of the given one where it matters.

    With :math:`g_k = W_k^T \nabla h_k(W_k x)` the part that filter k has of the gradient at solutions x of denoising,
    the filters S and factors a are chosen for the least :math:`|\sum_k g_k - \sum_{k \in S} a_k g_k|^2`: beginning
    with all of them, the one is left out, again and again, without which it grows least. The square is over that of
    the gradient at each noise level. Borders of pictures do not count. The network is to be trained on from there.

    Parameters
    ----------
    network : RidgeICGN or ConditionalICGN
        stays as it is; the unconditional part of a conditional one is kept.
    filters : int
        how many filters are to be left.
    pictures : sequence of Tensor
        clean ones of one size, (C, H, W), intensities in [0, 1].
    sigma : sequence of float
        noise levels of the solutions.
    seed : int
        of their noise.

    Raises
    ------
    ValueError
        if `filters` is below 1 or above that of the network.
    """
    ridge = network.ridge if isinstance(network, ConditionalICGN) else network
    count = int(ridge.architecture["filters"])
    if not 1 <= filters <= count:
        raise ValueError(f"filters: got {filters}, expected 1 to {count}")
    clean = torch.stack(list(pictures))
    gram = torch.stack([_gram(network, clean, level, seed) for level in sigma]).mean(0)
    chosen = list(range(count))
    while len(chosen) > filters:
        chosen.remove(min(chosen, key=lambda k: _error(gram, [j for j in chosen if j != k])))
    return network.narrowed(chosen, _factors(gram, chosen).clamp_min(_LEAST))


def _gram(network: RidgeICGN | ConditionalICGN, clean: Tensor, sigma: float, seed: int) -> Tensor:
    """Inner products of the parts of the filters, over the squared norm of their sum, float64 (K, K)."""
    y = torch.stack([add_noise(picture, sigma, seed + i) for i, picture in enumerate(clean)])
    solution = solve(Problem(y, deepinv.physics.Denoising(), network, sigma), tol=_TOLERANCE * sigma)
    functional = network.at(sigma, solution.condition) if isinstance(network, ConditionalICGN) else network.at(sigma)
    assert isinstance(functional, BankFunctional)
    parts = _parts(functional, solution.x)
    whole = parts.sum(0)
    return parts @ parts.T / (whole @ whole)


def _parts(functional: BankFunctional, x: Tensor) -> Tensor:
    """The gradient of each filter alone, (K, pixels), without what a border mirrors."""
    operator = functional.bank.operator
    slopes = operator.unfold(functional.potential_grad(functional.linear(x)), x.shape)
    weight = operator.weight
    margin = weight.shape[-1] // 2 if operator.border != "valid" else 0
    parts = F.conv_transpose2d(slopes, weight, padding=margin, groups=len(weight))
    return parts.unflatten(1, (len(weight), -1)).transpose(0, 1).flatten(1).double()


def _factors(gram: Tensor, chosen: list[int]) -> Tensor:
    """The factors of some filters for the least error, (len(chosen),)."""
    own = gram[chosen][:, chosen]
    ridge = 1e-9 * own.diagonal().mean() * torch.eye(len(chosen), dtype=gram.dtype)
    return torch.linalg.solve(own + ridge, gram.sum(1)[chosen])


def _error(gram: Tensor, chosen: list[int]) -> float:
    """The error that some filters leave with their best factors, as a part of the whole."""
    return 1 - float(gram.sum(1)[chosen] @ _factors(gram, chosen))
