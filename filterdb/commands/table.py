"""Print tables and lines in the terminal. Control characters in names, which may be hostile, are replaced."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from filterdb.choices import COMPONENTS
from filterdb.commands.answer import Answer
from filterdb.redaction import printable

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 240


def console() -> Console:
    """Return a console for stdout."""
    from rich.console import Console  # takes a while, which commands save that only print their help or JSON

    # Rows are not wrapped in a pipe, only to the width of a terminal.
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print one line."""
    from rich.text import Text

    console().print(Text(printable(text)))


def warn(messages: Iterable[str]) -> None:
    """Print a warning for each message on stderr."""
    for message in messages:
        click.echo(f"filterdb: warning: {printable(message)}", err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table; columns of numbers are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    listed = [[_cell(value) for value in row] for row in rows]
    for i, column in enumerate(columns):
        numeric = all(kind for row in listed for kind in [row[i][1]]) and bool(listed)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(text) for text, _ in row))
    console().print(table)


def _cell(value: Any) -> tuple[str, bool]:
    """Return a value as text, and whether it is aligned as a number."""
    if hasattr(value, "plain"):  # rich's Text
        return value.plain, True
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–", True
    if isinstance(value, bool):
        return ("yes" if value else "no"), False
    if isinstance(value, int):
        return f"{value:,}", True
    if isinstance(value, float):
        return f"{value:.4g}", True
    if isinstance(value, list):
        return ", ".join(printable(item) for item in value) or "–", False
    return printable(value), False


def print_rows(answer: Answer, names: Sequence[str], title: str | None = None) -> None:
    """Print some columns of the answer's rows."""
    print_table(names, ([row[name] for name in names] for row in answer["rows"]), title)


def counts_line(answer: Answer) -> str:
    """Return the line of counts under a table."""
    where = "" if answer["selection"] == "all" else f" where {answer['selection']}"
    kernel = answer.get("kernel") or "3x3"
    shape = "" if kernel == "3x3" and answer["filters"] else f"{kernel.replace('x', '×')} "
    numbers = f"{answer['filters']:,} {shape}filters, {answer['layers']:,} layers, {answer['models']:,} models"
    return f"{numbers}{where} · snapshot {answer['snapshot']}"


def leading(components: int) -> range:
    """Return the numbers of the components that a table shows."""
    return range(min(components, COMPONENTS))


def say_leading(components: int) -> None:
    """Print that a table shows the leading components only, if it does."""
    if components > COMPONENTS:
        say(f"the leading {COMPONENTS} of {components} components; --json has all")


def say_units(answer: Answer) -> None:
    """Print that fine-tuned copies count as independent, if the database has no sketches by which to know them."""
    from filterdb.analysis.units import RELATIVES  # heavy

    if answer["units_by"] and RELATIVES not in answer["units_by"].split(", "):
        say("layers without sketches: fine-tuned copies count as independent; `--unit related` makes the sketches")


def print_basis_warning(answer: Answer) -> None:
    """Print the warning that the basis is stale, if it is."""
    if answer.get("basis_warning"):
        from rich.text import Text

        console().print(Text(f"warning: {answer['basis_warning']}", "yellow"))
