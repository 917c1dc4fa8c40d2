"""Print tables and lines in the terminal. Control characters in names, which may be hostile, are replaced."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from filterdb.choices import COMPONENTS
from filterdb.commands import layout
from filterdb.commands.answer import Answer
from filterdb.commands.layout import Column
from filterdb.redaction import printable
from filterdb.terminal import complain, width_of, wrap
from filterdb.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 1_000_000
"""Lines are broken only in a terminal."""

_WIDE = "filterdb.wide"
"""The key of --wide in click's context."""


class Styled(NamedTuple):
    """A cell with a style of rich."""

    text: str
    style: str


def wide_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --wide, which `print_table` reads from click's context."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        del parameter
        context.meta[_WIDE] = value

    return click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show all columns of tables at full width, however narrow the terminal is.",
    )(command)


def console() -> Console:
    """Return a console for stdout."""
    from rich.console import Console  # takes a while, which commands save that only print their help or JSON

    return Console(width=width_of(sys.stdout) or _PIPE_WIDTH, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print one line, broken between words to the width of a terminal."""
    for line in wrap(printable(text), width_of(sys.stdout)):
        click.echo(line)


def warn(messages: Iterable[str]) -> None:
    """Print a warning for each message on stderr."""
    for message in messages:
        complain(f"filterdb: warning: {printable(message)}")


def print_table(columns: Sequence[Column | str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table in the width of the terminal, as `layout` describes; in a pipe and with --wide, as wide as it is.

    Columns that are given by their title alone are never hidden.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    texts = [[text for text, _, _ in row] for row in cells]
    styles = [[style for _, _, style in row] for row in cells]
    resolved = [
        _resolved(column, [is_number for row in cells for _, is_number, _ in [row[i]]])
        for i, column in enumerate(columns)
    ]
    context = click.get_current_context(silent=True)
    is_wide = context is not None and bool(context.meta.get(_WIDE))
    width = width_of(sys.stdout)
    plan = layout.lay_out(resolved, texts, None if is_wide else width)
    if title:
        say(title)
    if plan.parts:
        for part in plan.parts:
            _print_part(resolved, texts, styles, plan, part)
        click.echo()
    else:
        _print_blocks(resolved, texts, styles, width or _PIPE_WIDTH)
    if plan.hidden:
        titles = [resolved[i].title for i in plan.hidden]
        names = ("; " if any("," in title for title in titles) else ", ").join(titles)
        say(f"{counted(len(plan.hidden), 'column')} hidden: {names}; --wide shows all")
        click.echo()


def _resolved(column: Column | str, are_numbers: Sequence[bool]) -> Column:
    """Return a column with its kind, and a title that may be shown."""
    column = Column(column) if isinstance(column, str) else column
    kind = column.kind or ("number" if are_numbers and all(are_numbers) else "name")
    return Column(printable(column.title), column.hide, kind)


def _print_part(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    styles: Sequence[Sequence[str]],
    plan: layout.Layout,
    part: Sequence[int],
) -> None:
    """Print some columns of a table."""
    edge = " " if plan.gap == layout.WIDE_GAP else ""
    gap, widths = " " * plan.gap, plan.widths
    out = _printer()
    click.echo()
    heads = {i: layout.title_lines(columns[i].title, widths[i]) for i in part}
    height = max(map(len, heads.values()))
    for k in range(height):
        line = [([""] * (height - len(heads[i])) + heads[i])[k] for i in part]
        texts = [layout.aligned(columns[i], text, widths[i]) for i, text in zip(part, line, strict=True)]
        out([(edge + gap.join(texts) + edge, "bold")])
    click.echo(edge + "─" * (sum(widths[i] for i in part) + plan.gap * (len(part) - 1)) + edge)
    for row, row_styles in zip(rows, styles, strict=True):
        lines = {i: layout.cell_lines(columns[i], row[i], widths[i]) for i in part}
        for k in range(max(map(len, lines.values()), default=0)):
            pieces = [(edge, "")]
            for i in part:
                value = lines[i][k] if k < len(lines[i]) else ""
                pieces += [(layout.aligned(columns[i], value, widths[i]), row_styles[i]), (gap, "")]
            out([*pieces[:-1], (edge, "")])


def _print_blocks(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Sequence[Sequence[str]], width: int
) -> None:
    """Print each row as a block of lines, each with a title and a value."""
    out = _printer()
    for row, row_styles in zip(rows, styles, strict=True):
        click.echo()
        for label, value, i in layout.block(columns, row, width):
            out([(label, "bold"), (value, row_styles[i])])
    click.echo()


def _printer() -> Callable[[list[tuple[str, str]]], None]:
    """Return a function that prints a line of pieces, each with its style, in a pipe without.

    Lines without a style are printed without rich, which takes a tenth of the time.
    """
    out = None if width_of(sys.stdout) is None else console()

    def show(pieces: list[tuple[str, str]]) -> None:
        if out is None or not any(style for _, style in pieces):
            click.echo("".join(text for text, _ in pieces).rstrip())
            return
        from rich.text import Text

        line = Text.assemble(*pieces)
        line.rstrip()
        out.print(line, soft_wrap=True)

    return show


def _cell(value: Any) -> tuple[str, bool, str]:
    """Return a value as text, whether it is a number, and its style."""
    if isinstance(value, Styled):
        return printable(value.text), False, value.style
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–", True, ""
    if isinstance(value, bool):
        return ("yes" if value else "no"), False, ""
    if isinstance(value, int):
        return f"{value:,}", True, ""
    if isinstance(value, float):
        return f"{value:.4g}", True, ""
    if isinstance(value, list):
        return ", ".join(printable(item) for item in value) or "–", False, ""
    return printable(value), False, ""


def print_rows(answer: Answer, columns: Sequence[Column | str], title: str | None = None) -> None:
    """Print some columns of the answer's rows; the title of each is its key."""
    keys = [column if isinstance(column, str) else column.title for column in columns]
    print_table(columns, ([row[key] for key in keys] for row in answer["rows"]), title)


def counts_line(answer: Answer) -> str:
    """Return the line of counts under a table."""
    where = "" if answer["selection"] == "all" else f" where {answer['selection']}"
    kernel = answer.get("kernel") or "3x3"
    shape = "" if kernel == "3x3" and answer["filters"] else f"{kernel.replace('x', '×')} "
    filters = counted(answer["filters"], f"{shape}filter")
    numbers = f"{filters}, {counted(answer['layers'], 'layer')}, {counted(answer['models'], 'model')}"
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
