"""The pairs of the Wasserstein-2 benchmark, whose optimal maps are known (Korotin et al. 2021, arXiv:2106.01954)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from icgn.transport.pairs import GaussianMixture, Pair

# Layers of the potentials of the benchmark.
_LAYERS = 3
# Curvature that is added to each of the two potentials.
_CURVATURE = 0.01


def mix3_to_mix10(root: str | Path, dim: int, generator: torch.Generator) -> Pair:
    r"""The pair Mix3ToMix10 of a dimension: a mixture of three Gaussians and its image under a known optimal map.

    .. math:: T(x) = c\, (\nabla P_1(x) + \nabla P_2(x) + s),

    with input convex networks P of three layers, fitted by the authors so that the image resembles mixtures of ten
    Gaussians. Both measures have a total variance of about d.

    Parameters
    ----------
    root : str or Path
        folder of the files ``mix3to10_D.npz``, which the package does not contain; arrays as in :class:`BenchmarkMap`,
        and `maps`, `centers` and `std` of the source.
    dim : int
        dimension d, 2, 4, ..., 128.
    generator : torch.Generator
        of the samples, on the CPU.

    Raises
    ------
    FileNotFoundError
        if there is no file for this dimension, naming those that are there.
    """
    path = Path(root) / f"mix3to10_{dim}.npz"
    if not path.is_file():
        known = sorted(p.name for p in Path(root).glob("mix3to10_*.npz"))
        raise FileNotFoundError(f"root, dim: got {path}, which is no file, expected one of {known or 'the benchmark'}")
    with np.load(path) as file:
        arrays = {name: torch.as_tensor(file[name]).double() for name in file.files}
    count = len(arrays["centers"])
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    source = GaussianMixture(arrays["centers"], arrays["std"] * arrays["maps"], weights, generator)
    optimal = BenchmarkMap({name: array.float() for name, array in arrays.items()})
    return Pair(f"Mix3ToMix10, d = {dim}", source, lambda n: optimal(source(n)), optimal)


@dataclass(frozen=True, eq=False)
class BenchmarkMap:
    r"""The map :math:`T(x) = c\, (\nabla P_1(x) + \nabla P_2(x) + s)` of samples x (B, d).

    .. math::

        P(x) = \langle o, h_3\rangle + \tfrac{0.01}{2} |x|^2, \qquad
        h_1 = p_1, \quad h_l = \operatorname{celu}(p_l), \qquad
        p_l = U_{l-1} h_{l-1} + (x Q_l)^2 + W_l x + b_l,

    with :math:`U, o \ge 0`.

    Attributes
    ----------
    arrays : dict of Tensor
        `scale` c, `shift` s, and for P of ``v1`` and ``v2``: `q0`, `w0`, `b0`, ..., `u1`, `u2` and `out`.
    """

    arrays: dict[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """T(x), shape (B, d)."""
        shift, scale = self.arrays["shift"].to(x), self.arrays["scale"].to(x)
        return scale * (self._gradient("v1", x) + self._gradient("v2", x) + shift)

    def _gradient(self, name: str, x: Tensor) -> Tensor:
        """The gradient of P by a sweep forwards and one backwards."""
        own = {key.split(".")[1]: a.to(x) for key, a in self.arrays.items() if key.startswith(name)}
        squares, slopes = [x @ own[f"q{i}"] for i in range(_LAYERS)], []
        h = x.new_zeros(())
        for i, root in enumerate(squares):
            p = root.square() + x @ own[f"w{i}"].T + own[f"b{i}"]
            p = p + h @ own[f"u{i}"].T if i else p
            h = F.celu(p) if i else p
            slopes.append(p.clamp_max(0).exp() if i else torch.ones_like(p))
        back = own["out"].expand(len(x), -1)
        total = _CURVATURE * x
        for i in reversed(range(_LAYERS)):
            back = back * slopes[i]
            total = total + back @ own[f"w{i}"] + 2 * (back * squares[i]) @ own[f"q{i}"].T
            back = back @ own[f"u{i}"] if i else back
        return total
