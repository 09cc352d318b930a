r"""Descriptions of the noise of a measurement: what is drawn, how large it is, which data term it gives.

A description is frozen. :class:`icgn.Problem` takes one as its `noise`, beside numbers and the noise models of deepinv,
which :func:`described` turns into one. All levels are standard deviations in the units of y.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import deepinv
import torch
from torch import Tensor

from icgn.functionals.data import DataFunctional, PoissonData, WeightedGaussianData, data_functional


class Noise(ABC):
    """What a measurement y of A x was disturbed by."""

    counts: bool = False
    """Whether the data term is a likelihood of counts, which is finite for nonnegative pictures only."""

    @abstractmethod
    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y for noiseless measurements x, batch first, of the same shape.

        Parameters
        ----------
        x : Tensor
            noiseless measurements.
        generator : torch.Generator, optional
            source of random numbers, on the device of x; default that of torch.
        """

    @abstractmethod
    def variance(self, x: Tensor) -> Tensor:
        """The variance of y at noiseless measurements x, something that broadcasts to their shape."""

    @abstractmethod
    def data(self, y: Tensor, physics: Any) -> tuple[DataFunctional, Tensor]:
        """The data term D of y as a functional times a factor, float64 () or (B,), with rigorous constants.

        Raises
        ------
        ValueError
            if the description does not fit y, or has a level of 0.
        """

    @abstractmethod
    def to_deepinv(self, generator: torch.Generator | None = None) -> deepinv.physics.NoiseModel:
        """The noise model of deepinv that draws the same.

        Parameters
        ----------
        generator : torch.Generator, optional
            source of its random numbers.

        Raises
        ------
        ValueError
            where deepinv has none.
        """

    @abstractmethod
    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        """What it is, in words; levels times `scale`, e.g. 255 for the unit ``"gray levels"``."""

    def mean(self, y: Tensor) -> Tensor:
        """The x, as of :meth:`draw`, that measurements y have for their mean: without the offset, in its unit."""
        return y

    def root_mean_square(self, y: Tensor) -> Tensor:
        """Root mean square of the noise of each of the measurements y, float64 (B,); NaN does not count."""
        variance = self.variance(self.mean(y)).expand_as(y).double()
        known = torch.where(torch.isfinite(y), variance, torch.nan)
        return known.flatten(1).nanmean(1).nan_to_num(0.0).sqrt()


@dataclass(frozen=True, eq=False)
class White(Noise):
    r"""White Gaussian noise: independent, of standard deviation `level`.

    The data term is :math:`\sum_i |(A x - y)_i|^2 / (2\,\text{level}_i^2)`. With a map its modulus is that of A times
    the least weight :math:`1 / \text{level}_i^2`, and its Lipschitz constant that of A times the largest one.

    Parameters
    ----------
    level : float or Tensor
        one, one per image (B,), or a map that broadcasts to y: (B or 1, C or 1, H, W), or (1, C, 1, 1) for a level of
        each channel.

    Raises
    ------
    ValueError
        for a level that is negative or not finite, or a map that has a level of 0.
    """

    level: float | Tensor

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.level).detach()
        _check("level", values, zero=values.ndim < 2)
        # A copy: the caller's tensor may change.
        object.__setattr__(self, "level", values.clone() if isinstance(self.level, Tensor) else float(self.level))

    @property
    def is_map(self) -> bool:
        """Whether the levels are those of pixels or channels, not of images."""
        return isinstance(self.level, Tensor) and self.level.ndim > 1

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + self._like(x) * _normal(x, generator)

    def variance(self, x: Tensor) -> Tensor:
        return self._like(x).square()

    def data(self, y: Tensor, physics: Any) -> tuple[DataFunctional, Tensor]:
        levels = self._like(y).double()
        _check("noise", levels, zero=False)
        term = data_functional(y, physics, None)
        if not self.is_map:
            return term, levels.reshape(-1).square().reciprocal()
        weights = levels.square().reciprocal()
        # The weights are 1 in the mean, so that no constant depends on the unit of y.
        factor = weights.expand(len(weights), *y.shape[1:]).flatten(1).mean(1)
        weights = weights / factor.reshape(-1, *([1] * (y.ndim - 1)))
        return WeightedGaussianData.of(term, weights.to(y)), factor

    def to_deepinv(self, generator: torch.Generator | None = None) -> deepinv.physics.NoiseModel:
        if not self.is_map:
            return deepinv.physics.GaussianNoise(self.level, rng=generator)
        # GaussianNoise takes one level per image.
        return deepinv.physics.NoiseModel(lambda x: self.draw(x, generator))

    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        values = scale * torch.as_tensor(self.level).double()
        return f"white, {_range(values)} {unit}"

    def _like(self, x: Tensor) -> Tensor:
        """The levels as a tensor that broadcasts to x."""
        levels = torch.as_tensor(self.level).to(x)
        if levels.ndim < 2:
            if levels.numel() not in (1, len(x)):
                raise ValueError(
                    f"noise: got {levels.numel()} levels for {len(x)} images, expected one or one per image"
                )
            return levels.reshape(-1, *([1] * (x.ndim - 1)))
        fits = levels.ndim == x.ndim and all(a in (1, b) for a, b in zip(levels.shape, x.shape, strict=True))
        if not fits:
            raise ValueError(
                f"noise: got a map of shape {tuple(levels.shape)}, expected one that broadcasts to {tuple(x.shape)}"
            )
        return levels


@dataclass(frozen=True, eq=False)
class Poisson(Noise):
    r"""Counts: :math:`y = a\, p` with p Poisson of mean :math:`x / a`; the variance is :math:`a x`.

    The data term is the exact likelihood (:class:`icgn.functionals.data.PoissonData`), for nonnegative pictures.

    Parameters
    ----------
    gain : float
        a, what one count adds to y.
    counted : bool
        whether y holds the counts p themselves, and x their mean times the gain.

    Raises
    ------
    ValueError
        for a gain that is not positive and finite.
    """

    gain: float
    counted: bool = False
    counts = True

    def __post_init__(self) -> None:
        _check("gain", torch.as_tensor(self.gain), zero=False)

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        drawn = torch.poisson(_nonnegative(x) / self.gain, generator=generator)
        return drawn if self.counted else self.gain * drawn

    def mean(self, y: Tensor) -> Tensor:
        return self.gain * y if self.counted else y

    def variance(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) / self.gain if self.counted else self.gain * x.clamp_min(0)

    def data(self, y: Tensor, physics: Any) -> tuple[DataFunctional, Tensor]:
        fidelity = deepinv.optim.PoissonLikelihood(gain=self.gain, bkg=0.0, denormalize=not self.counted)
        return data_functional(y, physics, fidelity), torch.ones((), dtype=torch.float64)

    def to_deepinv(self, generator: torch.Generator | None = None) -> deepinv.physics.NoiseModel:
        return deepinv.physics.PoissonNoise(self.gain, normalize=not self.counted, rng=generator)

    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        return f"counts (Poisson), {scale * self.gain:.3g} {unit} each: it grows with the brightness"


@dataclass(frozen=True, eq=False)
class PoissonGaussian(Noise):
    r"""Counts read with noise: :math:`y = a\, p + o + b\, n`, p Poisson of mean :math:`x / a`, n standard normal.

    The variance is :math:`a x + b^2`. The data term is the likelihood of shifted counts
    :math:`(y - o) / a + (b / a)^2`, which have mean and variance of a Poisson variable of mean
    :math:`x / a + (b / a)^2` (Snyder, Hammoud, White 1993, J. Opt. Soc. Am. A 10(5)); shifted counts below 0 are 0.

    Parameters
    ----------
    gain : float
        a, what one count adds to y.
    read : float
        b, standard deviation of the read-out.
    offset : float
        o, what y is where nothing is counted.

    Raises
    ------
    ValueError
        for a gain that is not positive, a negative read-out noise, or numbers that are not finite.
    """

    gain: float
    read: float
    offset: float = 0.0
    counts = True

    def __post_init__(self) -> None:
        _check("gain", torch.as_tensor(self.gain), zero=False)
        _check("read", torch.as_tensor(self.read), zero=True)
        if not math.isfinite(self.offset):
            raise ValueError(f"offset: got {self.offset}, expected a finite number")

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        drawn = self.gain * torch.poisson(_nonnegative(x) / self.gain, generator=generator)
        return drawn + self.offset + self.read * _normal(x, generator)

    def mean(self, y: Tensor) -> Tensor:
        return y - self.offset

    def variance(self, x: Tensor) -> Tensor:
        return self.gain * x.clamp_min(0) + self.read**2

    def data(self, y: Tensor, physics: Any) -> tuple[DataFunctional, Tensor]:
        term = data_functional(y, physics, None)
        shifted = y - self.offset + self.read**2 / self.gain
        # Not clamp: NaN of an invalid image stays.
        shifted = torch.where(shifted < 0, 0.0, shifted)
        background = (self.read / self.gain) ** 2
        counted = PoissonData(shifted, physics, term.gram, self.gain, background, False, own=term.own)
        return counted, torch.ones((), dtype=torch.float64)

    def to_deepinv(self, generator: torch.Generator | None = None) -> deepinv.physics.NoiseModel:
        if self.offset:
            raise ValueError(f"offset: got {self.offset:g}, expected 0: deepinv's PoissonGaussianNoise has none")
        return deepinv.physics.PoissonGaussianNoise(gain=self.gain, sigma=self.read, rng=generator)

    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        return (
            f"growing with the brightness (Poisson-Gaussian), {scale * self.gain:.3g} {unit} per count"
            f" and {scale * self.read:.3g} {unit} of read-out"
        )


@dataclass(frozen=True, eq=False)
class Correlated(Noise):
    r"""Gaussian noise of which neighbouring pixels have similar values, as after demosaicking, resizing or JPEG.

    The data term is that of white noise of the same level. One that is whitened by the spectrum was no better, measured
    on photographs; what does help is a larger sigma than the level: :attr:`removal`.

    Parameters
    ----------
    level : float
        standard deviation.
    spectrum : Tensor
        power over the frequencies 0 to 1/2 per pixel of both axes at even distances, (K, K), nonnegative; its scale
        does not matter.
    where : str
        what the noise is like, a few words that end the sentence of :meth:`text`.
    coherence : float
        level of the scaled luma over that of the channels: 1 for independent colours, 1.495 for noise that is the same
        in all of them.
    excess : float
        more is to be removed by this factor, at least 1: where a camera has smoothed the flat parts of its picture.

    Raises
    ------
    ValueError
        for a level that is negative or not finite, a spectrum of another shape, negative or 0 everywhere, or a
        coherence or an excess out of its range.
    """

    level: float
    spectrum: Tensor
    where: str = ""
    coherence: float = 1.0
    excess: float = 1.0

    def __post_init__(self) -> None:
        _check("level", torch.as_tensor(self.level), zero=True)
        s = torch.as_tensor(self.spectrum).detach()
        if s.ndim != 2 or s.shape[0] != s.shape[1] or len(s) < 2:
            raise ValueError(f"spectrum: got shape {tuple(s.shape)}, expected (K, K), K at least 2")
        if not bool((torch.isfinite(s) & (s >= 0)).all()) or not bool((s > 0).any()):
            raise ValueError("spectrum: got one that vanishes or is not finite and >= 0, expected power of frequencies")
        if not 1 <= self.coherence <= MOST_COHERENT:
            raise ValueError(f"coherence: got {self.coherence}, expected a number from 1 to {MOST_COHERENT}")
        if not 1 <= self.excess < math.inf:
            raise ValueError(f"excess: got {self.excess}, expected a finite number from 1 on")
        object.__setattr__(self, "spectrum", s.double().clone())

    @classmethod
    def gaussian(cls, level: float, correlation: float, where: str = "", coherence: float = 1.0) -> Correlated:
        """White noise smoothed by a Gaussian until neighbouring pixels are correlated as they should.

        Parameters
        ----------
        level : float
            standard deviation.
        correlation : float
            r, that of neighbouring pixels, from 0 to below 1.
        where, coherence
            as for the class.

        Raises
        ------
        ValueError
            for a correlation out of its range.
        """
        if not 0 <= correlation < 1:
            raise ValueError(f"correlation: got {correlation}, expected a number from 0 to below 1")
        # Noise smoothed by a Gaussian of deviation s has the correlation exp(-1 / 4 s^2) of neighbours.
        square = -1 / (4 * math.log(max(correlation, 1e-12)))
        power = torch.exp(-4 * math.pi**2 * square * torch.linspace(0, 0.5, 16, dtype=torch.float64).square())
        return cls(level, power * power[:, None], where, coherence)

    @property
    def correlation(self) -> float:
        """Correlation of neighbouring pixels, from 0 to 1: that of the spectrum along rows and columns."""
        k = len(self.spectrum)
        # Frequencies 0 and 1/2 count once, those between are two of the whole spectrum.
        count = torch.full((k,), 2.0, dtype=torch.float64)
        count[0] = count[-1] = 1.0
        power = self.spectrum * count * count[:, None]
        wave = torch.cos(math.pi * torch.arange(k, dtype=torch.float64) / (k - 1))
        return float(((power * (wave + wave[:, None]) / 2).sum() / power.sum()).clamp(0, 1))

    @property
    def removal(self) -> float:
        """The level that a regularizer should be asked to remove: :func:`removal` of the level, times the excess."""
        return self.excess * removal(self.level * self.coherence, self.correlation)

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = x.shape[-2:]
        power = self._power(height, width).to(x)
        normal = _normal(x, generator)
        if x.ndim == 4 and x.shape[1] == 3 and self.coherence > 1:
            share = (self.coherence**2 - 1) / (MOST_COHERENT**2 - 1)
            common = _normal(x[:, :1], generator)
            normal = math.sqrt(1 - share) * normal + math.sqrt(share) * common
        white = torch.fft.rfft2(normal)
        return x + self.level * torch.fft.irfft2(white * power.sqrt(), s=(height, width))

    def variance(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.level**2).to(x)

    def data(self, y: Tensor, physics: Any) -> tuple[DataFunctional, Tensor]:
        return White(self.level).data(y, physics)

    def to_deepinv(self, generator: torch.Generator | None = None) -> deepinv.physics.NoiseModel:
        return deepinv.physics.NoiseModel(lambda x: self.draw(x, generator))

    def text(self, scale: float = 1.0, unit: str = "of intensity") -> str:
        return f"correlated, {scale * self.level:.3g} {unit}" + (f", {self.where}" if self.where else "")

    def _power(self, height: int, width: int) -> Tensor:
        """The power on the frequencies of ``torch.fft.rfft2``, 1 in the mean over all frequencies."""
        size = (height // 2 + 1, width // 2 + 1)
        quarter = torch.nn.functional.interpolate(
            self.spectrum[None, None], size=size, mode="bilinear", align_corners=True
        )[0, 0]
        rows = torch.arange(height)
        half = quarter[torch.minimum(rows, height - rows)]
        columns = torch.arange(width)
        return half / half[:, torch.minimum(columns, width - columns)].mean()


MOST_COHERENT = 1.495
"""Level of the scaled luma over that of the channels, where all have the same noise: the sum of weights of norm 1."""


# More is removed of noise whose neighbours are alike, as a part of its level.
_ALIKE = 1.5


def removal(level: float, correlation: float) -> float:
    r"""The level that a regularizer should be asked to remove, the noise being correlated.

    :math:`(1 + 1.5\, r)` times the level, r being the correlation of neighbouring pixels. Coarse noise looks like
    detail to a regularizer made for white noise; on photographs of cameras 2 to 3 times the true level was best. Models
    for cameras are trained with the same factor.

    Parameters
    ----------
    level : float
        root mean square of the noise.
    correlation : float
        correlation of neighbouring pixels, from 0 to 1.
    """
    return level * (1 + _ALIKE * min(max(correlation, 0.0), 1.0))


def correlation_of(removed: float, level: float) -> float:
    """The correlation, from 0 to 1, for which :func:`removal` gives that level to remove: its inverse.

    Parameters
    ----------
    removed : float
        level to remove.
    level : float
        root mean square of the noise, above 0.
    """
    return min(max((removed / level - 1) / _ALIKE, 0.0), 1.0)


def described(noise: Any) -> Noise:
    """A description of the noise, of whatever says how large it is.

    Parameters
    ----------
    noise : Noise, float, Tensor or deepinv.physics.NoiseModel
        a description is returned as it is; numbers, one per image and maps are levels of white noise; of deepinv's
        models ``GaussianNoise``, ``PoissonNoise`` and ``PoissonGaussianNoise`` are known.

    Raises
    ------
    TypeError
        for anything else, other noise models of deepinv included.
    ValueError
        for levels that a description does not take.
    """
    if isinstance(noise, Noise):
        return noise
    if isinstance(noise, deepinv.physics.GaussianNoise):
        return White(noise.sigma)
    if isinstance(noise, deepinv.physics.PoissonNoise):
        return Poisson(_one("gain", noise.gain), counted=not bool(noise.normalize))
    if isinstance(noise, deepinv.physics.PoissonGaussianNoise):
        return PoissonGaussian(_one("gain", noise.gain), _one("sigma", noise.sigma))
    if isinstance(noise, int | float | Tensor):
        return White(noise)
    raise TypeError(
        f"noise: got {type(noise).__name__}, expected a number, a map, an icgn noise, or deepinv's GaussianNoise,"
        " PoissonNoise or PoissonGaussianNoise"
    )


def _one(name: str, value: Tensor) -> float:
    values = value.reshape(-1).unique()
    if len(values) != 1:
        raise ValueError(f"{name}: got {values.tolist()}, expected the same for all images")
    return float(values[0])


def _check(name: str, values: Tensor, *, zero: bool) -> None:
    values = values.double().reshape(-1)
    inside = torch.isfinite(values) & ((values >= 0) if zero else (values > 0))
    if not values.numel() or not bool(inside.all()):
        found = values[~inside][:3].tolist()
        raise ValueError(f"{name}: got {found}, expected finite numbers {'>= 0' if zero else '> 0'}")


def _nonnegative(x: Tensor) -> Tensor:
    if bool((x < 0).any()):
        raise ValueError(f"x: got values down to {float(x.min()):.4g}, expected means of counts >= 0")
    return x


def _normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
