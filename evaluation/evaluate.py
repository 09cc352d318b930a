"""Denoising quality on a set of photographs: one row per method, noise level and picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from icgn.compat import keyword_only
from icgn.datasets import Photographs, add_noise, quality, seed_of
from icgn.evaluation.restorers import Restorer, fingerprint
from icgn.training.processes import Processes


@dataclass(frozen=True)
class Entry:
    """One restored picture.

    Attributes
    ----------
    model, image : str
        names.
    sigma : float
        noise level in 8-bit gray levels.
    noisy_psnr, psnr : float
        dB, before and after; after is clamped to [0, 1] as it is when written.
    ssim : float
        mean structural similarity.
    iterations : float
        of the solver, mean over the channels; nan for other methods.
    seconds : float
        wall-clock time.
    rms_distance : float
        certified RMS distance to the minimizer, in gray levels; nan where none is proved.
    status : str
        how the solver ended.
    parameters : int
        learned parameters of the method.
    method : str
        hash of the weights and settings of the method.
    """

    model: str
    image: str
    sigma: float
    noisy_psnr: float
    psnr: float
    ssim: float
    iterations: float
    seconds: float
    rms_distance: float
    status: str
    parameters: int
    method: str

    @property
    def key(self) -> tuple[str, str, float, str]:
        """The fields that distinguish entries of a table."""
        return self.model, self.image, self.sigma, self.method


@keyword_only
def evaluate(
    restorers: Sequence[Restorer],
    pictures: Photographs,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    known: Sequence[Entry] = (),
    done: Callable[[Entry], None] | None = None,
    processes: Processes | None = None,
) -> list[Entry]:
    """Add noise to every picture, restore it by every method, and measure.

    The noise of a picture depends on its name and the seed alone, so that methods and runs see the same pixels.

    Parameters
    ----------
    restorers : sequence of Restorer
        the methods.
    pictures : Photographs
        clean pictures.
    sigmas : sequence of float
        noise levels in 8-bit gray levels.
    seed : int
        of the noise.
    known : sequence of Entry
        rows of an earlier run on the same pictures with the same seed, which are taken over instead of computed.
    done : callable, optional
        is given each row as soon as it is there, those of other processes after each method and level.
    processes : Processes, optional
        among which the pictures are shared; every one gets all rows.

    Returns
    -------
    list of Entry
        in the order of methods, levels and pictures.
    """
    group = Processes(device="cpu") if processes is None else processes
    old = {entry.key: entry for entry in known}
    rows: list[Entry] = []
    for restorer, sigma in product(restorers, map(float, sigmas)):
        method = fingerprint(restorer)
        own = []
        for i in group.share(range(len(pictures))):
            entry = old.get((restorer.name, pictures.names[i], sigma, method))
            own.append(_entry(restorer, method, pictures, i, sigma, seed) if entry is None else entry)
            if done is not None:
                done(own[-1])
        block = {entry.image: entry for entry in group.gather(own)}
        rows += [block[name] for name in pictures.names]
        if done is not None:
            for name in block.keys() - {entry.image for entry in own}:
                done(block[name])
    return rows


def _entry(restorer: Restorer, method: str, pictures: Photographs, i: int, sigma: float, seed: int) -> Entry:
    sample = pictures[i]
    noisy = add_noise(sample.image, sigma / 255, seed_of(sample.name, seed=seed))
    result = restorer(noisy, sigma / 255)
    after = quality(result.image, sample.image)
    return Entry(
        model=restorer.name,
        image=sample.name,
        sigma=sigma,
        noisy_psnr=quality(noisy, sample.image).psnr,
        psnr=after.psnr,
        ssim=after.ssim,
        iterations=result.iterations,
        seconds=result.seconds,
        rms_distance=255 * result.rms_distance,
        status=result.status,
        parameters=restorer.parameters,
        method=method,
    )
