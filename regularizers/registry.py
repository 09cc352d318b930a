"""The networks that cards, recipes and checkpoints name: one line registers a class."""

from __future__ import annotations

from typing import Any, TypeVar

from icgn.regularizers.network import Network, spell_out

NetworkT = TypeVar("NetworkT", bound=Network)

_NETWORKS: dict[str, type[Network]] = {}


class ModelError(ValueError):
    """A model cannot be loaded: unknown, damaged, altered, or of an architecture this version does not have."""


def register(network: type[NetworkT]) -> type[NetworkT]:
    """Register a class, as its decorator: cards, recipes and checkpoints may name it from then on.

    A class that is defined again, as by a cell of a notebook, takes the place of the one before.

    Parameters
    ----------
    network : type
        a :class:`~icgn.regularizers.network.Network`, made from keyword arguments that JSON can hold.

    Raises
    ------
    ValueError
        if another class has the name already.
    """
    name, place = network.__name__, network.__module__
    other = _NETWORKS.setdefault(name, network).__module__
    if other != place:
        raise ValueError(f"network: got {name} of {place}, expected a name that no class of {other} has")
    spell_out(network)
    _NETWORKS[name] = network
    return network


def registered() -> dict[str, type[Network]]:
    """The classes by name, in the order in which they were registered."""
    return dict(_NETWORKS)


def find(name: Any, source: str = "model") -> type[Network]:
    """Find the class of a name.

    Raises
    ------
    ModelError
        if there is none; `source` is named in the message.
    """
    if not isinstance(name, str) or name not in _NETWORKS:
        known = ", ".join(_NETWORKS)
        raise ModelError(
            f"{source}: unknown architecture {name!r}, expected one of {known}; a newer icgn may have it, and one of"
            " your own is to be imported first"
        )
    return _NETWORKS[name]


def architecture_of(model: Any) -> dict[str, Any] | None:
    """What :func:`build_model` makes a model of this class and size from; None for a class that is not registered."""
    if _NETWORKS.get(type(model).__name__) is not type(model):
        return None
    return {"type": type(model).__name__, **model.architecture}


def build_model(architecture: dict[str, Any], source: str = "model") -> Network:
    """Make an untrained regularizer from ``{"type": class name, ...constructor arguments}``.

    Parameters
    ----------
    architecture : dict
        name of the class and arguments.
    source : str
        what messages begin with.

    Raises
    ------
    ModelError
        if the class is unknown or does not take the arguments.
    """
    if not isinstance(architecture, dict):
        raise ModelError(f"{source}, architecture: got {architecture!r}, expected a table with type and arguments")
    arguments = dict(architecture)
    network = find(arguments.pop("type", None), source)
    try:
        return network(**arguments)
    # A constructor raises errors of every type when it is given values of every type.
    except Exception as error:
        raise ModelError(f"{source}: the arguments do not fit {network.__name__}: {error}") from error


def changed(model: Network, changes: dict[str, Any], source: str = "model") -> Network:
    """The network that a trained one becomes with other arguments: widened, or one of another class built upon it.

    Parameters
    ----------
    model : Network
        stays as it is.
    changes : dict
        arguments that differ from its architecture; ``type`` among them names another class.
    source : str
        what messages begin with.

    Raises
    ------
    ModelError
        if the class cannot be made from that model, or not with these arguments.
    """
    arguments = dict(changes)
    kind = arguments.pop("type", None)
    try:
        if kind is None:
            return model.widened(**arguments)
        return find(kind, source).upon(model, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{source} cannot become that: {error}") from error
