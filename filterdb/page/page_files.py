"""Make the files beside a page: the data of its figures, the figures and the tables, all or one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from filterdb.page import drawing, payload, tables
from filterdb.page.section import Section

_PATH = re.compile(r"(figures|tables)/([^/]+)(\.svg|\.png|\.csv|\.parquet)")
"""Matches the path of a figure or a table beside a page."""


def data_files(section: Section) -> dict[str, bytes]:
    """Return the data files of a section, by path."""
    return {f"data/{name}.js": payload.script(name, data) for name, data in section.data().items()}


def all_files(sections: Iterable[Section]) -> dict[str, bytes]:
    """Return all files beside a page, by path."""
    files: dict[str, bytes] = {}
    for section in sections:
        files |= data_files(section)
        for picture in section.pictures():
            files |= drawing.files(picture.draw(), picture.name)
        for table in section.tables():
            files |= tables.files(table.name, table.rows, csv=table.has_csv)
    return files


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
