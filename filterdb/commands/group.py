"""Define the group of commands, which imports a command when it is run, because importing all takes a while."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from filterdb.commands.help import Helpful
from filterdb.version import __version__
from filterdb.wording import meant

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
        definition = _DEFINITION.search(path.read_text("utf-8"))
        if definition is not None:
            helps[definition["name"] or path.stem] = definition["help"].strip()
    return dict(sorted(helps.items()))


SECTIONS = {
    "Start here": ("demo", "check", "ingest", "report", "serve"),
    "Inspect a database": ("info", "models", "layers", "statistics", "filter-scale"),
    "Judge layers": ("degeneration", "reference", "randomness-threshold"),
    "Compare": ("drift", "explain", "nearest", "lineage", "series"),
    "Describe filters": ("pca", "distributions", "density", "phenotypes", "spectrum", "codebook"),
    "Add and change": ("catalog", "import-hdf5", "relabel", "remove", "compact", "reduce", "refit"),
    "History and integrity": ("snapshots", "tag", "restore", "expire", "verify", "gc"),
}
"""Headings of the list of commands, and the commands below each; others come last."""


class _Commands(Helpful, click.Group):
    """Know the names of commands and what to list about them, and import the module of one that is asked for."""

    command_class = Helpful

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in listed_helps():
            import_module(f"{__package__}.{cmd_name.replace('-', '_')}")
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(listed_helps())

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = {*listed_helps(), *self.commands}
        if args and args[0] not in known and not ctx.resilient_parsing and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}{meant(args[0], sorted(known))}", ctx)
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what follows the name of the program."""
        return ["COMMAND", *super().collect_usage_pieces(ctx)]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands that begin like this, without importing any."""
        from click.shell_completion import CompletionItem

        helps = listed_helps()
        items = [CompletionItem(name, help=text) for name, text in helps.items() if name.startswith(incomplete)]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        Helpful.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = listed_helps()
        placed = {name for names in SECTIONS.values() for name in names}
        sections = {**SECTIONS, "More": tuple(name for name in helps if name not in placed)}
        for heading, names in sections.items():
            if records := [(name, helps[name]) for name in names if name in helps]:
                with formatter.section(heading):
                    formatter.write_dl([(f"{name:{max(map(len, helps))}}", text) for name, text in records])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how to complete commands in a shell."""
        formatter.write_paragraph()
        formatter.write_text(
            "To complete commands, options and keys with Tab, add this line to ~/.bashrc (zsh: zsh_source in "
            "~/.zshrc; fish: fish_source):"
        )
        formatter.write(f"  {COMPLETION}\n")


COMPLETION = 'eval "$(_FILTERDB_COMPLETE=bash_source filterdb)"'
"""The line that makes a shell complete filterdb's command line."""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="filterdb")
def commands() -> None:
    """Store and analyse the convolution filters of trained CNNs.

    DB is a folder or a URL such as s3://bucket/db; S3 settings come from the environment (AWS_*).

    Examples:
        filterdb demo
        filterdb check model.onnx
        filterdb drift filterdb-demo/db --by task
    """
