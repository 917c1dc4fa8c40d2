"""Small segments made into larger ones: fewer objects, fewer tasks, the same filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from filterdb import plan, schema
from filterdb.engine.partition import Partition
from filterdb.errors import ConflictError, DamageError
from filterdb.ingestion.adding import add, new_segment
from filterdb.models.model import filters_hash
from filterdb.plan import chunk_count
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Entry, Snapshot


def compact(db: AnyDatabase, *, chunk_rows: int = schema.CHUNK_ROWS) -> Database:
    """Join neighbouring segments of less than `chunk_rows` filters, each run of them into one, a commit each.

    Filters are copied, every checksum and every layer's hash looked at; models that were removed are left behind, rows
    that were replaced are written into the new tables. Earlier snapshots keep the old segments. Gives the database at
    the newest snapshot.
    """
    db = as_database(db)
    head = snapshots.existing(db.files, snapshots.latest(db.files))
    for ids in _runs(head, chunk_rows):
        newest = snapshots.existing(db.files, snapshots.latest(db.files))
        head = _join(Database(db.files, newest), ids, chunk_rows)
    return Database(db.files, head)


def _runs(state: Snapshot, chunk_rows: int) -> list[list[str]]:
    """Ids of neighbouring small segments, two and more."""
    groups = groupby(state.segments, key=lambda entry: entry.filters < chunk_rows)
    runs = [[entry.id for entry in group] for small, group in groups if small]
    return [run for run in runs if len(run) > 1]


@dataclass(frozen=True, slots=True)
class Copied:
    """A layer to copy: rows [begin, begin + size) of a segment, which become those from `start` on; and their hash."""

    segment: Segment
    begin: int
    start: int
    size: int
    hash: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Fills rows from segments."""

    layers: tuple[Copied, ...]

    def __call__(self, buffer: np.ndarray, first: int) -> None:
        """Raises DamageError where a layer is not what was committed, whole chunks exchanged included.

        A layer is read whole, also where the buffer has a part of it: the layers of small segments are small.
        """
        for layer in self.layers:
            low, high = max(layer.start, first), min(layer.start + layer.size, first + len(buffer))
            if low < high:
                buffer[low - first : high - first] = _read(layer)[low - layer.start : high - layer.start]


def _read(layer: Copied) -> np.ndarray:
    """A layer's rows (n, 9) float32."""
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


def _join(db: Database, ids: list[str], chunk_rows: int) -> Snapshot:
    wanted = [position for position, entry in enumerate(db.state.segments) if entry.id in ids]
    layers = db.all_layers.isel(layer=np.isin(db.all_layers["segment"].values, wanted))
    models = db.models.isel(model=np.isin(db.models["segment"].values, wanted))
    first_model = int(np.flatnonzero(np.isin(db.models["segment"].values, wanted))[0]) if models.sizes["model"] else 0
    names = {str(model) for model in models["model"].values}
    ledgers = [db.tables[position] for position in wanted]
    gone = {one.model for one in db.state.without if one.segment in ids} - names
    tables = {
        **{v.name: v.array(layers[v.name].values) for v in schema.LAYER_VARIABLES},
        **{v.name: v.array(models[v.name].values) for v in schema.MODEL_VARIABLES},
    }
    tables["model_index"] = tables["model_index"] - first_model
    kept = [np.array([str(model) not in gone for model in ledger["skipped_model"]], bool) for ledger in ledgers]
    for variable in schema.SKIPPED_VARIABLES:
        parts = [ledger[variable.name][keep] for ledger, keep in zip(ledgers, kept, strict=True)]
        tables[variable.name] = variable.array(np.concatenate(parts))
    made_from = {"compacted": ids, "without": sorted(gone), "labels": db.state.labels}
    segment = new_segment(db.files, tables, made_from, chunk_rows, db.state)
    starts = plan.offsets(tables["row_size"])
    stored = np.concatenate([[0], np.cumsum([entry.filters for entry in db.state.segments])])

    def filler(partition: Partition) -> Copy:
        own = range(partition.first, partition.first + len(partition.peaks))
        return Copy(
            tuple(
                Copied(
                    db.segments[int(layers["segment"].values[layer])],
                    int(layers["first_row"].values[layer] - stored[layers["segment"].values[layer]]),
                    int(starts[layer]),
                    int(tables["row_size"][layer]),
                    str(tables["hash"][layer]),
                )
                for layer in own
            )
        )

    def on_top(head: Snapshot | None, entry: Entry) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        if any(other.id == entry.id for other in head.segments):
            return None
        there = [other.id for other in head.segments]
        begin = there.index(ids[0]) if ids[0] in there else 0
        same = [one for one in head.without if one.segment in ids] == [
            one for one in db.state.without if one.segment in ids
        ]
        if there[begin : begin + len(ids)] != ids or not same or head.labels != db.state.labels:
            raise ConflictError(
                f"{db.url}: expected to compact snapshot {db.snapshot}, others changed these segments; run again"
            )
        following = (*head.segments[:begin], *([entry] if entry.models else []), *head.segments[begin + len(ids) :])
        without = tuple(one for one in head.without if one.segment not in ids)
        return replace(head.next("compact"), segments=following, without=without)

    return add(segment, tables, filler, db.state, on_top)
