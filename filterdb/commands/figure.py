"""Draw the result of a command into a file: the option --figure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

import click

from filterdb.commands.options import Command
from filterdb.errors import MissingExtraError, UsageError
from filterdb.plotting.drawing import SUFFIXES, as_figure, encode
from filterdb.terminal import complain

Draw = Callable[[Callable[[], Any]], None]
"""What a command with `figure_option` gets as `draw`: call it with a function that draws and returns Axes."""


class _Target:
    """Hold the folder and name of the file of a figure; both are checked before the command computes anything."""

    def __init__(self, file: str) -> None:
        folder, _, self.name = file.rpartition("/")
        self.suffix = PurePosixPath(self.name).suffix.lower()
        if self.suffix not in SUFFIXES or self.name.lower() == self.suffix:
            raise UsageError(f"--figure: expected a file that ends in {', '.join(SUFFIXES)}, got {file!r}")
        if find_spec("matplotlib") is None:
            raise MissingExtraError("--figure: figures need the extra: pip install 'filterdb[report]'")
        from filterdb.store.files import Files

        self.folder = Files.at(folder or ("/" if file.startswith("/") else "."))
        self.folder.check_writable()

    def write(self, plot: Callable[[], Any]) -> None:
        """Draw the figure and write its file."""
        content = encode(as_figure(plot), self.name.removesuffix(self.suffix), self.suffix)
        self.folder.put({self.name: content})
        complain(f"figure: {self.folder.url(self.name)}")


def figure_option(command: Command) -> Command:
    """Add --figure, and pass `draw` to the command."""

    @functools.wraps(command)
    def wrapped(*args: Any, figure: str | None, **kwargs: Any) -> Any:
        if figure is not None and kwargs.get("output") is not None:
            raise UsageError("--figure cannot be combined with -o; a matrix that is written to a file is not drawn")
        target = None if figure is None else _Target(figure)

        def draw(plot: Callable[[], Any]) -> None:
            if target is not None:
                target.write(plot)

        return command(*args, draw=draw, **kwargs)

    return click.option("--figure", metavar="FILE", help="Also draw the result: FILE.svg, FILE.png or FILE.pdf.")(
        wrapped
    )
