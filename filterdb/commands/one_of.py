"""One of several words as an option, with an error that says what is expected."""

from __future__ import annotations

from typing import Any

import click

from filterdb.wording import meant


class OneOf(click.Choice[str]):
    """One of some words."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the message about a value that is none of them."""
        del ctx
        words = list(map(str, self.choices))
        return f"expected one of {', '.join(words)}, got {value!r}{meant(str(value), words)}"
