"""Find the base classes of callbacks in the frameworks, which are not dependencies: users bring their own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from filterdb.errors import MissingExtraError


def attribute_of(module: str, name: str) -> Any:
    """Return an attribute of a framework's module; `object` if the framework is not installed."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:
        return object


def check_installed(base: Any, framework: str) -> None:
    """Raise MissingExtraError if `attribute_of` did not find the framework."""
    if base is object:
        raise MissingExtraError(f"{framework}: expected it to be installed; pip install {framework}")
