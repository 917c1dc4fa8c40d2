"""Define the group of commands, which imports a command when it is run, because importing all takes a while."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import click

from filterdb.version import __version__

_DEFINITION = re.compile(
    r'^@commands\.command\((?:"(?P<name>[\w-]+)")?\)$.*?^    """(?P<help>.+?)(?:"""|\n)', re.MULTILINE | re.DOTALL
)
"""Matches a command in the source of its module, up to the first line of its help."""


@cache
def listed_helps() -> dict[str, str]:
    """Return the first line of each command's help by the command's name, read from the sources: nothing is imported.

    A command is in the module of this package with its name, `_` for `-`.
    """
    helps = {}
    for path in Path(__file__).parent.glob("*.py"):
        found = _DEFINITION.search(path.read_text("utf-8"))
        if found is not None:
            helps[found["name"] or path.stem] = found["help"].strip()
    return dict(sorted(helps.items()))


class _Commands(click.Group):
    """Know the names of commands and what to list about them, and import the module of one that is asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in listed_helps():
            import_module(f"{__package__}.{cmd_name.replace('-', '_')}")
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(listed_helps())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = listed_helps()
        limit = formatter.width - 6 - max(map(len, helps))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, click.Command(name, help=text).get_short_help_str(limit)) for name, text in helps.items()]
            )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="filterdb")
def commands() -> None:
    """Store and analyse the convolution filters of trained CNNs.

    DB is a folder or a URL such as s3://bucket/db; S3 settings come from the environment (AWS_*).
    """
