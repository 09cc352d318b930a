"""Markov chains of pictures: Hamiltonian Monte Carlo with a convolution as its mass."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icgn.functionals.functional import dot, per_image
from icgn.solvers.objective import Objective
from icgn.storage.files import write_files
from icgn.uncertainty.mass import Mass

# The mean probability of a proposal to be taken that the step is tuned for.
_ACCEPTED = 0.75
# The mass is taken anew after these parts of the warm-up; the step is that of the last part in the mean.
_WINDOWS = (0.17, 0.34, 0.55, 0.8)
# Draws of a window without which it is not used.
_FEWEST = 40
# Steps are longer or shorter by up to this part at random, so that no mode comes back to where it was.
_JITTER = 0.1
_FIRST, _LONGEST = 0.2, 1.5
# Numbers of the draws that are kept; beyond that every second one is left out.
_KEPT = 1 << 26


@dataclass(frozen=True, eq=False)
class Target:
    """The density exp(-f) that several chains of one picture draw from, f = F / sigma^2."""

    objective: Objective
    sigma: float

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values of f, float64 (chains,), and its gradients at pictures."""
        u = self.objective.linear(x)
        return self.objective.potential(u).double() / self.sigma**2, self.objective.grad_from(
            u, x.shape
        ) / self.sigma**2


@dataclass(eq=False, kw_only=True)
class Chains:
    r"""Where chains are, and all that they need to go on as if they had never been stopped.

    A transition draws a momentum p from N(0, M) and follows the flow of
    :math:`f(x) + \tfrac12 p^T M^{-1} p` by a splitting that is reversible and keeps volumes: the flow of
    :math:`\tfrac12 (x - c)^T M (x - c) + \tfrac12 p^T M^{-1} p`, a rotation, is exact, and the rest of f kicks the
    momentum between (Shahbaba, Lan, Johnson, Neal 2014, Statistics and Computing 24, 339). The end is taken with
    probability :math:`\min(1, e^{-\Delta})`, :math:`\Delta` the growth of the energy, so that exp(-f) is invariant
    whatever M, c and the step are. One step to a transition is the Metropolis-adjusted Langevin algorithm with M as its
    preconditioner.

    Attributes
    ----------
    x, energy, gradient : Tensor
        the pictures (chains, C, H, W), their f and its gradient.
    mass : Mass
        M.
    centre : Tensor
        c, (1, C, H, W).
    trajectory : float
        how long the flow is followed, in units in which a Gaussian of covariance M^-1 comes round after 2 pi.
    warmup : int
        transitions that are not counted, in which M, c and the step are found.
    generator : torch.Generator
        of the random numbers.
    step, log_step : float
        length of a step, and the sum of its logarithms in the last part of the warm-up.
    transitions, gradients : int
        made so far, of each chain.
    tried, accepted : float
        transitions after the warm-up, and the sum of their probabilities.
    every : int
        one of so many draws is kept.
    draws, energies : list of Tensor
        kept after the warm-up, each of all chains.
    window : list of Tensor
        draws of the part of the warm-up that runs.
    """

    x: Tensor
    energy: Tensor
    gradient: Tensor
    mass: Mass
    centre: Tensor
    trajectory: float
    warmup: int
    generator: torch.Generator
    step: float = _FIRST
    log_step: float = 0.0
    transitions: int = 0
    gradients: int = 0
    tried: int = 0
    accepted: float = 0.0
    every: int = 1
    draws: list[Tensor] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    window: list[Tensor] = field(default_factory=list)

    @classmethod
    @torch.no_grad()
    def begin(cls, target: Target, x: Tensor, chains: int, seed: int, trajectory: float, warmup: int) -> Chains:
        """Chains around a picture, twice as far spread as a Gaussian with the curvature there.

        Parameters
        ----------
        target : Target
            what they draw from.
        x : Tensor
            the picture, (1, C, H, W).
        chains : int
            how many.
        seed : int
            of the random numbers.
        trajectory : float
            length of a transition.
        warmup : int
            transitions of the warm-up.
        """
        generator = torch.Generator().manual_seed(seed)
        like = x.expand(chains, -1, -1, -1)
        # A picture with noise, as draws are, is what the curvature is taken at: at a mode it is much larger.
        mass = Mass.of_hessian(target.objective, like + target.sigma / 2 * _white(like, generator), target.sigma)
        begun = like + 2 * mass.spread(_white(like, generator))
        energy, gradient = target.at(begun)
        return cls(
            x=begun,
            energy=energy,
            gradient=gradient,
            mass=mass,
            centre=x.clone(),
            trajectory=trajectory,
            warmup=warmup,
            generator=generator,
            gradients=1,
        )

    @property
    def warm(self) -> bool:
        """Whether the warm-up is over."""
        return self.transitions >= self.warmup

    @property
    def acceptance(self) -> float:
        """The mean probability of a proposal after the warm-up."""
        return self.accepted / self.tried if self.tried else math.nan

    @torch.no_grad()
    def advance(self, target: Target) -> None:
        """Make one transition of all chains."""
        probability = self._move(target)
        self.transitions += 1
        if self.transitions <= self.warmup:
            self._tune(target, probability)
            return
        self.tried += 1
        self.accepted += probability
        if self.tried % self.every == 0:
            self.draws.append(self.x.float())
            self.energies.append(self.energy)
        if len(self.draws) > 16 and len(self.draws) * self.x.numel() > _KEPT:
            self.every, self.draws, self.energies = 2 * self.every, self.draws[1::2], self.energies[1::2]

    def _move(self, target: Target) -> float:
        """Propose, take or leave; the mean probability of taking."""
        step = self.step * (1 + _JITTER * (2 * float(torch.rand((), generator=self.generator)) - 1))
        count = max(1, round(self.trajectory / self.step))
        p = self.mass.momentum(_white(self.x, self.generator))
        before = self.energy + self._kinetic(p)
        x, gradient = self.x, self.gradient
        p = p - step / 2 * self._rest(x, gradient)
        for k in range(count):
            away = x - self.centre
            x = self.centre + math.cos(step) * away + math.sin(step) * self.mass.inverse(p)
            p = math.cos(step) * p - math.sin(step) * self.mass.times(away)
            energy, gradient = target.at(x)
            p = p - (step if k < count - 1 else step / 2) * self._rest(x, gradient)
        self.gradients += count
        growth = energy + self._kinetic(p) - before
        probability = torch.where(torch.isfinite(growth), (-growth).clamp_max(0).exp(), 0.0)
        drawn = torch.rand(len(x), generator=self.generator, dtype=torch.float64).to(probability)
        taken = drawn < probability
        self.energy = torch.where(taken, energy, self.energy)
        self.x = torch.where(per_image(taken, x).bool(), x, self.x)
        self.gradient = torch.where(per_image(taken, x).bool(), gradient, self.gradient)
        return float(probability.mean())

    def _kinetic(self, p: Tensor) -> Tensor:
        return dot(p.double(), self.mass.inverse(p).double()) / 2

    def _rest(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of what the rotation leaves of f."""
        return gradient - self.mass.times(x - self.centre)

    def _tune(self, target: Target, probability: float) -> None:
        """Change the step by the probability, and the mass and the centre at the ends of windows."""
        ends = [int(part * self.warmup) for part in _WINDOWS]
        since = self.transitions - max([end for end in ends if end < self.transitions], default=0)
        rate = min(0.5, (10 / (10 + since)) ** 0.7)
        self.step = min(self.step * math.exp(rate * (probability - _ACCEPTED)), _LONGEST)
        self.window.append(self.x)
        if self.transitions in ends:
            self._take_mass(target)
            self.window = []
        if self.transitions > ends[-1]:
            self.log_step += math.log(self.step)
        if self.transitions == self.warmup:
            self.step, self.window = math.exp(self.log_step / (self.warmup - ends[-1])), []

    def _take_mass(self, target: Target) -> None:
        """The mass and the centre of the draws of a window, of its second half at first, when chains still approach."""
        draws = torch.cat(self.window[len(self.window) // 2 :] if self.transitions < self.warmup // 3 else self.window)
        known = Mass.of_hessian(target.objective, self.x, target.sigma)
        self.mass = known.of_draws(draws) if len(draws) >= _FEWEST else known
        self.centre = draws.mean(0, keepdim=True)

    def save(self, path: str | Path) -> None:
        """Write all of it to a file, at once or not at all.

        Raises
        ------
        OSError
            if it cannot be written.
        """
        content: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        content["mass"] = {"spectrum": self.mass.spectrum, "scale": self.mass.scale}
        content["generator"] = self.generator.get_state()
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_files({Path(path): buffer.getvalue()})

    @classmethod
    def load(cls, path: str | Path) -> Chains:
        """Read what :meth:`save` wrote, without running code.

        Raises
        ------
        FileNotFoundError
            if there is none.
        ValueError
            for a file that holds no chains.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content["mass"] = Mass(**content["mass"])
            content["generator"] = torch.Generator().set_state(content["generator"])
            return cls(**content)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"path: {path} holds no chains that this version reads: {error}") from error


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
