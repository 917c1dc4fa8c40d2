"""What the child process does with the published data set's file: say what is in it, hand out rows.

Runs in the sandbox: HDF5's own library reads what strangers have written, and has had its share of holes.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from filterdb.errors import InputError
from filterdb.models.published.hdf5 import read_published, read_rows
from filterdb.models.published.metadata import read_tables
from filterdb.models.sandbox import Channel

STEP_ROWS = 262_144
"""Rows that are read at a time."""


def serve(channel: Channel) -> None:
    """Answer one request: {"do": "describe" | "rows", "path": …, …}."""
    request = channel.receive()
    try:
        {"describe": _describe, "rows": _rows}[request["do"]](channel, request)
    except InputError as error:
        channel.send({"rejected": str(error)})


def _describe(channel: Channel, request: dict[str, Any]) -> None:
    """Models and layers, from the file itself or from the two tables that go with it."""
    if request["tables"]:
        filters_csv, models_csv = (Path(path).read_bytes() for path in request["tables"])
        found = read_tables(filters_csv, models_csv, request["tables"][0])
    else:
        found = read_published(Path(request["path"]))
    models, layers = ([asdict(one) for one in table] for table in (found.models, found.layers))
    channel.send({"models": models, "layers": layers})


def _rows(channel: Channel, request: dict[str, Any]) -> None:
    """The rows of each wanted (first, count), one after the other."""
    path = Path(request["path"])
    for first, count in request["runs"]:
        for start in range(first, first + count, STEP_ROWS):
            channel.send_array(read_rows(path, start, min(STEP_ROWS, first + count - start)))
