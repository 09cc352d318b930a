r"""Gradients of large pictures by several processes, through ``deepinv.distributed``.

deepinv cuts a picture in overlapping patches, shares them among processes and puts the results together again. It does
this for denoisers, so a gradient takes the form of one::

    from deepinv.distributed import DistributedContext, distribute
    from icgn.regularizers.distributed import GradientDenoiser, PictureTiling, receptive_radius

    with DistributedContext() as ctx:                      # torchrun --nproc-per-node 4 script.py
        tiling = PictureTiling(x.shape, patch=512, radius=receptive_radius(regularizer))
        gradient = distribute(GradientDenoiser(regularizer), ctx, tiling_strategy=tiling)
        g = gradient(x.to(ctx.device), sigma)              # the whole gradient in every process

and as a prior of deepinv's algorithms::

    class SharedPrior(deepinv.optim.Prior):
        def grad(self, x, sigma, *args, **kwargs):
            return gradient(x, sigma)

The result is that of one process but for rounding. A pixel of the gradient depends on the picture within the receptive
radius only, and :class:`PictureTiling` gives each patch that much of the picture around it. At the borders of the
picture the patch ends where the picture ends, so that the regularizer treats them there as it always does. (deepinv's
own tiling extends the picture by mirroring first: then the responses of the mirror images to asymmetric filters enter,
and the gradient near the border is another one.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from deepinv.distributed.strategies import DistributedSignalStrategy
from deepinv.models import Denoiser
from torch import Tensor, nn

from icgn.regularizers.base import ConvexRegularizer, SumRegularizer
from icgn.regularizers.network import Network
from icgn.regularizers.pullback import PerChannel


@singledispatch
def receptive_radius(regularizer: nn.Module) -> int:
    """Return the distance in pixels, along either axis, beyond which a pixel has no influence on the gradient.

    For a network it is its `receptive_radius` (d - 1 for ridge networks of filters d x d: to the responses and back),
    for a sum the greatest of its terms.

    Raises
    ------
    ValueError
        if it is not known for this class (an ICGN or a pull-back may look at the whole picture: work it out for yours
        and give it to :class:`PictureTiling`).
    """
    return _unknown(regularizer)


@receptive_radius.register
def _(regularizer: Network) -> int:
    radius = regularizer.receptive_radius
    return _unknown(regularizer) if radius is None else radius


@receptive_radius.register
def _(regularizer: SumRegularizer) -> int:
    return max(receptive_radius(term) for term in regularizer.terms)


@receptive_radius.register
def _(regularizer: PerChannel) -> int:
    return receptive_radius(regularizer.regularizer)


def _unknown(regularizer: nn.Module) -> int:
    raise ValueError(
        f"regularizer: the receptive radius of {type(regularizer).__name__} is not known,"
        " expected a network of one filter bank, an ICNN, or a sum or PerChannel of them;"
        " or give PictureTiling a radius of your own"
    )


class GradientDenoiser(Denoiser):  # type: ignore[misc]
    r"""The gradient :math:`\nabla R(x; \sigma)` in the form of a :class:`deepinv.models.Denoiser`; it denoises nothing.

    Parameters
    ----------
    regularizer : ConvexRegularizer
        R, a submodule.
    """

    def __init__(self, regularizer: ConvexRegularizer) -> None:
        super().__init__()
        self.regularizer = regularizer

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
        """Evaluate the gradient at patches x.

        Parameters
        ----------
        x : Tensor
            patches (P B, C, h, w): those of all B images at the first place, then at the second.
        sigma : float or Tensor
            noise level in intensities, one or one per image; it is repeated for the places.

        Raises
        ------
        TypeError, ValueError
            as :class:`ConvexRegularizer`.
        """
        if isinstance(sigma, Tensor) and sigma.numel() > 1 and len(x) % sigma.numel() == 0:
            sigma = sigma.reshape(-1).repeat(len(x) // sigma.numel())
        gradient: Tensor = self.regularizer.grad(x, sigma)
        return gradient


class PictureTiling(DistributedSignalStrategy):  # type: ignore[misc]
    """Patches of equal size that stay inside the picture, for ``deepinv.distributed``.

    Each is a square and its surroundings as far as `radius`, moved inwards where that crosses the border.

    Parameters
    ----------
    shape : sequence of int
        of the pictures (B, C, H, W).
    patch : int
        side of the squares, in pixels, into which H x W is cut.
    radius : int
        receptive radius of what is applied to the patches; see :func:`receptive_radius`. If it is too small, seams
        appear.

    Raises
    ------
    ValueError
        if a number is out of range; at the call, for pictures of another size.
    """

    def __init__(self, shape: Sequence[int], patch: int, radius: int) -> None:
        super().__init__(shape)
        if len(shape) != 4:
            raise ValueError(f"shape: got {tuple(shape)}, expected four dimensions (B, C, H, W)")
        if patch < 1 or radius < 0:
            raise ValueError(f"patch, radius: got {patch}, {radius}, expected at least 1 and 0")
        rows, columns = (_axis(n, patch, radius) for n in shape[-2:])
        self._tiles = [(r, c) for r in rows for c in columns]

    def get_num_patches(self) -> int:
        """Count the patches."""
        return len(self._tiles)

    def get_local_patches(self, x: Tensor, local_indices: list[int]) -> list[tuple[int, Tensor]]:
        """Cut the patches `local_indices` out of the pictures x."""
        if x.shape[-2:] != self.img_size[-2:]:
            raise ValueError(f"x: got {tuple(x.shape)}, expected {tuple(self.img_size)} as given to PictureTiling")
        return [(i, x[..., self._tiles[i][0][0], self._tiles[i][1][0]]) for i in local_indices]

    def reduce_patches(self, out_tensor: Tensor, local_pairs: list[tuple[int, Tensor]]) -> None:
        """Write the squares of the processed patches to their places in `out_tensor`."""
        for i, patch in local_pairs:
            (_, row, inner_row), (_, column, inner_column) = self._tiles[i]
            out_tensor[..., row, column] = patch[..., inner_row, inner_column]


def _axis(n: int, patch: int, radius: int) -> list[tuple[slice, slice, slice]]:
    """Cut n pixels: the window of each patch, its square, and the square within the window."""
    width = min(n, patch + 2 * radius)
    tiles = []
    for start in range(0, n, patch):
        stop = min(start + patch, n)
        left = min(max(start - radius, 0), n - width)
        tiles.append((slice(left, left + width), slice(start, stop), slice(start - left, stop - left)))
    return tiles
