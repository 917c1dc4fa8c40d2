"""Check the arguments of public functions once, with an error that names the parameter."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from filterdb.errors import UsageError

Path = str | os.PathLike[str]

P = ParamSpec("P")
R = TypeVar("R")


def as_path(value: Any, parameter: str, expected: str = "a path or a URL") -> str:
    """Return a path or URL as text. Raises UsageError for anything else."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text:
            return text
    raise unexpected(parameter, expected, value)


def as_names(values: Any, parameter: str) -> list[str]:
    """Return names, or a single name, as a list. Raises UsageError for anything else."""
    listed = [values] if isinstance(values, str) else as_list(values, parameter, "a name or a list of names")
    for value in listed:
        if not isinstance(value, str):
            raise unexpected(parameter, "names", value)
    return list(map(str, listed))


def as_list(values: Any, parameter: str, expected: str) -> list[Any]:
    """Return the values of an iterable as a list. Raises UsageError for anything else, a mapping, or bytes."""
    if isinstance(values, dict | bytes | bytearray) or not isinstance(values, Iterable):
        raise unexpected(parameter, expected, values)
    return list(values)


def unexpected(parameter: str, expected: str, value: object) -> UsageError:
    """Return the error about a value of the wrong type."""
    got = "an empty text" if isinstance(value, str) and not value else type(value).__name__
    return UsageError(f"{parameter}: expected {expected}, got {got}")


def formerly_positional(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that still accepts keyword-only parameters by position, with a DeprecationWarning.

    Type checkers see the function as it is written, and reject the deprecated calls.

    Parameters
    ----------
    names
        Keyword-only parameters of the function, in the order in which they once followed its positional ones.

    Examples
    --------
    >>> @formerly_positional("mode", "metric")
    ... def drift(db, by, *, mode="sound", metric="kl"):
    ...     return mode, metric
    >>> drift("db", "task", metric="js")
    ('sound', 'js')
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     drift("db", "task", "paper")
    ('paper', 'kl')
    >>> print(caught[0].message)
    drift: pass mode=… by keyword; by position it is deprecated
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        by_name = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
        number = sum(parameter.kind not in by_name for parameter in inspect.signature(function).parameters.values())
        called = function.__name__

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            extra = dict(zip(names, args[number:], strict=False))
            # Python itself rejects too many arguments, and arguments that are passed twice.
            if extra and len(args) <= number + len(names) and not extra.keys() & kwargs.keys():
                listed = ", ".join(f"{name}=…" for name in extra)
                are = "it is" if len(extra) == 1 else "they are"
                warnings.warn(
                    f"{called}: pass {listed} by keyword; by position {are} deprecated",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return function(*args[:number], **{**kwargs, **extra})  # type: ignore[arg-type]
            return function(*args, **kwargs)

        return call

    return decorate
