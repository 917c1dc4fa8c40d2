"""The base class of the page's sections: what a section computes, shows and writes.

Each section is a module of `filterdb.page.sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from filterdb.errors import InputError
from filterdb.page.results import Results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

T = TypeVar("T")


class Picture(NamedTuple):
    """The file name of a figure without its suffix, and the function that draws it."""

    name: str
    draw: Callable[[], Figure]


class Table(NamedTuple):
    """The file name of a table without its suffix, its rows, and whether it is short enough for CSV."""

    name: str
    rows: pd.DataFrame
    has_csv: bool = True


class Section:
    """One section of the page.

    The name of a section is that of its module. It is also the id of its element, the key of its data
    (`core.sections.<name>` in JavaScript) and the name of its script, `web/sections/<name>.js`. A page creates one
    instance of each section, so a section that needs a result of its own computes it in `__init__`.
    """

    position: ClassVar[int]
    """Sections are sorted by this number."""
    title: ClassVar[str]
    """Title in the table of contents."""
    template: ClassVar[str]
    """Jinja template of the section's element; it can use the macros `figure` and `files` of `web/figure.html`."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.refused: list[tuple[str, str]] = []

    def attempt(self, what: str, compute: Callable[[], T]) -> T | None:
        """Return what an analysis computes. If the database does not allow it, return None; `what` is then missing."""
        try:
            return compute()
        except InputError as error:
            reason = str(error).removeprefix(f"{self.results.db.url}: ")
            self.refused.append((what, f"{reason[:1].upper()}{reason[1:]}."))
            return None

    @classmethod
    def name(cls) -> str:
        """Return the name of the section, which is the name of its module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def script(cls) -> str:
        """Return the section's JavaScript."""
        return resources.files("filterdb.page").joinpath("web", "sections", f"{cls.name()}.js").read_text("utf-8")

    def is_listed(self) -> bool:
        """Return whether the section is on the page and in its table of contents."""
        return True

    def missing(self) -> list[tuple[str, str]]:
        """Return what the section cannot show for this database, each with the reason as a sentence."""
        return self.refused

    def context(self) -> dict[str, Any]:
        """Return the variables of the template."""
        return {}

    def core(self) -> Any:
        """Return the data in the page itself for the section's script; None for no data."""
        return None

    def data(self) -> dict[str, Any]:
        """Return the data files that the script loads when a figure comes into view, by name."""
        return {}

    def pictures(self) -> Iterator[Picture]:
        """Yield the figures that are written as files."""
        yield from ()

    def tables(self) -> Iterator[Table]:
        """Yield the tables that are written as files."""
        yield from ()
