"""What filterdb reads of all files, once per run; the table of it at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters.reading import File, read, table

DATA = Path(os.environ.get("EXPORTERS_DATA", Path(__file__).parent.parent / ".exporters-data"))
FOLDERS = ("files", "packages")

TABLES = pytest.StashKey[list[str]]()


def files_of(folder: str) -> list[str]:
    """Return the names of the files in a folder of the data that have a truth."""
    return sorted(path.stem for path in (DATA / folder).glob("*.json") if path.name != "failures.json")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every file."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize(("folder", "name"), [(f, name) for f in FOLDERS for name in files_of(f)])


@pytest.fixture(scope="session")
def readings(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, dict[str, File]]]:
    """What filterdb says of each file, by folder and name."""
    base = tmp_path_factory.mktemp("exporters")
    readings = {folder: read(DATA / folder, base / folder) for folder in FOLDERS}
    yield readings
    request.config.stash[TABLES] = [table(files)[0] for files in readings.values()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables."""
    for text in terminalreporter.config.stash.get(TABLES, []):
        terminalreporter.write_line("")
        terminalreporter.write_line(text)
