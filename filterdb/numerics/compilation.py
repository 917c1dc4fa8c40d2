"""Numba's compiler with its cache, for users who may write neither to the installation nor to a home directory.

Numba looks for a cache in NUMBA_CACHE_DIR, beside the module and in the home directory, and refuses to decorate a
function where it may write to none of them (numba 0.68, `CacheImpl.__init__`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from filterdb.private import private_folder


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return `numba.njit(**options)`, without the cache where there is no place for one."""
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(**{**options, "cache": has_cache()})
    return decorator


@cache
def has_cache() -> bool:
    """Return whether compiled functions can be cached; where Numba has no place for them, offer a private folder."""
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
    """Stand for the functions of this folder: Numba chooses the cache by the place of the file."""
