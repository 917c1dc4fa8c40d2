"""The reference of the command line, as Markdown, from click's own tree of commands."""

from __future__ import annotations

import click

from filterdb.commands.help import grouped_options


def command_tree() -> click.Group:
    """Return the group that holds every command."""
    from filterdb.commands.group import commands

    return commands


def commands_page() -> str:
    """Return a page with each command: its usage, what it does, examples and options in groups."""
    group = command_tree()
    context = click.Context(group, info_name="filterdb")
    parts = [
        "# Every command",
        "For readers who look up an option. This page is generated from the program; `filterdb COMMAND --help` prints "
        "the same. [The command line](../command-line.md) explains JSON, exit codes and where a command computes.",
    ]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            parts.append(_section(command, click.Context(command, info_name=name, parent=context)))
    return "\n\n".join(parts) + "\n"


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.info_name}", f"```text\n{usage}\n```", _prose(command.help or "")]
    if examples := getattr(command, "examples", []):
        parts.append("```bash\n" + "\n".join(examples) + "\n```")
    for heading, options in grouped_options(command, context).items():
        records = [record for option in options if (record := option.get_help_record(context)) is not None]
        if records:
            parts += [f"**{heading}**", "\n".join(f"`{_plain(names)}`\n: {_cell(text)}\n" for names, text in records)]
    return "\n\n".join(part for part in parts if part)


def _prose(text: str) -> str:
    """Return a help text as paragraphs; click marks blocks that keep their lines with a backspace character."""
    paragraphs = [paragraph.strip("\n") for paragraph in text.split("\n\n")]
    return "\n\n".join(
        f"```text\n{paragraph.lstrip(chr(8)).strip(chr(10))}\n```" if paragraph.startswith("\b") else _cell(paragraph)
        for paragraph in paragraphs
        if paragraph.strip()
    )


def _plain(text: str) -> str:
    return text.replace("`", "'")


def _cell(text: str) -> str:
    """Return help text on one line, with what Markdown would read as markup escaped."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\*_<>[]|$" else c for c in line)
