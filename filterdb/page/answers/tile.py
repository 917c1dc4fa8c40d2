"""What a tile of the answer card holds: a question, its answer, and the data of its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from filterdb.verdicts import verdict_of

State = Literal["good", "warn", "unknown"]

SIGNS: dict[State, str] = {"good": "✓", "warn": "!", "unknown": "?"}
"""The symbol of each state, so that colour is never the only sign."""

CANNOT_TELL = verdict_of(None).word


@dataclass(frozen=True, slots=True)
class Line:
    """Hold a line of a tile: its sign and text, and where it leads."""

    text: str
    state: State | None = None
    name: str = ""
    href: str = ""

    @property
    def sign(self) -> str:
        """The symbol of the state."""
        return SIGNS[self.state] if self.state else ""


@dataclass(frozen=True, slots=True)
class Tile:
    """Hold a question, its answer, and the data of its picture.

    `names` are the groups or models that the answer is about; `picture` is drawn by the summary's script.
    """

    key: str
    question: str
    state: State
    word: str
    answer: str
    sign: str = ""
    names: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    note: str = ""
    link: tuple[str, str] | None = None
    picture: dict[str, Any] = field(default_factory=dict)
    are_models: bool = False
    """Whether the names are those of models, which lead to their pages."""

    @property
    def symbol(self) -> str:
        """The symbol of the state, or that of a verdict."""
        return self.sign or SIGNS[self.state]


def left_out(few: int) -> str:
    """Say how many groups are too small to compare."""
    return f"{few:,} smaller {'one is' if few == 1 else 'ones are'} left out"
