"""Run the code blocks of a page in order, in one folder and one Python namespace."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from filterdb.errors import FilterDBError
from tests.docs.pages import Block, commands


def command_tree() -> click.Group:
    """Return the group that holds every command."""
    from filterdb.commands.group import commands as group

    return group


class PageRun:
    """What running the blocks of one page leaves: its Python names. The current folder is the page's."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> str:
        """Run a block and return what it prints. Raises AssertionError on another exit code than the page names."""
        if block.language == "python":
            return self._python(block)
        *earlier, last = commands(block.text)
        printed = [run_command(command, 0, block.place) for command in earlier]
        return "".join([*printed, run_command(last, block.exit_code, block.place)])

    def _python(self, block: Block) -> str:
        tree = ast.parse(block.text, block.place)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, block.place, "exec"), self.names)
        return printed.getvalue()


def run_command(command: str, code: int, place: str) -> str:
    """Run a command of a bash block: filterdb in this process, others in a shell."""
    if not command.startswith("filterdb "):
        if command.startswith("cd "):
            os.chdir(command.removeprefix("cd "))
            return ""
        done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, f"{place}: {command!r} ended with {done.returncode}: {done.stderr}"
        return done.stdout
    own, operator, rest = split_at_redirection(command)
    printed = _run_filterdb(arguments(own), code, place)
    if operator:
        shell = "cat" if operator == ">" else ""
        script = f"{shell} {operator if shell else ''} {rest}"
        return subprocess.run(
            ["bash", "-euc", script], input=printed, capture_output=True, text=True, check=True
        ).stdout
    return printed


def split_at_redirection(command: str) -> tuple[str, str, str]:
    """Split a command at its first pipe or redirection: what comes before, `|` or `>`, what comes after."""
    match = re.search(r"\s([|>])\s", command)
    return (command[: match.start()], match[1], command[match.end() :]) if match else (command, "", "")


def arguments(command: str) -> list[str]:
    """Return the arguments of a filterdb command, with patterns of files expanded as a shell does."""
    words = shlex.split(command)[1:]
    quoted = {word.strip("'") for word in command.split() if word.startswith("'")}
    return [
        name
        for word in words
        for name in (sorted(str(path) for path in Path().glob(word)) if "*" in word and word not in quoted else [word])
        or [word]
    ]


def _run_filterdb(words: list[str], code: int, place: str) -> str:
    command = command_tree().get_command(click.Context(command_tree()), words[0])
    assert command is not None, f"{place}: no command {words[0]!r}"
    # Two threads of this process instead of a cluster of processes, which takes seconds to start.
    options = {option for parameter in command.params for option in parameter.opts}
    if "--threads" in options and not {"--threads", "--workers", "--scheduler", "--help"} & set(words):
        words = [words[0], "--threads", "2", *words[1:]]
    done = CliRunner().invoke(command_tree(), words, prog_name="filterdb", catch_exceptions=True)
    error = done.exception
    if isinstance(error, FilterDBError):
        assert error.exit_code == code, f"{place}: {words} ended with {error.exit_code}: {error}"
        return f"{done.stdout}filterdb: {' '.join(str(error).split())}\n"
    if error is not None and not isinstance(error, SystemExit):
        raise AssertionError(f"{place}: {words}") from error
    assert done.exit_code == code, f"{place}: {words} ended with {done.exit_code}: {done.output}"
    return done.stdout


def check_command(command: str, place: str) -> None:
    """Check that a filterdb command that is not run exists, with each option that it is given."""
    words = shlex.split(split_at_redirection(command)[0])
    while words[0] != "filterdb":  # AWS_REGION=… filterdb …
        words = words[1:]
    words = words[1:]
    if not words or words[0].startswith("-"):
        return
    context = click.Context(command_tree(), info_name="filterdb")
    found = command_tree().get_command(context, words[0])
    assert found is not None, f"{place}: no command {words[0]!r}"
    try:
        found.make_parser(click.Context(found, context, words[0])).parse_args(words[1:])
    except click.UsageError as error:
        raise AssertionError(f"{place}: {command!r}: {error.format_message()}") from error


def lines(text: str) -> list[str]:
    """Return the lines of what was printed without space at their ends, and without empty lines at either end."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n").splitlines()


def matches(shown: str, printed: str) -> bool:
    """Compare what a page shows with what was printed; a line `…` stands for any lines, `…` at an end for any end."""
    return (
        re.fullmatch("".join(map(_pattern, lines(shown))), "".join(f"{line}\n" for line in lines(printed))) is not None
    )


def _pattern(line: str) -> str:
    if line.strip() == "…":
        return r"(?:[^\n]*\n)*?"
    return re.escape(line.removesuffix("…")) + (r"[^\n]*\n" if line.endswith("…") else r"\n")
