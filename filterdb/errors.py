"""The errors that filterdb raises. Each also derives from a built-in exception and has the command's exit code.

A message is one line: what is wrong and where, what was expected, what was found instead, and the remedy.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from filterdb.redaction import redact


class StaleBasisWarning(UserWarning):
    """The basis of a result no longer fits the filters well; `filterdb refit` fits a new one."""


_CONTEXT: Any = vars(BaseException)["__context__"]


class FilterDBError(Exception):
    """Base of every error that filterdb raises on purpose.

    Unlike Python's own exceptions, these keep their cause and notes when they are pickled.
    """

    exit_code = 65

    if not TYPE_CHECKING:  # which sees an attribute

        @property
        def __context__(self) -> BaseException | None:
            """Return the exception that was being handled, unless a cause stands for it.

            The cause has no credentials; the exception itself may, and tblib, which Dask uses, pickles it as well.
            """
            return None if self.__suppress_context__ else _CONTEXT.__get__(self)

        @__context__.setter
        def __context__(self, context: BaseException | None) -> None:
            _CONTEXT.__set__(self, context)

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__
        if cause is self or (cause is not None and not _is_picklable(cause)):
            cause = None if cause is self else _stand_in(cause)
        return _rebuild, (type(self), self.args, cause, self.__suppress_context__), self.__dict__ or None


class UsageError(FilterDBError, ValueError):
    """The caller asked for something that does not exist or does not fit (exit code 2)."""

    exit_code = 2


class ExpiredSnapshotError(UsageError):
    """The snapshot was dropped from the history, and `gc` may have removed what only it listed (exit code 2)."""


class MissingExtraError(FilterDBError, ImportError):
    """An optional dependency is not installed; the message names the extra (exit code 2)."""

    exit_code = 2


class InputError(FilterDBError, ValueError):
    """Input data, such as a catalog or a list of sources, cannot be used (exit code 65)."""


class LabelError(InputError, KeyError):
    """No filter has this label (exit code 65)."""

    __str__ = Exception.__str__  # KeyError quotes its message


class ModelError(InputError):
    """A file cannot be read as an ONNX model (exit code 65)."""


class ConflictError(InputError):
    """Another writer stored something under the same name first (exit code 65)."""


class StoreError(FilterDBError, OSError):
    """The store cannot be reached, read or written (exit code 74)."""

    exit_code = 74


class StoreMissingError(StoreError, FileNotFoundError):
    """The store has no such object (exit code 74)."""


class ReadOnlyStoreError(StoreError):
    """The store can be read, but not written or listed, such as a web server (exit code 74)."""


class DamageError(StoreError):
    """An object in the store differs from what was committed (exit code 74)."""


class OutputError(FilterDBError, OSError):
    """The answer cannot be written: stdout is closed or full (exit code 74)."""

    exit_code = 74


class InterruptedRunError(FilterDBError, RuntimeError):
    """The run stopped because of a failure that a re-run resumes (exit code 75)."""

    exit_code = 75


def _rebuild(
    kind: type[BaseException], args: tuple[Any, ...], cause: BaseException | None, suppress_context: bool
) -> BaseException:
    error = kind(*args)
    error.__cause__ = cause
    error.__suppress_context__ = suppress_context
    return error


def portable(error: BaseException) -> BaseException:
    """Make an exception fit to be sent to another process, and return it.

    distributed pickles an exception with its causes and contexts. It never ends on a cycle of causes, and it turns the
    exception into a plain `Exception` if one of them cannot be pickled (an aiohttp error holds an SSL context). So cut
    cycles, and replace what cannot be pickled with a stand-in that has the same text.
    """
    _make_portable(error, (error,))
    return error


def _make_portable(error: BaseException, above: tuple[BaseException, ...]) -> None:
    suppress_context = error.__suppress_context__
    for name in ("__cause__", "__context__"):
        nested = getattr(error, name)
        if nested is None:
            continue
        # A suppressed context is never shown, and may hold a URL with credentials, which its error was raised to hide.
        is_suppressed = name == "__context__" and suppress_context
        if is_suppressed or any(nested is other for other in above):
            setattr(error, name, None)
            continue
        _make_portable(nested, (*above, nested))
        if not _is_picklable(nested):
            setattr(error, name, _stand_in(nested))
    error.__suppress_context__ = suppress_context  # setting __cause__ changed it


def _is_picklable(error: BaseException) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # noqa: BLE001 - another library's __reduce__ or __init__ may raise anything
        return False


def _stand_in(error: BaseException) -> BaseException:
    kind = type(error)
    plain = RuntimeError(f"{kind.__module__}.{kind.__qualname__}: {redact(str(error))}")
    plain.__cause__, plain.__context__ = error.__cause__, error.__context__
    plain.__suppress_context__ = error.__suppress_context__
    return plain.with_traceback(error.__traceback__)
