"""Numbers as options: within bounds, with an error that says what is expected."""

from __future__ import annotations

from typing import Any

import click


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    """Return the bounds of a number, as a message names them."""
    if kind.min is not None and kind.max is not None:
        return f" from {kind.min:,} to {kind.max:,}"
    return "" if kind.min is None else f" of at least {kind.min:,}"


class WholeNumber(click.IntRange):
    """A whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"expected a whole number{_bounds(self)}, got {value!r}", param, ctx)


class Number(click.FloatRange):
    """A number, which need not be whole."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"expected a number{_bounds(self)}, got {value!r}", param, ctx)
