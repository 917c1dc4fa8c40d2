"""Numba's compiler with its cache, imported when a loop is first called: that takes half a second.

Numba looks for a cache in NUMBA_CACHE_DIR, beside the module and in the home directory. It refuses to decorate a
function if it can write to none of them (numba 0.68, `CacheImpl.__init__`).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from filterdb.private import private_folder


class Loop:
    """A function that Numba compiles. Called for the first time, all loops of its module become Numba's own objects.

    All at once, because Numba looks up the functions that a loop calls in the loop's module.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function, self._options = function, options

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(*arguments)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of Numba's object."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._compiled, name)

    @property
    def _compiled(self) -> Any:
        if "_numba" in self.__dict__:
            return self._numba
        module = self._function.__globals__
        with _lock:
            for name, value in list(module.items()):
                if isinstance(value, Loop):
                    module[name] = value._decorate()
            return self._decorate()

    def _decorate(self) -> Any:
        """Return Numba's object, which is made once."""
        if "_numba" not in self.__dict__:
            import numba

            self._numba = numba.njit(**{**self._options, "cache": has_cache()})(self._function)
        return self._numba


_lock = threading.RLock()


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
