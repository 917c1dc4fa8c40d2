"""Word what messages and tables have in common: a number with its noun, and the name that was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

NEAR = 0.75
"""Smallest likeness of two names of which one may be a misspelling of the other: task and taks have 0.75."""

SHORTEST_PART = 4
"""Shortest part of a name that stands for it, as dataset for training_dataset."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "model"), counted(1_200, "model"), counted(0, "family", "families")
    ('1 model', '1,200 models', '0 families')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably meant to be; None if none is near.

    >>> near("tsak", ["task", "mask"]), near("dataset", ["training_dataset"]), near("x", ["task"])
    ('task', 'training_dataset', None)
    """
    lowered = {each.lower(): each for each in known}
    typed = name.lower()
    close = difflib.get_close_matches(typed, lowered, 5, cutoff=NEAR)
    close.sort(key=lambda each: sorted(each) != sorted(typed))  # drfit is drift rather than refit
    if not close and len(typed) >= SHORTEST_PART:
        close = [each for each in lowered if typed in each]
        close = close if len(close) == 1 else []
    return lowered[close[0]] if close else None


def meant(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that asks for a near name, "" if there is none.

    >>> meant("taks", ["task"]), meant("x", ["task"])
    ('; did you mean task?', '')
    """
    guess = near(name, known)
    return f"; did you mean {guess}?" if guess else ""


def none_readable(reasons: Sequence[str]) -> str:
    """Return what to say of files none of which is a readable model: the only reason, or their number and the first."""
    return reasons[0] if len(reasons) == 1 else f"none of the {len(reasons):,} inputs is a readable model: {reasons[0]}"
