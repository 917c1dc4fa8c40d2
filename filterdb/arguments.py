"""What public functions take: a value or a list of values, checked once, with an error that names the parameter."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from filterdb.errors import UsageError

Path = str | os.PathLike[str]


def as_path(value: Any, parameter: str, expected: str = "a path or a URL") -> str:
    """Return a path or URL as text. Raises UsageError for anything else."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text:
            return text
    raise unexpected(parameter, expected, value)


def as_names(values: Any, parameter: str) -> list[str]:
    """Return names as a list; a single one stands for a list of one. Raises UsageError for anything else."""
    listed = [values] if isinstance(values, str) else as_list(values, parameter, "a name or a list of names")
    for value in listed:
        if not isinstance(value, str):
            raise unexpected(parameter, "names", value)
    return list(map(str, listed))


def as_list(values: Any, parameter: str, expected: str) -> list[Any]:
    """Return the values of an iterable that is no mapping and no bytes. Raises UsageError for anything else."""
    if isinstance(values, dict | bytes | bytearray) or not isinstance(values, Iterable):
        raise unexpected(parameter, expected, values)
    return list(values)


def unexpected(parameter: str, expected: str, value: object) -> UsageError:
    """Return the error about a value of the wrong type."""
    got = "an empty text" if isinstance(value, str) and not value else type(value).__name__
    return UsageError(f"{parameter}: expected {expected}, got {got}")
