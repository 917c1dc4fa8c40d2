"""Numba's compiler with its cache, also for users who can write neither to the installation nor to a home directory.

Numba looks for a cache in NUMBA_CACHE_DIR, beside the module and in the home directory. It refuses to decorate a
function if it can write to none of them (numba 0.68, `CacheImpl.__init__`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from filterdb.private import private_folder


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return `numba.njit(**options)`, without the cache if there is no folder for one."""
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(**{**options, "cache": has_cache()})
    return decorator


@cache
def has_cache() -> bool:
    """Return whether compiled functions can be cached, after offering Numba a private folder if it has none."""
    if _accepts_cache():
        return True
    folder = private_folder()
    if folder is None:
        return False
    numba.config.CACHE_DIR = str(folder / "numba")
    return _accepts_cache()


def _accepts_cache() -> bool:
    try:
        numba.njit(cache=True)(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """Return nothing. Numba chooses the cache by the file of a function; this one is like all others in this folder."""
