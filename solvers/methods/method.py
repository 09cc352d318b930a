"""The shape of an iterative method: `init` and `step` behind the one loop of :func:`icgn.solvers.solve`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from icgn.functionals.capability import Capability
from icgn.functionals.functional import ConvexFunctional, Responses
from icgn.solvers.certificate import Certificate, certify
from icgn.solvers.methods.preconditioner import Preconditioner

if TYPE_CHECKING:
    from icgn.functionals.box import Box
    from icgn.solvers.objective import Objective

PROOF_BYTES = 1 << 26
"""Largest size of the responses in a certificate, in bytes; computed once, they may be larger than in a solver."""


@dataclass(frozen=True)
class State:
    """The state of a run: every tensor has the batch first, so that images can leave the batch.

    Attributes
    ----------
    x : Tensor
        current images (B, C, H, W), feasible.
    u : Responses
        responses of x under the objective's linear part.
    grad : Tensor
        gradient of the objective at x.
    work : Tensor
        linear maps and adjoints applied per image so far, in pairs (one W and one W^T count 1), float, shape (B,).
    """

    x: Tensor
    u: Responses
    grad: Tensor
    work: Tensor

    def select(self: StateT, index: Tensor) -> StateT:
        """The state of the images `index`."""
        return replace(self, **{f.name: _take(getattr(self, f.name), index) for f in fields(self)})

    def put(self: StateT, index: Tensor, other: StateT) -> StateT:
        """The state with the images `index` replaced by those of another."""
        return replace(
            self, **{f.name: _put(getattr(self, f.name), index, getattr(other, f.name)) for f in fields(self)}
        )


StateT = TypeVar("StateT", bound=State)


class Method(ABC, Generic[StateT]):
    """An iterative method for min F(x) over a box.

    An object holds the parameters of the method only, never the state of a run, so that one object serves many runs.

    Attributes
    ----------
    splits : bool
        whether it needs data term and regularizer one by one, as functions of the picture alone.
    boxes : bool
        whether its theorem covers a box.
    of_data, of_regularizer : frozenset of Capability
        what the two terms of the objective must be able to do.
    """

    splits: bool = False
    boxes: bool = True
    of_data: frozenset[Capability] = frozenset()
    of_regularizer: frozenset[Capability] = frozenset()

    @property
    def name(self) -> str:
        """The name under which results report the method."""
        return type(self).__name__

    def check(self, objective: Objective) -> None:
        """Refuse an objective that the theorem of the method does not cover.

        Raises
        ------
        ValueError
            naming the method, the term and what is missing.
        """
        terms = (
            ("data term", objective.data, self.of_data),
            ("regularizer", objective.regularizer, self.of_regularizer),
        )
        for role, term, needed in terms:
            missing = [c.value for c in Capability if c in needed - term.capabilities]
            if missing:
                raise ValueError(
                    f"method: {self.name} assumes a {role} that {' and '.join(missing)}, got {type(term).__name__}"
                )
        if objective.box is not None and not self.boxes:
            raise ValueError(f"method: {self.name} assumes an unconstrained problem, got a box")

    @abstractmethod
    def init(self, objective: ConvexFunctional, x: Tensor, box: Box | None) -> StateT:
        """The state at the starting images.

        Parameters
        ----------
        objective : ConvexFunctional
            F.
        x : Tensor
            starting images (B, C, H, W), inside the box.
        box : Box or None
            bounds of the intensities.
        """

    @abstractmethod
    def step(self, objective: ConvexFunctional, state: StateT, box: Box | None) -> StateT:
        """One iteration.

        Parameters
        ----------
        objective : ConvexFunctional
            F.
        state : State
            the present state; it is not changed.
        box : Box or None
            bounds of the intensities.

        Returns
        -------
        State
            the next one, with its images inside the box.
        """

    def certify(self, objective: ConvexFunctional, state: StateT, box: Box | None) -> Certificate:
        """The certificate of the images of a state; a method may override it with a sharper one.

        Parameters
        ----------
        objective : ConvexFunctional
            F, in float64.
        state : State
            the present state.
        box : Box or None
            bounds of the intensities.
        """
        x = state.x.double()
        return certify(objective.blockwise(x.shape, PROOF_BYTES), x, box=box)


def evaluate(objective: ConvexFunctional, x: Tensor) -> tuple[Responses, Tensor, Tensor]:
    """Responses, gradient and a work count of 1 for the images x."""
    u = objective.linear(x)
    grad = objective.grad_from(u, x.shape)
    return u, grad, torch.ones(x.shape[0], dtype=torch.float64, device=x.device)


def _take(value: Any, index: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(v, index) for v in value)
    if isinstance(value, Preconditioner):
        return value.take(index)
    return value[index] if isinstance(value, Tensor) else value


def _put(value: Any, index: Tensor, other: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_put(v, index, o) for v, o in zip(value, other, strict=True))
    if isinstance(value, Preconditioner) and isinstance(other, Preconditioner):
        return value.put(index, other)
    if not isinstance(value, Tensor):
        return value
    return value.index_copy(0, index, torch.ones_like(value[index]) if other is None else other)
