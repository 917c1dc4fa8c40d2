"""Numbers as options: within bounds, with an error that says what is expected."""

from __future__ import annotations

from typing import Any, ClassVar

import click


class _Bounded:
    """Replaces click's words for a wrong number by what is expected and what was given."""

    noun: ClassVar[str]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what stands for the number in the help."""
        return "N"

    def _describe_range(self) -> str:
        """Return the bounds, which click adds to the help of an option."""
        return _bounds(self).removeprefix(" of ").removeprefix(" from ")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)  # type: ignore[misc]
        except click.BadParameter as error:
            message = f"expected a {self.noun}{_bounds(self)}, got {value!r}"
            raise click.BadParameter(message, ctx, param) from error


def _bounds(kind: Any) -> str:
    """Return the bounds of a number, as a message names them."""
    if kind.max is not None:
        return f" from {kind.min:,} to {kind.max:,}"
    return f" of at least {kind.min:,}"


class WholeNumber(_Bounded, click.IntRange):
    """A whole number."""

    noun = "whole number"


class Number(_Bounded, click.FloatRange):
    """A number, which need not be whole."""

    noun = "number"
