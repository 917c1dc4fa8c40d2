"""Fit lines to the width of a terminal. Imports nothing slow, because error messages use it."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import TextIO

DEFAULT_WIDTH = 80
"""Columns of a terminal that does not say how many it has."""

ELLIPSIS = "…"

EMOJI_STYLE = "\ufe0f"
"""The character that makes the one before it an emoji, which is two columns wide."""

_WIDE = {"W", "F"}
_WITHOUT_WIDTH = {"Mn", "Me", "Cf"}


def width_of(stream: TextIO) -> int | None:
    """Return the columns of the terminal that a stream writes to, None if it writes elsewhere.

    As in other programs, COLUMNS in the environment overrides what the terminal says.
    """
    try:
        if not stream.isatty():
            return None
    except ValueError:  # closed
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH


def cells(text: str) -> int:
    """Return the columns that a text takes in a terminal, where some characters take two and some none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if character == EMOJI_STYLE:
        return 1
    if unicodedata.category(character) in _WITHOUT_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def wrap(text: str, width: int | None, indent: str = "") -> list[str]:
    """Return a text as lines of at most `width` columns, broken between words; `indent` begins all but the first.

    A word that is longer than a line is cut. A text that fits is left as it is.
    """
    if width is None or cells(text) <= width:
        return [text]
    if cells(indent) * 2 > width:
        indent = ""
    lines: list[str] = []
    line, begin = "", ""
    for word in text.split():
        length, rest = cells(begin + line) + 1, word
        if line and length + cells(word) <= width:
            line = f"{line} {word}"
            continue
        if line and cells(indent) + cells(word) > width > length:  # no line has room for it
            head = left(word, width - length)
            line, rest = f"{line} {head}", word[len(head) :]
        if line:
            lines.append(begin + line)
            begin = indent
        line = rest
        while cells(begin + line) > width:
            head = left(line, max(width - cells(begin), 1)) or line[0]
            lines.append(begin + head)
            line, begin = line[len(head) :], indent
    return [*lines, begin + line] if line else lines


def left(text: str, width: int) -> str:
    """Return as much of the start of a text as fits into a width."""
    if text.isascii():
        return text[:width]
    taken = 0
    for i, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:i]
    return text


def right(text: str, width: int) -> str:
    """Return as much of the end of a text as fits into a width."""
    return left(text[::-1], width)[::-1]


def shorten(text: str, width: int) -> str:
    """Return a text with its middle replaced by … if it is wider than `width`."""
    if cells(text) <= width:
        return text
    room = max(width - 1, 0)
    return f"{left(text, room - room // 2)}{ELLIPSIS}{right(text, room // 2)}"


def complain(text: str) -> None:
    """Print one line on stderr, broken between words if that is a terminal."""
    for line in wrap(text, width_of(sys.stderr), "  "):
        print(line, file=sys.stderr, flush=True)  # noqa: T201
