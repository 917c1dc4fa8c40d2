"""Errors to expect when a model file is parsed, and functions that bound text from such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAX_NAME = 4_096
"""Most characters of a name from a file; longer names are cut."""

PARSE_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError,
)  # fmt: skip
"""What libraries raise for a damaged or hostile file. The file or layer is rejected with the error's text."""


class NotStoredError(Exception):
    """Why a convolution is not stored: a code of `filterdb.ledger.CODES` and a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = shortened(reason)


def one_line(error: BaseException, folder: Path) -> str:
    """Format a third-party exception for our messages, without the temporary path."""
    text = " ".join(str(error).replace(f"{folder}/", "").replace(str(folder), ".").split())
    return f"{type(error).__name__} {text[:200]}".strip()


def shortened(value: str, length: int = 300) -> str:
    """Return a text cut to `length` characters, so that a file cannot fill reasons and tables."""
    return value if len(value) <= length else f"{value[: length - 1]}…"


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a repeated key, of which readers would choose different values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key that occurs twice")
    return values
