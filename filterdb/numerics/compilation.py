"""Numba's compiler with its cache, imported when a loop is first called: that takes half a second.

Numba looks for a cache in NUMBA_CACHE_DIR, beside the module and in the home directory. It refuses to decorate a
function if it can write to none of them (numba 0.68, `CacheImpl.__init__`).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from filterdb.private import private_folder


class Loop:
    """A function that Numba compiles when it is first called; without Numba, `without_numba` has one of its name.

    Then all loops of its module become Numba's own objects, and those of the modules that they are from, because Numba
    looks up the functions that a loop calls in the loop's module.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function, self._options = function, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of Numba's object."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._compiled, name)

    @property
    def _compiled(self) -> Any:
        if "_numba" in self.__dict__:
            return self._numba
        if not has_numba():
            plain = import_module("filterdb.numerics.without_numba")
            return getattr(plain, self._function.__name__)
        with _lock:
            _replace_loops(self._function.__globals__)
            return self._decorate()

    def _decorate(self) -> Any:
        """Return Numba's object, which is made once."""
        if "_numba" not in self.__dict__:
            import numba

            self._numba = numba.njit(**{**self._options, "cache": has_cache()})(self._function)
        return self._numba


def _replace_loops(module: dict[str, Any]) -> None:
    """Replace the loops among a module's names by Numba's objects, first those that its loops call."""
    for name, value in list(module.items()):
        if isinstance(value, Loop):
            module[name] = value._decorate()
            if value._function.__globals__ is not module:
                _replace_loops(value._function.__globals__)


_lock = threading.RLock()


def read_only(filters: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written to.

    Numba compiles a loop for each type of its arguments, and such a view is another type. Stored filters are read-only;
    with this, filters in memory do not need loops of their own.
    """
    view = filters.view()
    view.flags.writeable = False
    return view


@cache
def has_numba() -> bool:
    """Return whether Numba is installed; without, NumPy does the work."""
    return find_spec("numba") is not None


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator like `numba.njit(**options)`, without the cache if there is no folder for one."""
    return lambda function: Loop(function, options)


@cache
def has_cache() -> bool:
    """Return whether compiled functions can be cached, after offering Numba a private folder if it has none."""
    import numba

    if _accepts_cache():
        return True
    folder = private_folder()
    if folder is None:
        return False
    numba.config.CACHE_DIR = str(folder / "numba")
    return _accepts_cache()


def _accepts_cache() -> bool:
    import numba

    try:
        numba.njit(cache=True)(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """Return nothing. Numba chooses the cache by the file of a function; this one is like all others in this folder."""
