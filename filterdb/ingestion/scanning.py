"""Scan the models of an ingest on Dask."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filterdb import cluster
from filterdb.cluster import Work
from filterdb.ingestion.source_records import SourceRecords
from filterdb.models.catalog import ModelSource
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan, scan
from filterdb.models.spool import MAX_BYTES, Spool
from filterdb.schema import Kernels
from filterdb.store.remote import is_remote

_REMOTE_BYTES = 2**27
"""Bytes that a remote model is assumed to have."""

_SHARE_OF_MEMORY = 8
"""The part of the machine's memory, or of the container's, that the filters of scanned models may take."""


def new_spool() -> Spool:
    """Return a spool of MAX_BYTES, or less on a machine with little memory."""
    return Spool(min(MAX_BYTES, cluster.total_memory() // _SHARE_OF_MEMORY))


def scan_models(
    models: Sequence[tuple[ModelSource, Kernels]],
    known: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    records: SourceRecords,
    spool: Spool,
) -> list[Scan]:
    """Return the scan of each model, for some kernel shapes.

    `known` has the file hash of those that the store has, by id.
    """
    # New task names, so that a cluster does not return the result of an earlier scan.
    token = uuid.uuid4().hex[:8]
    tasks = []
    for position, (source, kernels) in enumerate(models):
        known_hash = known.get(source.id, {}).get("file_hash")
        work = partial(scan, source, known_hash, limits, records.of(source, known_hash), spool, kernels=kernels)
        tasks.append(cluster.task(f"scan-{token}-{position}", work))
    return cluster.run(tasks, "scan", work=_work([source for source, _ in models]))


def _work(models: Sequence[ModelSource]) -> Work:
    """Return how much a scan of the models reads. The size of a remote file is not asked for."""
    nbytes = 0
    for model in models:
        with suppress(OSError, ValueError):
            nbytes += _REMOTE_BYTES if is_remote(model.url) else Path(model.url).stat().st_size
    return Work(nbytes, any(is_remote(model.url) for model in models))
