"""Serve requests about the published data set's file in a child process: describe it, measure layers, send rows.

This module runs in the sandbox, because the HDF5 library, which has a history of vulnerabilities, parses untrusted
data here.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.errors import InputError
from filterdb.models.model import filters_hash
from filterdb.models.published.hdf5 import opened_filters, read_published
from filterdb.models.published.metadata import read_tables
from filterdb.models.sandbox import Channel
from filterdb.numerics.fingerprint import fingerprint
from filterdb.numerics.layer import largest_weight
from filterdb.numerics.quality import orthogonality
from filterdb.schema import WEIGHTS

STEP_ROWS = 262_144
"""Rows that are read and sent at a time."""


def serve(channel: Channel) -> None:
    """Answer one request: {"do": "describe" | "scan" | "rows", "path": …, …}."""
    request = channel.receive()
    try:
        {"describe": _describe, "scan": _scan, "rows": _rows}[request["do"]](channel, request)
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
    with opened_filters(Path(request["path"])) as filters:
        channel.send({"models": models, "layers": layers, "offset": filters.offset()})


def _scan(channel: Channel, request: dict[str, Any]) -> None:
    """Send hash, fingerprint, peak, orthogonality and whether all weights are finite, of each layer of the request.

    A layer is [its runs, its output channels]. One whole layer is in memory at a time.
    """
    scans = []
    buffer = np.empty((max(sum(count for _, count in runs) for runs, _ in request["layers"]), WEIGHTS), np.float32)
    with opened_filters(Path(request["path"])) as filters:
        for runs, out_channels in request["layers"]:
            end = 0
            for first, count in runs:
                filters.read_into(first, buffer[end : end + count])
                end += count
            scans.append(_measured(buffer[:end], out_channels))
    channel.send({"scans": scans})


def _measured(filters: np.ndarray, out_channels: int) -> list[Any]:
    peak = largest_weight(filters)
    finite = math.isfinite(peak)
    whole = finite and out_channels > 0 and len(filters) % out_channels == 0
    return [
        filters_hash(filters),
        fingerprint(filters, out_channels) if whole else "",
        peak if finite else math.nan,
        orthogonality(filters, out_channels) if whole else math.nan,
        finite,
    ]


def _rows(channel: Channel, request: dict[str, Any]) -> None:
    """Send the rows of each (first, count) of the request, one run after the other."""
    with opened_filters(Path(request["path"])) as filters:
        for first, count in request["runs"]:
            for start in range(first, first + count, STEP_ROWS):
                channel.send_array(filters.read(start, min(STEP_ROWS, first + count - start)))
