"""Make the files beside a page: the data of its figures, the figures and the tables, all or one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from filterdb.page import payload, tables
from filterdb.page.section import Picture, Section
from filterdb.plotting import drawing

FEWEST_FIGURES = 8
"""Figures for each process at least: one process starts in about two seconds and draws as many figures meanwhile."""

_PATH = re.compile(r"(figures|tables)/([^/]+)(\.svg|\.png|\.csv|\.parquet)")
"""Matches the path of a figure or a table beside a page."""


def data_files(section: Section) -> dict[str, bytes]:
    """Return the data files of a section, by path."""
    return {f"data/{name}.js": payload.script(name, data) for name, data in section.data().items()}


def all_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Return all files beside a page, by path."""
    files = draw([picture for section in sections for picture in section.pictures()])
    for section in sections:
        files |= data_files(section)
        for table in section.tables():
            files |= tables.files(table.name, table.rows, csv=table.has_csv)
    return files


def draw(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Return the files of figures, by path. Many are drawn in processes, which `drawing_processes` ends."""
    from joblib import Parallel, cpu_count, delayed

    processes = max(1, min(cpu_count(), len(pictures) // FEWEST_FIGURES))
    drawn = Parallel(n_jobs=processes)(delayed(_draw)(picture) for picture in pictures)
    return {path: data for files in drawn for path, data in files.items()}


def _draw(picture: Picture) -> dict[str, bytes]:
    return drawing.files(picture.draw(), picture.name)


@contextmanager
def drawing_processes() -> Iterator[None]:
    """End the processes of `draw` afterwards; otherwise they would keep their memory for minutes."""
    from joblib.externals.loky import get_reusable_executor

    try:
        yield
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def download(sections: Iterable[Section], path: str) -> dict[str, bytes]:
    """Return the figure or table with this path in all of its formats; nothing if there is none. No other is made."""
    match = _PATH.fullmatch(path)
    if match is None:
        return {}
    kind, name, suffix = match.groups()
    for section in sections:
        if kind == "figures" and suffix in {".svg", ".png"}:
            for picture in section.pictures():
                if picture.name == name:
                    return drawing.files(picture.draw(), name)
        if kind == "tables" and suffix in {".csv", ".parquet"}:
            for table in section.tables():
                if table.name == name:
                    return tables.files(name, table.rows, csv=table.has_csv)
    return {}
