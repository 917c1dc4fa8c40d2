"""The loops over filters: compiled by Numba, or in NumPy where Numba is not installed. Imported when first called."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from filterdb.numerics.compilation import has_numba


class _Loops:
    """Stand for the module `compiled`, or `without_numba`."""

    @cached_property
    def _module(self) -> ModuleType:
        return import_module(f"filterdb.numerics.{'compiled' if has_numba() else 'without_numba'}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


compiled = _Loops()
