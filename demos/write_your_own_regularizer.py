"""
Write your own regularizer
==========================

A classic of transform denoising as a convex regularizer: smoothed absolute values of the coefficients of all
overlapping 8 x 8 blocks in the discrete cosine basis. A class, a functional of four methods and two constants, and
everything is there: the check of the contract, all solvers, certificates, and every inverse problem of deepinv.

    python demos/write_your_own_regularizer.py [FOLDER] [--quick]
"""

import argparse
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.fft import idct

import icgn
from icgn.datasets import add_noise, bundled, quality
from icgn.functionals import BlackBoxFunctional
from icgn.regularizers import ContractError

parser = argparse.ArgumentParser(description="Write your own regularizer.")
parser.add_argument("folder", nargs="?", type=Path, default=Path("out"), help="where the figure goes")
parser.add_argument("--quick", action="store_true", help="a small picture")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
side, tol = (48, 1e-2) if options.quick else (160, 1e-4)

# %%
# The mathematics. W takes the 63 coefficients, without the mean, of every block; the blocks are at all places, with
# circular borders. Each pixel is in 64 blocks, and each block is only rotated, so that :math:`W^T W \le 64`. The value
# is :math:`R(x; \sigma) = c \sigma \sum h(W x)`, with :math:`h(t) = \sqrt{t^2 + e^2} - e` and :math:`e = \sigma / 4`:
# convex, :math:`h''(t) = e^2 / (t^2 + e^2)^{3/2} \le 1 / e`, and so the Lipschitz constant of the gradient is at
# most :math:`64 c \sigma / e = 256 c`.
block = torch.from_numpy(idct(torch.eye(8, dtype=torch.float64).numpy(), norm="ortho", axis=0))
filters = torch.einsum("iu,jv->uvij", block, block).reshape(64, 1, 8, 8)[1:]


def analysis(x: torch.Tensor) -> torch.Tensor:
    """W x, (B, 63, H, W)."""
    return F.conv2d(F.pad(x, (0, 7, 0, 7), mode="circular"), filters.to(x))


def synthesis(z: torch.Tensor) -> torch.Tensor:
    """W^T z, (B, 1, H, W): the filters mirrored, the border on the other side."""
    mirrored = filters.flip(2, 3).transpose(0, 1).to(z)
    return F.conv2d(F.pad(z, (7, 0, 7, 0), mode="circular"), mirrored)


# %%
# The frozen functional at one sigma, which is all that a solver sees.
class CosineFunctional(BlackBoxFunctional):
    """R(x; sigma) for the levels sigma, (1,) or (B,)."""

    def __init__(self, sigma: torch.Tensor, factor: float) -> None:
        self.sigma, self.factor = sigma, factor

    def _scales(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = self.sigma.to(x).view(-1, 1, 1, 1)
        return self.factor * sigma, (sigma / 4).clamp_min(torch.finfo(x.dtype).tiny ** 0.25)

    def fn(self, x: torch.Tensor) -> torch.Tensor:
        """Values, (B,)."""
        scale, e = self._scales(x)
        return (scale * ((analysis(x).square() + e**2).sqrt() - e)).sum((1, 2, 3))

    def grad(self, x: torch.Tensor) -> torch.Tensor:
        """The gradient."""
        scale, e = self._scales(x)
        t = analysis(x)
        return synthesis(scale * t / (t.square() + e**2).sqrt())

    def hvp(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The Hessian at x times v."""
        scale, e = self._scales(x)
        return synthesis(scale * e**2 / (analysis(x).square() + e**2) ** 1.5 * analysis(v))

    def lipschitz(self) -> torch.Tensor:
        """64 c sigma / e, which is 256 c; nothing at sigma 0."""
        return torch.where(self.sigma > 0, 256 * self.factor, 0.0).double()

    def strong_convexity(self) -> torch.Tensor:
        """0: nothing is known."""
        return torch.zeros_like(self.sigma).double()

    def select(self, index: torch.Tensor) -> "CosineFunctional":
        """The functional of some images of the batch."""
        return self if len(self.sigma) == 1 else CosineFunctional(self.sigma[index], self.factor)

    def to(self, dtype: torch.dtype) -> "CosineFunctional":
        """The same: it computes in the precision of the images."""
        return self


class CosineRegularizer(icgn.ConvexRegularizer):
    """Smoothed absolute values of block cosine coefficients; the factor suits other photographs than that below."""

    channels, min_size = 1, 8

    def __init__(self, factor: float = 0.024) -> None:
        super().__init__()
        self.factor = factor

    def at(self, sigma=None, condition=None):
        """The functional at sigma."""
        return CosineFunctional(torch.as_tensor(sigma, dtype=torch.float64).reshape(-1), self.factor)


# %%
# Does it keep what it promises? Symmetry, convexity, constants and proximal points are measured.
regularizer = CosineRegularizer()
print(icgn.check_regularizer(regularizer, (1, 1, 10, 10)))


# %%
# A slip of the pen, a forgotten factor in the Hessian, is found, with the number.
class Slip(CosineFunctional):
    """A Hessian that is half of what it should be."""

    def hvp(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Half of the Hessian times v."""
        return super().hvp(x, v) / 2


class Wrong(CosineRegularizer):
    """The regularizer with the slip."""

    def at(self, sigma=None, condition=None):
        """The functional at sigma."""
        return Slip(torch.as_tensor(sigma, dtype=torch.float64).reshape(-1), self.factor)


try:
    icgn.check_regularizer(Wrong(), (1, 1, 10, 10))
except ContractError as error:
    print(error)

# %%
# Denoising, certified like everything else, beside total variation and the learned network.
sigma = 25 / 255
clean = bundled(gray=True).find("camera").image[None, :, 40 : 40 + side, 130 : 130 + side]
y = add_noise(clean, sigma, seed=0)
competitors = {
    "total variation": icgn.TotalVariation(),
    "block cosines": regularizer,
    "ridge network": icgn.load_pretrained("ridge-gray-small"),
}
pictures = {"noisy": y}
for name, chosen in competitors.items():
    solution = icgn.denoise(y, sigma, regularizer=chosen, tol=tol)
    pictures[name] = solution.x
    distance = 255 * float(solution.certificate.rms_distance[0])
    print(f"{name:16s} within {distance:.4f} gray levels of the minimizer, {solution.stats.seconds:.1f} s")
labels = [f"{quality(x[0], clean[0]).psnr:.2f} dB" for x in pictures.values()]
print(dict(zip(pictures, labels, strict=True)))
pictures["clean"] = clean
deepinv.utils.plot(
    list(pictures.values()), list(pictures), subtitles=[*labels, ""], rescale_mode="clip", vmin=0, vmax=1,
    figsize=(13, 3.2), show=False, save_fn=options.folder / "write_your_own_regularizer.png", dpi=120,
)  # fmt: skip
