"""Write the help of commands: usage, examples, and options in groups, those that matter first."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

from filterdb.wording import meant

OWN = "Options"
"""The heading of a command's own options, of which the required ones and --by come first."""

GROUPS = {
    "Selection": ("--where", "--exclude-verdict", "--kernel", "--snapshot"),
    "Reading model files": ("--key", "--order", "--model-memory", "--model-seconds"),
    "Output": ("--output", "--figure", "--draw", "--sarif", "--junit", "--skipped", "--wide", "--json"),
    "Where to compute": ("--threads", "--workers", "--scheduler"),
    "TLS, for a scheduler at tls://": ("--tls-ca", "--tls-cert", "--tls-key"),
    "Help": ("--debug", "--version", "--help"),
}
"""Headings of options that several commands share, in their order, and the options below each."""

_PLACES = {option: (heading, place) for heading, names in GROUPS.items() for place, option in enumerate(names)}

_EXAMPLES = "\n\nExamples:\n"

_WORD = re.compile(r"(?:[^\s']|'[^']*')+")
"""Matches a word of a command line, whose quotes may contain spaces."""


def long_name(option: click.Parameter) -> str:
    """Return the longest name of an option."""
    return max(option.opts, key=len)


def grouped_options(command: click.Command, context: click.Context) -> dict[str, list[click.Option]]:
    """Return the options of a command below their headings, in the order of the help."""
    groups: dict[str, list[click.Option]] = {heading: [] for heading in (OWN, *GROUPS)}
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    for option in options:
        heading, _ = _PLACES.get(long_name(option), (OWN, 0))
        groups[OWN if option.required else heading].append(option)
    groups[OWN].sort(key=lambda option: (long_name(option) != "--by", not option.required))
    for heading in GROUPS:
        groups[heading].sort(key=lambda option: _PLACES[long_name(option)][1])
    return {heading: listed for heading, listed in groups.items() if listed}


class Helpful(click.Command):
    """A command whose docstring ends with examples, one a line, below "Examples:"."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text, _, examples = inspect.cleandoc(self.help or "").partition(_EXAMPLES)
        self.help = text
        self.examples = [line.strip() for line in examples.splitlines()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments, with a name for an unknown option only if one is near."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [
                name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)
            ]
            hint = meant(error.option_name, [name for name in known if name.startswith("--")])
            raise click.UsageError(f"no option {error.option_name}{hint}", ctx) from error

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what follows the name of the command: arguments, required options and --by, [OPTIONS]."""
        pieces = []
        for option in grouped_options(self, ctx).get(OWN, ()):
            words = f"{long_name(option)} {option.metavar or 'VALUE'}"
            if option.required:
                pieces.append(words)
            elif long_name(option) == "--by":
                pieces.append(f"[{words}]")
        arguments = [piece for parameter in self.get_params(ctx) for piece in parameter.get_usage_pieces(ctx)]
        return [*arguments, *pieces, self.options_metavar or ""]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description and the examples."""
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    for line in wrapped_command(example, formatter.width - formatter.current_indent):
                        formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their groups."""
        for heading, options in grouped_options(self, ctx).items():
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def wrapped_command(command: str, width: int) -> Iterator[str]:
    """Yield a command line as lines of at most `width` columns that a shell joins."""
    line = ""
    for word in _WORD.findall(command):
        if line and len(f"{line} {word} \\") > width:
            yield f"{line} \\"
            line = "   "
        line = f"{line} {word}" if line else word
    yield line
