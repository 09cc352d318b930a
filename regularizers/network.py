"""The base of networks that files hold: arguments, curves in the noise level, and larger networks made from them."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.base import ConvexRegularizer, check_sigma
from icgn.regularizers.curves import curve, log_knots, rescale
from icgn.regularizers.filters import Border, FilterBank

NetworkT = TypeVar("NetworkT", bound="Network")
BankT = TypeVar("BankT", bound="BankRegularizer")


class FiniteState(nn.Module):
    """Base of modules that load no tensors with nan or infinite entries, and name the one that has them."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name, value in state_dict.items():
            if name.startswith(prefix) and isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
                count = int((~torch.isfinite(value)).sum())
                raise ValueError(
                    f"state_dict: {name} of {type(self).__name__} has {count} values that are not finite, expected none"
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class Network(FiniteState, ConvexRegularizer):
    """Base of the regularizers that cards, recipes and checkpoints name (:mod:`icgn.regularizers.registry`)."""

    architecture: dict[str, Any]
    """The constructor arguments, as JSON holds them."""

    @property
    def receptive_radius(self) -> int | None:
        """The distance in pixels beyond which a pixel has no influence on the gradient; None where it has no end."""
        return None

    def widened(self: NetworkT, **changes: Any) -> NetworkT:
        """A larger network that starts near this one; classes that have none raise ``TypeError``."""
        raise TypeError(f"{type(self).__name__} cannot be widened")

    @classmethod
    def upon(cls: type[NetworkT], model: Network, /, **changes: Any) -> NetworkT:
        """A network that starts from a trained one of another class; classes that have none raise ``TypeError``."""
        raise TypeError(f"{cls.__name__} cannot be built upon {type(model).__name__}")


class BankArguments(TypedDict, total=False):
    """The arguments of :class:`BankSpec`."""

    size: int
    channels: int
    border: Border
    sigma_range: tuple[float, float]
    knots: int
    min_knee: float


@dataclass(frozen=True)
class BankSpec:
    r"""The arguments that all networks of a filter bank share.

    Parameters
    ----------
    size : int
        side d of a filter in pixels, odd.
    channels : int
        image channels.
    border : {"reflect", "zero", "valid"}
        see :class:`~icgn.regularizers.filters.FilterOperator`.
    sigma_range : tuple of float
        noise levels, in intensities, of the first and the last knot of the curves in sigma.
    knots : int
        knots in log sigma.
    min_knee : float
        smallest :math:`\tau / \sigma`: a trade of quality against iterations (docs/decisions.md).

    Raises
    ------
    ValueError
        if a number is out of range.
    """

    _: KW_ONLY
    size: int = 9
    channels: int = 1
    border: Border = "reflect"
    sigma_range: tuple[float, float] = (1 / 255, 50 / 255)
    knots: int = 9
    min_knee: float = 0.02

    def __post_init__(self) -> None:
        if not self.min_knee >= 0:
            raise ValueError(f"min_knee: got {self.min_knee}, expected a number >= 0")
        log_knots(self.sigma_range, self.knots)

    @property
    def levels(self) -> tuple[float, float]:
        """Noise levels of the first and the last knot."""
        return float(self.sigma_range[0]), float(self.sigma_range[1])

    @property
    def log_sigma(self) -> Tensor:
        """Logarithms of the noise levels of the knots, (knots,)."""
        return log_knots(self.sigma_range, self.knots)

    def arguments(self) -> dict[str, Any]:
        """The arguments as JSON holds them."""
        return {**asdict(self), "sigma_range": list(self.sigma_range)}


def spell_out(network: type[Network]) -> None:
    """Let ``help`` of a class with ``**common`` show the arguments of :class:`BankSpec`."""
    signature = inspect.signature(network)
    own = [p for p in signature.parameters.values() if p.name != "common"]
    if len(own) < len(signature.parameters):
        kind = inspect.Parameter.KEYWORD_ONLY
        common = [inspect.Parameter(f.name, kind, default=f.default, annotation=f.type) for f in fields(BankSpec)]
        network.__signature__ = signature.replace(parameters=[*own, *common])


class BankRegularizer(Network):
    r"""Base of the networks of one filter bank: the bank and the curves in the noise level.

    Strengths :math:`\lambda(\sigma)` and scales :math:`\tau(\sigma)`, of whatever shape, are positive and piecewise
    log-linear, as those of :class:`~icgn.regularizers.RidgeICGN`. A subclass sets `log_lambda` and `log_tau` (...,
    knots) and defines :meth:`frozen`.

    Parameters
    ----------
    spec : BankSpec
        the arguments that all such networks share.
    filters : int
        filters of the bank.
    own : dict
        the further constructor arguments of the subclass, as JSON holds them.

    Raises
    ------
    ValueError
        if a parameter is out of range, or on loading a state dict with numbers that are not finite.
    """

    log_lambda: nn.Parameter
    log_tau: nn.Parameter
    tau_power = 1.0
    """Exponent of the scale below the first knot."""

    def __init__(self, spec: BankSpec, filters: int, own: dict[str, Any]) -> None:
        super().__init__()
        self.architecture = {**own, **spec.arguments()}
        self.bank = FilterBank(filters, spec.size, channels=spec.channels, border=spec.border)
        self.min_knee = float(spec.min_knee)
        self.channels, self.min_size, self.sigma_range = spec.channels, spec.size, spec.levels

    @abstractmethod
    def frozen(self, sigma: Tensor) -> BankFunctional:
        """The functional at noise levels (B,) or (1,)."""

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> BankFunctional:
        r"""The frozen functional :math:`R(.; \sigma)`; see :meth:`ConvexRegularizer.at`."""
        self._refuse_condition(condition)
        return self.frozen(check_sigma(sigma, self.bank.raw))

    @property
    def receptive_radius(self) -> int | None:
        """To the responses and back, and as far as the head reaches between."""
        assert self.sigma_range is not None
        return self.min_size - 1 + 2 * self.at(self.sigma_range[1]).head.halo

    def curve(self, values: Tensor, sigma: Tensor, *, power: float = 0.0) -> Tensor:
        """A positive quantity at noise levels, with the batch first, from its logarithms at the knots.

        Parameters
        ----------
        values : Tensor
            logarithms (..., knots).
        sigma : Tensor
            noise levels (B,), at least 0.
        power : float
            exponent below the first knot, at least 0.
        """
        assert self.sigma_range is not None
        return curve(values, sigma, self.sigma_range, power)

    def curves(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""Strengths :math:`\lambda` and scales :math:`\tau` at noise levels (B,), both with the batch first."""
        tau = self.curve(self.log_tau, sigma, power=self.tau_power)
        tau = tau + self.min_knee * sigma.reshape(-1, *[1] * (tau.ndim - 1))
        return self.curve(self.log_lambda, sigma, power=1.5), tau.clamp_min(torch.finfo(tau.dtype).tiny ** 0.5)

    def rescaled(self: BankT, sigma: Tensor, weight: Tensor, scale: Tensor) -> BankT:
        r"""The regularizer :math:`w(\sigma) R(s(\sigma) x; \sigma)`, of the same class; this one stays as it is.

        It is how a weight found on validation pictures becomes part of a model.

        Parameters
        ----------
        sigma : Tensor
            increasing noise levels (L,), in intensities, at which w and s are given; between them both are log-linear
            in log sigma, outside constant.
        weight, scale : Tensor
            :math:`w > 0` and :math:`s > 0`, shape (L,). A scale cannot lower a knee below `min_knee`.
        """
        new = copy.deepcopy(self)
        rescale(new, sigma, weight, scale)
        return new
