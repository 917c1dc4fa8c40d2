"""Make the files beside a page: the data of its figures, the figures and the tables, all or a single one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from filterdb.page import drawing, payload, tables
from filterdb.page.section import Section

_PATH = re.compile(r"(data|figures|tables)/([^/]+)(\.js|\.svg|\.png|\.csv|\.parquet)")
"""Matches the path of a file beside a page."""


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


def files_with(sections: Iterable[Section], path: str) -> dict[str, bytes]:
    """Return the file beside a page with this path and those that are made with it; none if there is no such file.

    Of all figures and tables, only the one that is asked for is made. Data files are made for one section at a time.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return {}
    kind, name, suffix = match.groups()
    for section in sections:
        files = {"data": _data, "figures": _figure, "tables": _table}[kind](section, name, suffix)
        if path in files:
            return files
    return {}


def _data(section: Section, name: str, suffix: str) -> dict[str, bytes]:
    del name, suffix
    return data_files(section)


def _figure(section: Section, name: str, suffix: str) -> dict[str, bytes]:
    for picture in section.pictures():
        if picture.name == name and suffix in {".svg", ".png"}:
            return drawing.files(picture.draw(), name)
    return {}


def _table(section: Section, name: str, suffix: str) -> dict[str, bytes]:
    for table in section.tables():
        if table.name == name and suffix in {".csv", ".parquet"}:
            return tables.files(name, table.rows, csv=table.has_csv)
    return {}
