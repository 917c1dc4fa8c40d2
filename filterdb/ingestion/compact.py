"""Compaction: join small segments, so that there are fewer objects and tasks for the same filters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, takewhile

import numpy as np

from filterdb import plan, schema
from filterdb.columns import Columns
from filterdb.engine.partition import Partition
from filterdb.errors import ConflictError, DamageError, FilterDBError
from filterdb.ingestion.segment_writer import FillRows, commit_segment, new_banks, new_segment
from filterdb.models.model import filters_hash
from filterdb.plan import chunk_count
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.pages import THREES, Entry
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Removed, Snapshot
from filterdb.store.tables import of_bank

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
    last = state.segments[-1:]
    small = list(takewhile(lambda entry: _joins(entry, last[0], chunk_rows), reversed(state.segments)))
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
    groups = groupby(state.segments, key=lambda entry: (_is_small(entry, chunk_rows), entry.kernels))
    runs = [[entry.id for entry in group] for (small, _), group in groups if small]
    return [run for run in runs if len(run) > 1]


def _is_small(entry: Entry, chunk_rows: int) -> bool:
    """Return whether the filters of a segment and its banks take less room than a chunk of 3×3 filters."""
    kernels = [schema.parse_kernel(name) for name in entry.banks if name != schema.OTHER]
    weights = sum(entry.banks[schema.kernel_name(kernel)].filters * kernel[0] * kernel[1] for kernel in kernels)
    return entry.filters * schema.WEIGHTS + weights < chunk_rows * schema.WEIGHTS


def _joins(entry: Entry, other: Entry, chunk_rows: int) -> bool:
    """Return whether a segment is small, and was read for the same kernel shapes as another."""
    return _is_small(entry, chunk_rows) and entry.kernels == other.kernels


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
    """Read a layer's rows, (n, weights) float32. Raises DamageError if they do not have the layer's hash."""
    segment, end = layer.segment, layer.begin + layer.size
    rows = np.empty((layer.size, segment.weights), np.float32)
    for chunk in range(layer.begin // segment.chunk_rows, chunk_count(end, segment.chunk_rows)):
        start, stop = segment.bounds(chunk)
        low, high = max(start, layer.begin), min(stop, end)
        rows[low - layer.begin : high - layer.begin] = segment.read_columns(chunk)[:, low - start : high - start].T
    if filters_hash(rows) != layer.hash:
        raise DamageError(
            f"{segment.files.url(segment.name)}: rows {layer.begin:,} to {end - 1:,} do not have SHA-256 "
            f"{layer.hash[:16]}…; restore the segment from a backup"
        )
    return rows


def join_segments(db: Database, ids: list[str], chunk_rows: int = schema.CHUNK_ROWS) -> Snapshot:
    """Copy consecutive segments into one, without their removed models, and commit it. Raises ConflictError."""
    db = db.root
    wanted = [position for position, entry in enumerate(db.state.segments) if entry.id in ids]
    tables = _tables_of(db, wanted)
    names = set(map(str, tables["model"]))
    removed_models = {removed.model for removed in db.state.without if removed.segment in ids} - names
    ledgers = [db.tables[position] for position in wanted]
    kept = [
        np.array([str(model) not in removed_models for model in ledger["skipped_model"]], bool) for ledger in ledgers
    ]
    for variable in schema.SKIPPED_VARIABLES:
        parts = [ledger[variable.name][keep] for ledger, keep in zip(ledgers, kept, strict=True)]
        tables[variable.name] = variable.array(np.concatenate(parts))
    made_from = {"compacted": ids, "without": sorted(removed_models), "labels": db.state.labels}
    segment = new_segment(db.files, tables, made_from, chunk_rows, db.state)

    def build_snapshot(head: Snapshot | None, entry: Entry) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        if any(other.id == entry.id for other in head.segments):
            return None
        listed = [other.id for other in head.segments]
        begin = listed.index(ids[0]) if ids[0] in listed else 0
        of_then, of_now = (
            [_changing(state, other) for other in state.segments if other.id in ids] for state in (db.state, head)
        )
        if listed[begin : begin + len(ids)] != ids or of_now != of_then or head.labels != db.state.labels:
            raise ConflictError(
                f"{db.url}: expected to compact snapshot {db.snapshot}, but another writer changed these segments; "
                "run again"
            )
        following = (*head.segments[:begin], *([entry] if entry.models else []), *head.segments[begin + len(ids) :])
        without = tuple(removed for removed in head.without if removed.segment not in ids)
        return replace(head.next("compact"), segments=following, without=without)

    return commit_segment(
        segment,
        tables,
        _filler(db, wanted, tables),
        db.state,
        build_snapshot,
        banks=new_banks(segment, tables, chunk_rows),
        kernels=db.state.segments[wanted[0]].kernels,
    )


def _changing(state: Snapshot, entry: Entry) -> tuple[Entry, list[Removed]]:
    """Return what a snapshot may change of a segment."""
    return entry, [removed for removed in state.without if removed.segment == entry.id]


def _tables_of(db: Database, wanted: list[int]) -> dict[str, np.ndarray]:
    """Return the tables of the snapshot's models in some segments, and of their layers in every bank."""
    is_wanted = np.isin(db.model_columns["segment"].values, wanted)
    models = db.model_columns.isel(model=is_wanted)
    first_model = int(np.flatnonzero(is_wanted)[0]) if models.sizes["model"] else 0
    tables = {v.name: v.array(models[v.name].values) for v in schema.MODEL_VARIABLES}
    for bank, columns in _banks(db, wanted).items():
        layers = columns.isel(layer=np.isin(columns["segment"].values, wanted))
        if bank != THREES and not layers.sizes["layer"]:
            continue  # only removed models had such filters
        for variable in schema.variables_of(bank):
            tables[schema.in_pack(bank, variable.name)] = variable.array(layers[variable.name].values)
        tables[schema.in_pack(bank, "model_index")] = tables[schema.in_pack(bank, "model_index")] - first_model
    return tables


def _banks(db: Database, wanted: list[int]) -> dict[str, Columns]:
    """Return the layers of the snapshot in every bank that some segments have."""
    names = dict.fromkeys(name for position in wanted for name in db.state.segments[position].banks)
    banks = {THREES: db.all_layer_columns}
    for name in names:
        banks[name] = db.other_columns if name == schema.OTHER else db.bank(name).all_layer_columns
    return banks


def _filler(db: Database, wanted: list[int], tables: dict[str, np.ndarray]) -> FillRows:
    """Return what fills the rows of a partition: copies of the layers that the wanted segments have."""

    @cache
    def copied(kernel: schema.Kernel) -> list[Copied]:
        """Return the layers of a bank of the new segment, as copies."""
        bank = db.bank(kernel)
        columns = bank.all_layer_columns
        layers = columns.isel(layer=np.isin(columns["segment"].values, wanted))
        segments = layers["segment"].values
        first_rows = np.concatenate([[0], np.cumsum([entry.filters for entry in bank.entries])])
        own = of_bank(tables, schema.kernel_name(kernel))
        return [
            Copied(bank.segments[segment], begin, start, size, str(sha256))
            for segment, begin, start, size, sha256 in zip(
                segments.tolist(),
                (layers["first_row"].values - first_rows[segments]).tolist(),
                plan.offsets(own["row_size"]).tolist()[:-1],
                own["row_size"].tolist(),
                own["hash"],
                strict=True,
            )
        ]

    def filler(partition: Partition) -> Copy:
        own_layers = slice(partition.first, partition.first + len(partition.peaks))
        return Copy(tuple(copied(partition.segment.kernel)[own_layers]))

    return filler
