"""What happened to a picture, posed as a linear inverse problem: noise, a blur, missing pixels, a smaller size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import deepinv
import torch
from torch import Tensor

from icgn.datasets import Picture
from icgn.functionals.intensities import least_squares
from icgn.functionals.physics import converted
from icgn.pictures.levels import Note
from icgn.pictures.masks import Mask, percent
from icgn.pictures.missing import check_mask, nearest_known
from icgn.pictures.placing import TAIL, cut

Border = Literal["valid", "circular"]
"""What lies beyond the frame of a blurred picture."""

# Convolutions by the Fourier transform are faster above so many values of a kernel.
_FFT_FROM = 225
# No more of a kernel may be cut off to make it as small as the picture.
_CUT = 0.05


@dataclass(frozen=True, eq=False)
class Pose:
    r"""A measurement :math:`y = A x + \text{noise}` of pictures x.

    Attributes
    ----------
    y : Tensor
        measurements, batch first.
    physics : deepinv.physics.LinearPhysics
        A, in the precision of y.
    start : Tensor or None
        starting pictures (B, C, H, W); None for the adjoint of y.
    bounded : bool
        whether intensities are bounded. Bounds bound the objective gap where A is not injective and no distance can be
        proved.
    frame : (int, int) or None
        height and width of the part of x, in its middle, that is the picture; None for all of it.
    before : Tensor or None
        pictures (B, C, H, W) to compare the result with; None for y.
    """

    y: Tensor
    physics: Any
    start: Tensor | None = None
    bounded: bool = True
    frame: tuple[int, int] | None = None
    before: Tensor | None = None


class Task(ABC):
    """What happened to a picture.

    Attributes
    ----------
    smoothing : float
        level that the regularizer is asked to remove, over the noise, where none is given: about the best of the models
        in ``docs/results/inverse``.
    shows_intensities : bool
        whether a measurement is a picture itself, with intensities in [0, 1] plus noise.
    """

    smoothing: float = 1.0
    shows_intensities: bool = True

    @abstractmethod
    def pose(self, y: Tensor) -> Pose:
        """Pose the problem for pictures as they were measured, y (B, C, H, W), in float64 where the physics can.

        Raises
        ------
        TypeError, ValueError
            if y is no batch of pictures that the task is for.
        """

    def shown(self, y: Tensor, pose: Pose) -> Tensor:
        """Pictures about as bright as those to be found, of the measurement y and its pose; NaN where unknown."""
        return y

    def notes(self, pose: Pose) -> tuple[Note, ...]:
        """What is to be said about what was assumed, where there is something."""
        return ()


@dataclass(frozen=True)
class Denoise(Task):
    """White Gaussian noise was added. Sigma is the level of the noise, and no box is needed: y fixes every pixel."""

    def pose(self, y: Tensor) -> Pose:
        return Pose(y, deepinv.physics.Denoising(), bounded=False)


@dataclass(frozen=True, eq=False)
class Deblur(Task):
    """The picture was blurred by a known kernel, and noise was added.

    Parameters
    ----------
    kernel : Tensor
        (1, 1, h, w) of odd sides and sum 1, as :func:`icgn.pictures.read_kernel` returns it. What does not matter of
        one that is large for the picture is cut off.
    border : {"valid", "circular"}
        what lies beyond the frame: with ``"valid"``, as of photographs, nothing is assumed, and the margin that was
        blurred into the frame is estimated too, and cut off; with ``"circular"`` the picture goes on periodically.
    """

    kernel: Tensor
    _: KW_ONLY
    border: Border = "valid"
    smoothing = 7.5

    def pose(self, y: Tensor) -> Pose:
        frame = y.shape[-2], y.shape[-1]
        (kernel, _), y = self.fitted(frame), y.double()
        kernel, size = kernel.to(y.device), kernel.shape[-2:]
        if self.border == "circular":
            return Pose(y, deepinv.physics.BlurFFT(tuple(y.shape[1:]), filter=kernel, device=y.device), y)
        if self.border != "valid":
            raise ValueError(f"border: got {self.border!r}, expected 'valid' or 'circular'")
        physics = deepinv.physics.Blur(kernel, padding="valid", use_fft=kernel.numel() >= _FFT_FROM, device=y.device)
        below, right = size[0] // 2, size[1] // 2
        start = torch.nn.functional.pad(y, (right, right, below, below), mode="replicate")
        return Pose(y, physics, start, frame=frame)

    def fitted(self, frame: tuple[int, int]) -> tuple[Tensor, float]:
        """The kernel for pictures of that height and width, in float64, and the part of it that was cut off.

        A kernel of more than half their size is cut to what matters. One that is still larger than they are is cut to
        their size.

        Raises
        ------
        ValueError
            where that would leave out more than 5 % of the kernel.
        """
        whole = self.kernel.detach().double().cpu()[0, 0].numpy()
        # The largest odd sides that fit.
        most = frame[0] - 1 + frame[0] % 2, frame[1] - 1 + frame[1] % 2
        kernel, lost = cut(whole, (frame[0] // 2, frame[1] // 2))
        if kernel.shape[0] > frame[0] or kernel.shape[1] > frame[1]:
            top, left = (max(k - m, 0) // 2 for k, m in zip(kernel.shape, most, strict=True))
            part = kernel[top : top + most[0], left : left + most[1]]
            lost = 1 - float(abs(part).sum() / abs(whole).sum())
            if lost > _CUT or not part.sum() > 0:
                sizes = f"{whole.shape[0]} x {whole.shape[1]}", f"{frame[0]} x {frame[1]}"
                raise ValueError(f"kernel: got {sizes[0]} pixels, expected at most the {sizes[1]} of the picture")
            kernel = part / part.sum()
        return torch.from_numpy(kernel)[None, None], lost

    def notes(self, pose: Pose) -> tuple[Note, ...]:
        kernel, lost = self.fitted((pose.y.shape[-2], pose.y.shape[-1]))
        if not lost:
            return ()
        sizes = ["{} x {}".format(*k.shape[-2:]) for k in (self.kernel, kernel)]
        text = f"the kernel of {sizes[0]} is cut to {sizes[1]}, leaving out {percent(max(lost, 0.0))} of it"
        return (Note("kernel", text, warning=lost > 2 * TAIL),)


@dataclass(frozen=True, eq=False)
class Inpaint(Task):
    """Pixels are missing, and the others are noisy.

    Parameters
    ----------
    known : Tensor
        True where the picture is known, (H, W), (1, H, W) or, one for each picture of a batch, (B, 1, H, W); (C, H, W)
        with a mask for each channel, or slice of a volume. What y holds elsewhere does not matter.
    words : str
        how many pixels are missing, and how that was decided; default the number alone.
    """

    known: Tensor
    _: KW_ONLY
    words: str = ""
    smoothing = 6.0

    def pose(self, y: Tensor) -> Pose:
        known = check_mask(self.known, y)
        mask = known.double().expand(-1, y.shape[1], -1, -1).contiguous()
        y = torch.where(known, y.double(), 0.0)
        physics = deepinv.physics.Inpainting(tuple(y.shape[1:]), mask=mask, device=y.device)
        return Pose(y, physics, nearest_known(y, known), before=y)

    def shown(self, y: Tensor, pose: Pose) -> Tensor:
        return torch.where(pose.physics.mask.to(y.device) > 0, y, torch.nan)

    def notes(self, pose: Pose) -> tuple[Note, ...]:
        said = self.words or Mask(check_mask(self.known, pose.y)[0], "those of the mask").words
        return (Note("mask", said.replace("{", "{{").replace("}", "}}")),)


@dataclass(frozen=True)
class Enlarge(Task):
    """The picture was made smaller by a bicubic filter, and noise was added.

    Parameters
    ----------
    factor : int
        by which its sides are to grow, at least 2.
    """

    factor: int
    smoothing = 8.0

    def pose(self, y: Tensor) -> Pose:
        y = y.double()
        physics = self.physics((y.shape[1], *(self.factor * side for side in y.shape[-2:])), y.device)
        # The adjoint of the bicubic filter is bicubic interpolation times a factor.
        start = self.factor**2 * physics.A_adjoint(y)
        return Pose(y, physics, start, before=start)

    def physics(self, size: tuple[int, ...], device: torch.device) -> deepinv.physics.Downsampling:
        """The operator from pictures of that size, (C, H, W), to small ones, in float64."""
        if self.factor < 2:
            raise ValueError(f"factor: got {self.factor}, expected a whole number from 2 on")
        physics = deepinv.physics.Downsampling(
            size, filter="bicubic", factor=self.factor, padding="circular", device=device
        )
        return physics.double()


@dataclass(frozen=True, eq=False)
class Measured(Task):
    """The picture was measured by any linear physics, and noise was added.

    Parameters
    ----------
    physics : deepinv.physics.LinearPhysics or callable
        A, or a function that makes it: ``physics(img_size=SHAPE, device=DEVICE)``, SHAPE being that of a measurement
        without the batch.
    name : str
        of the physics, in messages.
    """

    physics: Any
    _: KW_ONLY
    name: str = "physics"
    shows_intensities = False

    def pose(self, y: Tensor) -> Pose:
        physics = self.physics if isinstance(self.physics, deepinv.physics.LinearPhysics) else self._make(y)
        x = self._adjoint(physics, y)
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            raise ValueError(
                f"{self.name}: A_adjoint gives {x.dtype} of shape {tuple(x.shape)}, expected real numbers of"
                f" ({len(y)}, 1 or 3, height, width)"
            )
        with suppress(Exception):  # deepinv's operators raise errors of every type
            double = converted(physics, y.double())
            return Pose(y, physics) if double is None else Pose(y.double(), double)
        return Pose(y, physics)

    def shown(self, y: Tensor, pose: Pose) -> Tensor:
        return least_squares(pose.y, pose.physics)

    def _make(self, y: Tensor) -> deepinv.physics.LinearPhysics:
        make: Callable[..., Any] = self.physics
        try:
            physics = make(img_size=tuple(y.shape[1:]), device=y.device)
        except (Exception, SystemExit) as error:  # whatever the function raises
            raise ValueError(f"{self.name}: failed on {tuple(y.shape[1:])}: {_reason(error)}") from error
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            got = type(physics).__name__
            raise ValueError(f"{self.name}: returned {got}, expected a deepinv.physics.LinearPhysics")
        return physics

    def _adjoint(self, physics: Any, y: Tensor) -> Tensor:
        """A^T y; raises unless A of it has the shape of y."""
        try:
            x: Tensor = physics.A_adjoint(y)
            again = tuple(physics.A(x).shape)
        except Exception as error:  # deepinv's operators raise errors of every type
            raise ValueError(f"{self.name}: does not take shape {tuple(y.shape)}: {_reason(error)}") from error
        if again != tuple(y.shape):
            raise ValueError(
                f"{self.name}: measures {again} of the picture {tuple(x.shape)},"
                f" expected {tuple(y.shape)} as the measurement"
            )
        return x


def with_data(task: Task, picture: Picture | None) -> Task:
    """The task of a picture some pixels of which have no data, which are missing where others are.

    To denoise, such pixels are as they were continued (:attr:`icgn.datasets.Picture.nodata`): a problem in which they
    were missing would take four to seven times as many steps, and the others were no better by more than 0.03 dB.

    Raises
    ------
    ValueError
        for a task in which every pixel counts.
    """
    if picture is None or picture.nodata is None or isinstance(task, Denoise) or bool(picture.nodata.all()):
        return task
    if not isinstance(task, Inpaint):
        number = int(picture.nodata.sum())
        raise ValueError(f"y: {number} pixels have no data (NaN, or as the file declares), expected data everywhere")
    return replace(task, known=task.known.to(picture.nodata.device).bool() & ~picture.nodata)


def missing_of(task: Task) -> Tensor | None:
    """The pixels that a task has to find, bool (1, H, W), or (B, 1, H, W) for B masks; None where all were measured."""
    if not isinstance(task, Inpaint):
        return None
    known = task.known.bool()
    known = known[None] if known.ndim == 2 else known
    return ~(known[0] if known.ndim == 4 and len(known) == 1 else known)


def known_part(task: Task, pixels: Tensor) -> Tensor:
    """Pixels (C, H, W) or (B, C, H, W), NaN where they are missing."""
    missing = missing_of(task)
    return pixels if missing is None else pixels.masked_fill(missing, torch.nan)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
