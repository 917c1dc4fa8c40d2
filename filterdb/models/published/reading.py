"""Serve requests about the published data set's file in a child process: describe it, and send rows.

This module runs in the sandbox, because the HDF5 library, which has a history of vulnerabilities, parses untrusted
data here.
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
"""Rows that are read and sent at a time."""


def serve(channel: Channel) -> None:
    """Answer one request: {"do": "describe" | "rows", "path": …, …}."""
    request = channel.receive()
    try:
        {"describe": _describe, "rows": _rows}[request["do"]](channel, request)
    except InputError as error:
        channel.send({"rejected": str(error)})


def _describe(channel: Channel, request: dict[str, Any]) -> None:
    """Send models and layers, read from the file itself or from the two CSV tables of the request."""
    if request["tables"]:
        filters_csv, models_csv = (Path(path).read_bytes() for path in request["tables"])
        published = read_tables(filters_csv, models_csv, request["tables"][0])
    else:
        published = read_published(Path(request["path"]))
    models = [asdict(model) for model in published.models]
    layers = [asdict(layer) for layer in published.layers]
    channel.send({"models": models, "layers": layers})


def _rows(channel: Channel, request: dict[str, Any]) -> None:
    """Send the rows of each (first, count) of the request, one run after the other."""
    path = Path(request["path"])
    for first, count in request["runs"]:
        for start in range(first, first + count, STEP_ROWS):
            channel.send_array(read_rows(path, start, min(STEP_ROWS, first + count - start)))
