"""Compaction: join small segments, so that there are fewer objects and tasks for the same filters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

import numpy as np

from filterdb import plan, schema
from filterdb.engine.partition import Partition
from filterdb.errors import ConflictError, DamageError, FilterDBError
from filterdb.ingestion.segment_writer import commit_segment, new_segment
from filterdb.models.model import filters_hash
from filterdb.plan import chunk_count
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.pages import Entry
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Snapshot

log = logging.getLogger(__name__)


def compact(db: AnyDatabase, *, chunk_rows: int = schema.CHUNK_ROWS) -> Database:
    """Join each run of neighbouring segments with fewer than `chunk_rows` filters into one segment.

    Each new segment is a commit of its own. Filters are copied, and every checksum and every layer's hash is verified.
    Removed models are not copied, and replaced catalog rows are written into the new tables. Earlier snapshots keep the
    old segments.

    Parameters
    ----------
    db
        The database, or its path or URL. The newest snapshot is compacted.
    chunk_rows
        Filters in a chunk of the new segments. Smaller segments are joined.

    Returns
    -------
    Database
        The database at the newest snapshot.

    Raises
    ------
    ConflictError
        If another writer changes these segments in the meantime.
    DamageError
        If a segment to copy is damaged.

    Examples
    --------
    >>> db = fdb.compact("db")  # doctest: +SKIP
    """
    db = as_database(db)
    head = snapshots.existing(db.files, snapshots.latest(db.files))
    for ids in _runs(head, chunk_rows):
        newest = snapshots.existing(db.files, snapshots.latest(db.files))
        head = join_segments(Database(db.files, newest), ids, chunk_rows)
    return Database(db.files, head)


COMPACT_FROM = 16
"""Neighbouring small segments of a like size that an ingest joins."""


def compact_newest(db: Database, chunk_rows: int = schema.CHUNK_ROWS) -> Database:
    """Join the last segments of the newest snapshot if many are small, so that their number grows like a logarithm.

    Segments with up to COMPACT_FROM ** k models are joined when there are COMPACT_FROM of them in a row, unless one has
    more than half of their models, so a filter is copied about log(models) times. Segments of at least `chunk_rows`
    filters are left alone, so the copies are small. Return the database at the newest snapshot, unchanged if there is
    nothing to do or if another writer was faster. Any other failure is a warning: it follows a commit that succeeded.
    """
    try:
        while ids := _last_run(db.state, chunk_rows):
            db = Database(db.files, join_segments(db, ids, chunk_rows))
    except ConflictError as error:
        log.info("not compacted: %s", error)
    except FilterDBError as error:
        log.warning("the models are committed, but their segments were not compacted: %s", error)
    return db


def _last_run(state: Snapshot, chunk_rows: int) -> list[str]:
    """Return the ids of the last segments to join, or an empty list."""
    small = list(takewhile(lambda entry: entry.filters < chunk_rows, reversed(state.segments)))
    limit = 1
    while limit <= COMPACT_FROM * max((entry.models for entry in small), default=0):
        run = list(takewhile(lambda entry: entry.models <= limit, small))  # noqa: B023
        sizes = [entry.models for entry in run]
        if len(run) >= COMPACT_FROM and 2 * max(sizes) <= sum(sizes):
            return [entry.id for entry in reversed(run)]
        limit *= COMPACT_FROM
    return []


def _runs(state: Snapshot, chunk_rows: int) -> list[list[str]]:
    """Return the ids of each run of two or more neighbouring small segments."""
    groups = groupby(state.segments, key=lambda entry: entry.filters < chunk_rows)
    runs = [[entry.id for entry in group] for small, group in groups if small]
    return [run for run in runs if len(run) > 1]


@dataclass(frozen=True, slots=True)
class Copied:
    """A layer to copy, with its hash: rows [begin, begin + size) of a segment become [start, start + size)."""

    segment: Segment
    begin: int
    start: int
    size: int
    hash: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Fills rows with layers that are copied from segments."""

    layers: tuple[Copied, ...]

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        """Fill the buffer. Raises DamageError if a layer differs from what was committed, e.g. by exchanged chunks.

        A layer is always read whole, even if the buffer holds only a part. Layers of small segments are small.
        """
        for layer in self.layers:
            low, high = max(layer.start, first), min(layer.start + layer.size, first + len(buffer))
            if low < high:
                buffer[low - first : high - first] = _read(layer)[low - layer.start : high - layer.start]


def _read(layer: Copied) -> np.ndarray:
    """Read a layer's rows, (n, 9) float32. Raises DamageError if they do not have the layer's hash."""
    segment, end = layer.segment, layer.begin + layer.size
    rows = np.empty((layer.size, schema.WEIGHTS), np.float32)
    for chunk in range(layer.begin // segment.chunk_rows, chunk_count(end, segment.chunk_rows)):
        start, stop = segment.bounds(chunk)
        low, high = max(start, layer.begin), min(stop, end)
        rows[low - layer.begin : high - layer.begin] = segment.read_columns(chunk)[:, low - start : high - start].T
    if filters_hash(rows) != layer.hash:
        raise DamageError(
            f"{segment.files.url(segment.name)}: expected the layer of rows {layer.begin} to {end} with SHA-256 "
            f"{layer.hash[:16]}…, got others; restore the segment from a copy"
        )
    return rows


def join_segments(db: Database, ids: list[str], chunk_rows: int = schema.CHUNK_ROWS) -> Snapshot:
    """Copy consecutive segments into one, without their removed models, and commit it. Raises ConflictError."""
    wanted = [position for position, entry in enumerate(db.state.segments) if entry.id in ids]
    layers = db.all_layer_columns.isel(layer=np.isin(db.all_layer_columns["segment"].values, wanted))
    is_wanted = np.isin(db.model_columns["segment"].values, wanted)
    models = db.model_columns.isel(model=is_wanted)
    first_model = int(np.flatnonzero(is_wanted)[0]) if models.sizes["model"] else 0
    names = {str(model) for model in models["model"].values}
    ledgers = [db.tables[position] for position in wanted]
    removed_models = {removed.model for removed in db.state.without if removed.segment in ids} - names
    tables = {
        **{v.name: v.array(layers[v.name].values) for v in schema.LAYER_VARIABLES},
        **{v.name: v.array(models[v.name].values) for v in schema.MODEL_VARIABLES},
    }
    tables["model_index"] = tables["model_index"] - first_model
    kept = [
        np.array([str(model) not in removed_models for model in ledger["skipped_model"]], bool) for ledger in ledgers
    ]
    for variable in schema.SKIPPED_VARIABLES:
        parts = [ledger[variable.name][keep] for ledger, keep in zip(ledgers, kept, strict=True)]
        tables[variable.name] = variable.array(np.concatenate(parts))
    made_from = {"compacted": ids, "without": sorted(removed_models), "labels": db.state.labels}
    segment = new_segment(db.files, tables, made_from, chunk_rows, db.state)
    starts = plan.offsets(tables["row_size"])
    stored = np.concatenate([[0], np.cumsum([entry.filters for entry in db.state.segments])])

    def filler(partition: Partition) -> Copy:
        own_layers = range(partition.first, partition.first + len(partition.peaks))
        return Copy(
            tuple(
                Copied(
                    db.segments[int(layers["segment"].values[layer])],
                    int(layers["first_row"].values[layer] - stored[layers["segment"].values[layer]]),
                    int(starts[layer]),
                    int(tables["row_size"][layer]),
                    str(tables["hash"][layer]),
                )
                for layer in own_layers
            )
        )

    def build_snapshot(head: Snapshot | None, entry: Entry) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        if any(other.id == entry.id for other in head.segments):
            return None
        listed = [other.id for other in head.segments]
        begin = listed.index(ids[0]) if ids[0] in listed else 0
        removed_then, removed_now = (
            [removed for removed in state.without if removed.segment in ids] for state in (db.state, head)
        )
        if listed[begin : begin + len(ids)] != ids or removed_now != removed_then or head.labels != db.state.labels:
            raise ConflictError(
                f"{db.url}: expected to compact snapshot {db.snapshot}, others changed these segments; run again"
            )
        following = (*head.segments[:begin], *([entry] if entry.models else []), *head.segments[begin + len(ids) :])
        without = tuple(removed for removed in head.without if removed.segment not in ids)
        return replace(head.next("compact"), segments=following, without=without)

    return commit_segment(segment, tables, filler, db.state, build_snapshot)
