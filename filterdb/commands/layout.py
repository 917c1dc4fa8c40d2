"""Lay out a table in the width of a terminal: which columns are shown, how wide, or each row as a block.

Numbers and short words are never cut or broken. Names are shortened in their middle, only as far as they stay distinct.
Texts are broken between words. If the width does not suffice, the least important columns are hidden. If not even the
others fit, the row continues in a table below, or becomes a block of lines.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from filterdb.terminal import cells, shorten, wrap

Kind = Literal["number", "word", "name", "text"]

NAME = 16
"""Names are shortened to this width before columns are hidden, if they stay distinct."""

SHORT_NAME = 12
"""Names are shortened to this width before a table is stacked, if they stay distinct."""

TEXT = 24
"""Narrowest column of a text; in it words are broken that are longer."""

TITLE = 14
"""Widest word of a title that widens its column."""

CONTINUED = 4
"""Numbers of a row from which they continue in a table below; fewer are stacked."""

WHOLE = ("number", "word")
"""Kinds that are never cut or broken."""

WIDE_GAP, GAP = 3, 2
"""Spaces between columns: where everything fits, and elsewhere."""


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column of a table."""

    title: str
    hide: int = 0
    """When the column is hidden in a narrow terminal: those with the largest number first, those with 0 never."""

    kind: Kind | None = None
    """What its cells are. None: numbers if all of them are, else names."""


def number(title: str, hide: int = 0) -> Column:
    """Return a column of numbers, also with marks behind them, which are never cut or broken."""
    return Column(title, hide, "number")


def word(title: str, hide: int = 0) -> Column:
    """Return a column of short words, such as verdicts, which are never cut or broken."""
    return Column(title, hide, "word")


def name(title: str, hide: int = 0) -> Column:
    """Return a column of names, which are shortened as far as they stay distinct."""
    return Column(title, hide, "name")


def text(title: str, hide: int = 0) -> Column:
    """Return a column of texts, which are broken between words."""
    return Column(title, hide, "text")


@dataclass(frozen=True, slots=True)
class Layout:
    """Hold how a table is laid out."""

    parts: tuple[tuple[int, ...], ...]
    """The columns of each part, of which the first is a table and the others continue it. None: rows are blocks."""

    widths: tuple[int, ...]
    """The width of each column."""

    hidden: tuple[int, ...]
    """The columns that are not shown."""

    gap: int


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Layout:
    """Return the layout of a table in a width; None is as wide as the table."""
    values = [[row[i] for row in rows] for i in range(len(columns))]
    contents = [max(map(cells, column), default=0) for column in values]
    full = [max(cells(column.title), content) for column, content in zip(columns, contents, strict=True)]
    everything = tuple(range(len(columns)))
    if width is None or 2 + _total(full, everything, WIDE_GAP) <= width:
        return Layout((everything,), tuple(full), (), WIDE_GAP)
    required = tuple(i for i in everything if not columns[i].hide)
    for candidates, shortest in ((everything, NAME), (required, SHORT_NAME)):
        least = [_least(columns[i], values[i], contents[i], shortest) for i in everything]
        kept = _kept(columns, candidates, least, width)
        if _total(least, kept, GAP) <= width:
            widths = _widened(columns, kept, least, (contents, full), width)
            return Layout((kept,), widths, _others(everything, kept), GAP)
    least = [_least(columns[i], values[i], contents[i], NAME) for i in everything]
    parts = _parts(columns, required, least, width)
    return Layout(parts, tuple(least), _others(everything, required) if parts else (), GAP)


def _kept(columns: Sequence[Column], candidates: Sequence[int], least: Sequence[int], width: int) -> tuple[int, ...]:
    """Return the columns that fit, without the least important ones; those that are never hidden are among them."""
    kept = list(candidates)
    for i in sorted(candidates, key=lambda i: (columns[i].hide, i), reverse=True):
        if columns[i].hide and _total(least, kept, GAP) > width:
            kept.remove(i)
    return tuple(kept)


def _total(widths: Sequence[int], chosen: Sequence[int], gap: int) -> int:
    """Return the width of the chosen columns together."""
    return sum(widths[i] for i in chosen) + gap * (len(chosen) - 1)


def _others(everything: Sequence[int], kept: Sequence[int]) -> tuple[int, ...]:
    return tuple(i for i in everything if i not in kept)


def _least(column: Column, values: Sequence[str], content: int, shortest: int) -> int:
    """Return the least width of a column."""
    title = min(max(map(cells, _words(column.title)), default=0), TITLE)
    if column.kind in WHOLE:
        return max(content, title)
    if column.kind == "text":
        return max(min(content, TEXT), title)
    return max(_distinct(values, min(content, shortest), content), title)


def _distinct(names: Iterable[str], least: int, most: int) -> int:
    """Return the smallest width from `least` at which different names look different.

    Names that differ at some width differ at every larger one, because more of both ends is shown.
    """
    different = set(names)
    if len(different) < 2:
        return least
    widths = range(least, most + 1)
    number = len(different)
    position = bisect_left(widths, True, key=lambda width: len({shorten(name, width) for name in different}) == number)
    return widths[min(position, len(widths) - 1)]


def _widened(
    columns: Sequence[Column],
    kept: Sequence[int],
    least: Sequence[int],
    wanted: tuple[Sequence[int], Sequence[int]],
    width: int,
) -> tuple[int, ...]:
    """Return the widths of columns after the room that is left is given away: to cells, then to titles."""
    widths, room = list(least), width - _total(least, kept, GAP)
    names = [i for i in kept if columns[i].kind != "text"]
    for targets, chosen in ((wanted[0], names), (wanted[0], kept), (wanted[1], kept)):
        while room and (growing := [i for i in chosen if widths[i] < targets[i]]):
            widths[min(growing, key=lambda i: widths[i])] += 1
            room -= 1
    return tuple(widths)


def _parts(
    columns: Sequence[Column], required: Sequence[int], least: Sequence[int], width: int
) -> tuple[tuple[int, ...], ...]:
    """Return the columns of each part of a table of numbers; none if rows must be blocks."""
    names = [i for i in required if columns[i].kind == "name"]
    if not names or sum(columns[i].kind in WHOLE for i in required) < CONTINUED:
        return ()
    key = required.index(names[0])
    head, others = required[: key + 1], required[key + 1 :]
    for number_of_parts in range(2, len(others) + 1):  # of nearly equal numbers of columns
        size = -(-len(others) // number_of_parts)
        slices = [others[start : start + size] for start in range(0, len(others), size)]
        parts = [(*head, *slices[0]), *((names[0], *rest) for rest in slices[1:])]
        if all(_total(least, part, GAP) <= width for part in parts):
            return tuple(parts)
    return ()


def _words(title: str) -> list[str]:
    """Return the parts of a title between which it may be broken."""
    return title.replace("_", "_ ").split()


def title_lines(title: str, width: int) -> list[str]:
    """Return a title as lines of a width; a word that is wider is shortened."""
    if cells(title) <= width:
        return [title]
    lines: list[str] = []
    line = ""
    for word in _words(title):
        joint = "" if line.endswith("_") or not line else " "
        if line and cells(line + joint + word) <= width:
            line += joint + word
            continue
        lines += [line] if line else []
        line = shorten(word, width)
    return [*lines, line]


def cell_lines(column: Column, value: str, width: int) -> list[str]:
    """Return a cell as lines of a width."""
    if column.kind in WHOLE:
        return [value]
    return wrap(value, width) or [""] if column.kind == "text" else [shorten(value, width)]


def aligned(column: Column, value: str, width: int) -> str:
    """Return a line of a cell with spaces before or behind it."""
    space = " " * (width - cells(value))
    return space + value if column.kind == "number" else value + space


def block(columns: Sequence[Column], row: Sequence[str], width: int) -> Iterator[tuple[str, str, int]]:
    """Yield the lines of a row as a block: the title with spaces, a line of the value, and the cell's column.

    A cell without a title, such as a mark, is behind the one before, or else before the next.
    """
    label = min(max(cells(column.title) for column in columns), max(width // 3, 1))
    room = max(width - label - GAP, 1)
    values = dict(enumerate(row))
    titled = [i for i, column in enumerate(columns) if column.title]
    for i in values.keys() - titled:
        owner = max((k for k in titled if k < i), default=min(titled, default=i))
        if owner != i and values[i]:
            values[owner] = f"{values[owner]} {values[i]}" if owner < i else f"{values[i]} {values[owner]}"
    for i in titled or range(len(columns)):
        title = shorten(columns[i].title, label)
        is_whole = columns[i].kind in WHOLE and " " not in values[i]
        lines = [values[i]] if is_whole else wrap(values[i], room)
        for line in lines or [""]:
            yield title + " " * (label + GAP - cells(title)), line, i
            title = ""
