"""The matrix of a tomography: deepinv's interpolation along every ray as a sparse product, ten times as fast."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse
import torch
from deepinv.physics import LinearPhysics, Tomography
from torch import Tensor

# Relative difference of the matrix and of the operator that rounding explains.
_SAME = {torch.float32: 1e-4, torch.float64: 1e-10}


class RayMatrix(LinearPhysics):  # type: ignore[misc]
    """A tomography as a sparse matrix, and its transpose; pictures (B, 1, W, W) to sinograms (B, 1, N, V).

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        of shape (V N, W W), views first.
    views, cells, width : int
        V, N and W.
    dtype : torch.dtype
        of its entries.
    """

    def __init__(self, matrix: Any, views: int, cells: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.views, self.cells, self.width = views, cells, width
        for name, part in (("there", matrix.tocsr()), ("back", matrix.T.tocsr())):
            self.register_buffer(f"{name}_rows", torch.from_numpy(part.indptr.astype(np.int64)))
            self.register_buffer(f"{name}_columns", torch.from_numpy(part.indices.astype(np.int64)))
            self.register_buffer(f"{name}_values", torch.from_numpy(part.data).to(dtype))
        with warnings.catch_warnings():
            # Torch says once that sparse matrices are young.
            warnings.simplefilter("ignore")
            self.A(torch.zeros(1, 1, width, width, dtype=dtype))

    @classmethod
    def of(cls, physics: Tomography) -> LinearPhysics:
        """The matrix of a tomography of deepinv; the tomography itself where its tables are others than expected."""
        tables, width = physics.radon.all_grids, physics.img_width
        views = len(physics.angles)
        try:
            made = cls(_matrix(tables, width), views, tables.shape[2] // views, width, physics.dtype)
        except (ValueError, IndexError):
            return physics
        x = torch.rand(1, 1, width, width, dtype=physics.dtype, generator=torch.Generator().manual_seed(0))
        expected, found = physics.A(x), made.A(x)
        same = found.shape == expected.shape
        close = same and float((found - expected).abs().max() / expected.abs().max()) < _SAME[physics.dtype]
        return made if close else physics

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """Sums along all rays."""
        return self._times("there", x, self.width**2).unflatten(1, (1, self.views, self.cells)).transpose(-2, -1)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:  # noqa: N802
        """The transpose."""
        flat = y.transpose(-2, -1)
        return self._times("back", flat, self.views * self.cells).unflatten(1, (1, self.width, self.width))

    def _times(self, name: str, values: Tensor, columns: int) -> Tensor:
        rows, entries = getattr(self, f"{name}_rows"), getattr(self, f"{name}_values")
        size = (len(rows) - 1, columns)
        made = torch.sparse_csr_tensor(
            rows, getattr(self, f"{name}_columns"), entries, size, check_invariants=False, requires_grad=False
        )
        return (made @ values.flatten(1).T).T


def _matrix(tables: Tensor, width: int) -> Any:
    """The matrix of places (1, S, R, 2) that are interpolated and summed over S, and of the circle that is seen."""
    t = 2 * torch.arange(width, dtype=torch.float) / (width - 1) - 1
    seen = (t[:, None].square() + t.square() <= 1).numpy()
    places = ((tables[0].double() + 1) / 2 * (width - 1)).numpy()
    rays = places.shape[1]
    found = scipy.sparse.csr_matrix((rays, width**2))
    x, y = places[..., 0].T, places[..., 1].T  # rays first, so that rows are in order
    left, top = np.floor(x), np.floor(y)
    right_part, low_part = x - left, y - top
    for right in (0, 1):
        for below in (0, 1):
            weight = (right_part if right else 1 - right_part) * (low_part if below else 1 - low_part)
            column, row = (left + right).astype(np.int32), (top + below).astype(np.int32)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < width) & (weight > 0)
            inside[inside] = seen[row[inside], column[inside]]
            counts = np.concatenate([[0], inside.sum(1).cumsum()])
            part = (weight[inside], (row * width + column)[inside], counts)
            found = found + scipy.sparse.csr_matrix(part, shape=(rays, width**2))
    return found
