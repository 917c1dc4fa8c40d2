"""Add banks of other kernel shapes to segments whose models were read for fewer shapes, as earlier versions did."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from filterdb import logs, schema
from filterdb.errors import ConflictError
from filterdb.ingestion.scanned import from_models, layers_by_bank, ledger_table
from filterdb.ingestion.segment_writer import (
    check_complete,
    check_not_collected,
    checking,
    new_addition,
    new_banks,
    sizes_of_banks,
    write_banks,
)
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan
from filterdb.models.spool import Spool
from filterdb.schema import Kernels
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database
from filterdb.store.pages import THREES, Entry
from filterdb.store.segment import Tables, with_addition
from filterdb.store.snapshot import Snapshot
from filterdb.store.tables import PACK, banks_of, create_addition

log = logging.getLogger(__name__)


def name_of(kernels: Kernels) -> str:
    """Return the text that an entry has for the kernel shapes that were read."""
    return "all" if kernels is None else ",".join(schema.kernel_name(kernel) for kernel in sorted(kernels))


@dataclass
class Widening:
    """The segments of a run whose models are read again for more kernel shapes, and their scans so far.

    `kernels` are the shapes to read of each such model, and `segments` its segment. A segment is among them if all of
    its models are sources of the run. The models of others stay as they are; `left` are theirs.
    """

    kernels: dict[str, Kernels] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    scans: dict[str, dict[str, Scan]] = field(default_factory=dict)

    @classmethod
    def of(cls, db: Database, wanted: Kernels, given: Collection[str]) -> Widening:
        """Return what to read again of a database for these shapes, if the models `given` are its sources."""
        result = cls()
        models: dict[int, list[str]] = {}
        columns = db.model_columns
        for model, position in zip(columns["model"].values, columns["segment"].values.tolist(), strict=True):
            models.setdefault(position, []).append(str(model))
        for position, names in models.items():
            entry = db.state.segments[position]
            kernels = _together(entry.kernels, wanted)
            if name_of(kernels) == entry.kernels:
                continue
            if set(names) <= set(given) and THREES in (*entry.kernels.split(","), entry.kernels):
                result.kernels |= dict.fromkeys(names, kernels)
                result.segments |= dict.fromkeys(names, entry.id)
            else:
                result.left += [name for name in names if name in given]
        return result

    def add(self, result: Scan) -> None:
        """Keep the scan of a model."""
        self.scans.setdefault(self.segments[result.source.id], {})[result.source.id] = result

    def complete(self) -> list[str]:
        """Return the segments of which every model has been scanned."""
        wanted: dict[str, set[str]] = {}
        for model, segment in self.segments.items():
            wanted.setdefault(segment, set()).add(model)
        return [segment for segment, scans in self.scans.items() if wanted[segment] == set(scans)]


def _together(stored: str, wanted: Kernels) -> Kernels:
    """Return the shapes that an entry has, and those that are wanted."""
    if wanted is None or stored == "all":
        return None
    return tuple(sorted({*wanted, *(schema.parse_kernel(name) for name in stored.split(","))}))


def widen(db: Database, segment_id: str, wider: Widening, limits: Limits, spool: Spool, chunk_rows: int) -> Database:
    """Add the banks that a segment does not have, from the scans of its models, and commit them.

    Nothing that is stored changes: earlier snapshots list the segment without these banks. Raises ConflictError if
    another writer changes the segment meanwhile.

    The banks are an addition to it, which leases and `gc` treat as a segment of its own.
    """
    position = [entry.id for entry in db.state.segments].index(segment_id)
    entry, segment = db.state.segments[position], db.segments[position]
    scans = wider.scans[segment_id]
    (kernels,) = {wider.kernels[model] for model in scans}
    tables = _tables(db, position, scans)
    addition = new_addition(segment, tables, chunk_rows, db.state)
    banks = new_banks(addition, tables, chunk_rows)
    places = {str(model): place for place, model in enumerate(db.tables[position]["model"])}
    filler = from_models(tables, {places[model]: scan for model, scan in scans.items()}, limits, spool)
    logs.event(log, "widening", url=db.url, segment=segment_id, banks=banks_of(tables))

    def build(head: Snapshot | None) -> Snapshot | None:
        check_not_collected(addition, head)
        return _with(db, head, entry, widened)

    with lease.writing(db.files, addition.id) as claim:
        with checking(claim):
            created = create_addition(segment, addition, tables, banks)
            if banks:
                write_banks(banks, tables, filler)
            check_complete(addition, created, banks)
        added = {name: bank._replace(addition=addition.id) for name, bank in sizes_of_banks(banks, tables).items()}
        widened = replace(
            entry,
            banks={**entry.banks, **added},
            kernels=name_of(kernels),
            digests=with_addition(entry.digests, addition.id, created.digests[PACK]),
            skipped=len(tables["skipped_model"]),
        )
        state = snapshots.commit(db.files, db.state, build)
    return Database(db.files, state, kept=db.kept)


def _tables(db: Database, position: int, scans: Mapping[str, Scan]) -> Tables:
    """Return the tables of an addition to a segment: the layers of new banks, its models, and its new ledger."""
    entry, own = db.state.segments[position], db.tables[position]
    models = [str(model) for model in own["model"]]
    scanned = [scans[model] for model in models if model in scans]
    layers = layers_by_bank(scanned, [place for place, model in enumerate(models) if model in scans])
    known = {"", *entry.banks}
    tables = {name: values for name, values in layers.items() if name.rpartition("/")[0] not in known}
    names = [variable.name for variable in schema.SKIPPED_VARIABLES]
    rows = [row for row in zip(*(map(str, own[name]) for name in names), strict=True) if row[0] not in scans]
    rows += [(scan.source.id, skip.layer, skip.code, skip.reason) for scan in scanned for skip in scan.skipped]
    return {**tables, "model": own["model"], **ledger_table(rows)}


def _with(db: Database, head: Snapshot | None, entry: Entry, wider: Entry) -> Snapshot | None:
    """Return the snapshot that lists a wider segment in the place of the one that the database has."""
    head = snapshots.existing(db.files, head)
    if wider in head.segments:
        return None
    if entry not in head.segments:
        raise ConflictError(
            f"{db.url}: expected segment {entry.id} as in snapshot {db.snapshot} to add kernel shapes to it, but "
            "another writer changed it; run again"
        )
    return head.next("ingest", segments=tuple(wider if other == entry else other for other in head.segments))
