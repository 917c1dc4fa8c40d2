"""The errors filterdb raises. Each is also the builtin that it specialises, and carries the command's exit code.

A message is one line: what is wrong and where, what was expected, what was got, and the remedy.
"""

from __future__ import annotations


class StaleBasisWarning(UserWarning):
    """A result was taken in a basis from which the filters have moved; `filterdb refit` fits a new one."""


class FilterDBError(Exception):
    """Base of every error that filterdb raises on purpose."""

    exit_code = 65


class UsageError(FilterDBError, ValueError):
    """The caller asked for something that does not exist or does not fit (exit code 2)."""

    exit_code = 2


class MissingExtraError(FilterDBError, ImportError):
    """An optional dependency is not installed; the message names the extra (exit code 2)."""

    exit_code = 2


class InputError(FilterDBError, ValueError):
    """Input data that cannot be used: a catalog, a list of sources (exit code 65)."""


class ModelError(InputError):
    """One ONNX file that cannot be read as a model (exit code 65)."""


class ConflictError(InputError):
    """Somebody else stored something under the same name first (exit code 65)."""


class StoreError(FilterDBError, OSError):
    """The store cannot be reached, read or written (exit code 74)."""

    exit_code = 74


class StoreMissingError(StoreError, FileNotFoundError):
    """There is nothing at this place in the store (exit code 74)."""


class DamageError(StoreError):
    """Something in the store is not what was committed (exit code 74)."""


class InterruptedRunError(FilterDBError, RuntimeError):
    """The run stopped because of a failure that a re-run resumes (exit code 75)."""

    exit_code = 75
