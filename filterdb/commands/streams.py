"""Make stdout and stderr robust: they may be closed, full, a pipe without a reader, or of an encoding without ×."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from filterdb.errors import OutputError

_STDIN, _STDOUT, _STDERR = range(3)


def prepare() -> None:
    """Replace stdout and stderr of this process by streams with known errors. Raises OutputError if stdout is closed.

    Closed handles are opened on the null device. Otherwise the next file would get the handle's number, and output
    would go into that file.
    """
    closed = [handle for handle in (_STDIN, _STDOUT, _STDERR) if _is_closed(handle)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest free number, in this order
    if _STDERR in closed or _is_handle(sys.stderr, _STDERR):
        sys.stderr = _text(_Stderr(_STDERR, "wb", closefd=False), sys.stderr)
    if _STDOUT in closed or _is_handle(sys.stdout, _STDOUT):
        sys.stdout = _text(_Stdout(_STDOUT, "wb", closefd=False), sys.stdout)
    if _STDOUT in closed:
        raise OutputError("stdout is closed; redirect it to a file")


def flush() -> None:
    """Write buffered output. Raises OutputError."""
    sys.stdout.flush()
    sys.stderr.flush()


def ascii_json(text: str) -> str:
    """Return JSON in UTF-8, or with escapes in ASCII if stdout has another encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text if codecs.lookup(encoding).name == "utf-8" else text.encode("ascii", _ESCAPED).decode("ascii")


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escape characters that an encoding lacks as JSON does: × as \\u00d7, those beyond U+FFFF as two escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


_ESCAPED = "filterdb-escaped"
codecs.register_error(_ESCAPED, _escape)


def _is_closed(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return True
    return False


def _is_handle(stream: object, handle: int) -> bool:
    """Return whether a stream is the process's own, not a replacement that a test or a program has set."""
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == handle
    except (OSError, ValueError):
        return False


def _text(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    """Return a stream for any text. ASCII becomes UTF-8, as Python itself does in the C locale."""
    encoding = "utf-8" if old is None or codecs.lookup(old.encoding).name == "ascii" else old.encoding
    if old is not None:
        with suppress(OSError, ValueError):
            old.flush()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, _ESCAPED, line_buffering=True)


class _Stdout(io.FileIO):
    """Write to stdout. The first error is an OutputError; later output, and output to a closed pipe, is dropped."""

    _lost = False

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self._lost:
            return len(data)
        try:
            return super().write(data) or 0
        except OSError as error:
            self._lost = True
            if error.errno == errno.EPIPE:
                return len(data)
            raise OutputError(f"stdout: cannot write the answer: {error.strerror}") from error


class _Stderr(io.FileIO):
    """Write to stderr. Errors are ignored, because they could not be reported anywhere."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        with suppress(OSError):
            return super().write(data) or 0
        return len(data)
