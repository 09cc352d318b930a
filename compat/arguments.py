"""Arguments that were positional and are given by keyword now."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)


@overload
def keyword_only(target: C) -> C: ...


@overload
def keyword_only(target: Callable[P, T]) -> Callable[P, T]: ...


def keyword_only(target: Any) -> Any:
    """Accept the keyword-only arguments of a function or class by position too, with a ``FutureWarning``.

    Positional values beyond the declared ones go to the keyword-only parameters in the order of the declaration. Put
    parameters that never were positional last. Decorate a dataclass above ``@dataclass``; its optional fields follow
    ``_: KW_ONLY``.

    Parameters
    ----------
    target : callable or type
        a function or method, or a class whose own ``__init__`` is meant.

    Returns
    -------
    callable or type
        the function with the same signature, or the same class.

    Raises
    ------
    TypeError
        at a call with more values than parameters, or with one parameter given twice.

    Examples
    --------
    >>> @keyword_only
    ... def scaled(x, *, factor=2.0):
    ...     return factor * x
    >>> scaled(3.0, factor=4.0)
    12.0
    """
    if isinstance(target, type):
        target.__init__ = keyword_only(target.__init__)  # type: ignore[misc]
        return target
    parameters = inspect.signature(target).parameters.values()
    return _by_position(target, [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY])


def once_positional(*names: str) -> Callable[[C], C]:
    """As :func:`keyword_only` for a class whose keyword arguments are not all declared, or were in another order.

    Parameters
    ----------
    *names : str
        the arguments that were positional, after those that still are.

    Returns
    -------
    callable
        the decorator.
    """

    def decorate(target: C) -> C:
        target.__init__ = _by_position(target.__init__, list(names))  # type: ignore[misc]
        return target

    return decorate


def _by_position(target: Callable[..., T], names: list[str]) -> Callable[..., T]:
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = sum(p.kind in places for p in inspect.signature(target).parameters.values())

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        extra = args[positional:]
        if not extra or len(extra) > len(names):
            return target(*args, **kwargs)
        given = dict(zip(names, extra, strict=False))
        written = ", ".join(f"{name}=..." for name in given)
        message = f"{target.__qualname__}: write {written}; the next release takes no position for it"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return target(*args[:positional], **given, **kwargs)

    return call


def dropped(name: str, instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that has lost an argument: given by its name it is ignored, with a ``FutureWarning``.

    Parameters
    ----------
    name : str
        of the argument.
    instead : str
        the argument that takes its place.
    """

    def decorate(target: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(target)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if name in kwargs:
                del kwargs[name]
                message = f"{target.__name__}({name}=...) is ignored and will go with the next release: {instead}=..."
                warnings.warn(message, FutureWarning, stacklevel=2)
            return target(*args, **kwargs)

        return call

    return decorate
