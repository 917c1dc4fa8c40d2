"""The ingest: what is new becomes one segment and one commit."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from filterdb import cluster, plan, schema
from filterdb.errors import ConflictError, InputError, UsageError
from filterdb.extract.catalog import ModelSource, check_unique, parse_catalog, without_secrets
from filterdb.ingest.scan import Scan, scan
from filterdb.ingest.write import TAKEN, FromModels, Piece, write_partition
from filterdb.reduce import passes
from filterdb.reduce.passes import Part
from filterdb.store import segment as segments
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database
from filterdb.store.files import Files, expand, is_remote, local_path, read_input
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Entry, Snapshot, canonical

EXTRACTION = 1
"""Version of what is read from a model. Part of a segment's id: another reading gives another segment."""

Sources = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did. `segment` is None where there was nothing new."""

    database: Database
    segment: str | None
    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def duplicates(self) -> list[str]:
        """Added models whose content the database has under another name as well."""
        models = self.database.models
        named = zip(models["model"].values.astype(str), models["duplicate_of"].values.astype(str), strict=True)
        of = dict(named)
        return [model for model in self.added if of.get(model)]


def ingest(
    url: str | os.PathLike[str],
    sources: Sources = (),
    *,
    catalog: str | os.PathLike[str] | None = None,
    chunk_rows: int = schema.CHUNK_ROWS,
) -> Ingested:
    """Read ONNX models into the database at `url`, on Dask; what is new becomes one segment, in one commit.

    `sources`: ONNX files, folders, globs, URLs; without any, every row of the catalog (CSV or Parquet). A model that
    the snapshot has with the same content and the same catalog row is left out; a file that is no readable model is
    rejected with its reason and the rest goes on. `chunk_rows`: filters in a chunk of the new segment.

    Raises InputError for sources that cannot be used and for a model id that stands for something else already,
    StoreError where the store fails.
    """
    files = Files.at(url)
    found = find_sources(sources, catalog)
    base = snapshots.latest(files)
    old = None if base is None else Database(files, base)
    known = {} if old is None else _known(old)
    # Fresh names: a cluster must not answer with what it read of a file before.
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(f"scan-{token}-{position}", partial(scan, source, known.get(source.id, {}).get("file_hash")))
        for position, source in enumerate(found)
    ]
    scans: list[Scan] = cluster.run(tasks, "scan")
    rejected = {result.source.id: result.rejected for result in scans if result.rejected is not None}
    listed = set() if old is None else _rejections(old)
    unlisted = {model: reason for model, reason in rejected.items() if (model, reason) not in listed}
    present = [result.source.id for result in scans if not result.rejected and _is_present(result, known)]
    new = [result for result in scans if not result.rejected and result.source.id not in present]
    if not new:
        if old is None or not present:
            raise InputError(next(iter(rejected.values())))
        return Ingested(old, None, [], present, rejected)
    segment, tables = build_segment(files, new, unlisted, known, chunk_rows)
    digests = segments.create(segment, tables)
    for reduction, part in zip(TAKEN, write(segment, tables, new), strict=True):
        passes.store(segment, tables, reduction, part)
    entry = Entry(
        id=segment.id,
        filters=segment.rows,
        layers=len(tables["row_size"]),
        models=len(new),
        skipped=len(tables["skipped_model"]),
        chunk_rows=segment.chunk_rows,
        digests=digests,
    )
    added = [result.source.id for result in new]
    committed = snapshots.commit(files, base, lambda head: _on_top(files, head, entry, added))
    return Ingested(Database(files, committed), segment.id, added, present, rejected)


def find_sources(sources: Sources, catalog: str | os.PathLike[str] | None) -> list[ModelSource]:
    """The models that sources and catalog name, in catalog order, then in the order of the sources."""
    rows: list[ModelSource] = []
    if not sources and catalog is None:
        raise UsageError("ingest: expected sources or a catalog, got neither")
    if catalog is not None:
        place = local_path(os.fspath(catalog))
        rows = [replace(row, url=_absolute(row.url)) for row in parse_catalog(read_input(place), place)]
        for row in rows:
            if not is_remote(row.url) and not Path(row.url).is_file():
                raise InputError(
                    f"{os.fspath(catalog or '')}: model {row.id!r}: expected a file at {row.url}, found none"
                )
    if not sources:
        return rows
    by_place = {_place(row.url): (position, row) for position, row in enumerate(rows)}
    listed: dict[str, tuple[int, ModelSource]] = {}
    for source in sources:
        for name in expand(os.fspath(source)):
            place = _place(name)
            listed.setdefault(place, by_place.get(place, (len(rows), ModelSource(_as_id(name), _absolute(name)))))
    found = [source for _, source in sorted(listed.values(), key=lambda item: item[0])]
    check_unique(found, "ingest")
    return found


def _absolute(url: str) -> str:
    """Where workers find it, whatever folder they run in."""
    url = local_path(url)
    return url if is_remote(url) else str(Path(url).absolute())


def _place(url: str) -> str:
    return url if is_remote(url) else str(Path(url).resolve())


def _as_id(name: str) -> str:
    return without_secrets(name if is_remote(name) else Path(name).as_posix())


def _rejections(db: Database) -> set[tuple[str, str]]:
    """What the snapshot's ledger has of files that are no models: id and reason."""
    ledger = db.skipped
    rows = zip(*(ledger[f"skipped_{name}"].values.astype(str) for name in ("model", "code", "reason")), strict=True)
    return {(model, reason) for model, code, reason in rows if code == schema.REJECTED}


def _known(db: Database) -> dict[str, dict[str, Any]]:
    """The snapshot's models: id → file hash and catalog row."""
    models = db.models
    names = ["file_hash", "extra", *schema.LABELS]
    columns = {name: models[name].values for name in names}
    return {
        str(model): {name: str(columns[name][i]) for name in names} for i, model in enumerate(models["model"].values)
    }


def _is_present(result: Scan, known: dict[str, dict[str, Any]]) -> bool:
    """Whether the snapshot has this model already. Raises InputError where its id stands for something else."""
    source = result.source
    stored = known.get(source.id)
    if stored is None:
        return False
    if stored["file_hash"] != result.file_hash:
        raise InputError(
            f"model {source.id!r}: expected the content that is stored under this name ({stored['file_hash'][:12]}…), "
            f"got other content ({result.file_hash[:12]}…) from {source.shown}; give it another `name` in the catalog"
        )
    row = {**source.labels, "extra": source.extra_json}
    changed = [name for name, value in row.items() if stored[name] != value]
    if source.has_row and changed:
        name = changed[0]
        raise InputError(
            f"model {source.id!r}: expected its stored catalog row, got {name} = {row[name]!r} instead of "
            f"{stored[name]!r}; labels of stored models cannot be changed yet, ingest into a new database"
        )
    return True


def build_segment(
    files: Files, new: list[Scan], rejected: dict[str, str], known: dict[str, dict[str, Any]], chunk_rows: int
) -> tuple[Segment, dict[str, np.ndarray]]:
    """The segment of the new models and its tables. Its id is the hash of all that it is made from."""
    rows = [row | {"model_index": index} for index, result in enumerate(new) for row in result.rows]
    total = sum(row["row_size"] for row in rows)
    size = plan.chunk_rows(total, chunk_rows)
    made_from: dict[str, Any] = {
        "format": schema.FORMAT,
        "extraction": EXTRACTION,
        "chunk_rows": size,
        "models": [[r.source.id, r.file_hash, dict(r.source.labels), dict(r.source.extra)] for r in new],
        "rejected": rejected,
    }
    first_with = {row["file_hash"]: model for model, row in reversed(known.items())}
    models = []
    for result in new:
        source = result.source
        duplicate_of = first_with.setdefault(result.file_hash, source.id)
        models.append(
            {
                "model": source.id,
                "file_hash": result.file_hash,
                "duplicate_of": "" if duplicate_of == source.id else duplicate_of,
                **source.labels,
                "extra": source.extra_json,
                **result.facts,
            }
        )
    ledger = [(r.source.id, skip.layer, skip.code, skip.reason) for r in new for skip in r.skipped]
    ledger += [(model, "", schema.REJECTED, reason) for model, reason in rejected.items()]
    skipped = [dict(zip((v.name for v in schema.SKIPPED_VARIABLES), entry, strict=True)) for entry in ledger]
    tables = {
        variable.name: variable.array([row[variable.name] for row in table])
        for kinds, table in (
            (schema.LAYER_VARIABLES, rows),
            (schema.MODEL_VARIABLES, models),
            (schema.SKIPPED_VARIABLES, skipped),
        )
        for variable in kinds
    }
    # The tables are part of the name: whoever reads a model differently, in the last digit of a table or in the words
    # of a reason, makes another segment and never writes over this one.
    made_from["tables"] = segments.tables_digest(tables)
    return Segment(files, hashlib.sha256(canonical(made_from)).hexdigest()[:20], total, size), tables


def write(segment: Segment, tables: dict[str, np.ndarray], new: list[Scan]) -> list[Part]:
    """Write every chunk, a task per partition; gives the segment's moments."""
    resume = bool(segment.files.list(f"{segment.name}/{schema.FILTERS.name}/c"))
    token = uuid.uuid4().hex[:8]
    bounds = plan.offsets(tables["row_size"])
    checksums = [checksum for result in new for checksum in result.checksums]
    tasks = []
    for partition in passes.partitions(segment, tables):
        layers = range(partition.first, partition.first + len(partition.peaks))
        pieces = []
        for index, group in groupby(layers, key=lambda layer: int(tables["model_index"][layer])):
            own = list(group)
            names = tuple(str(tables["layer_name"][layer]) for layer in own)
            starts = tuple(int(bounds[layer]) for layer in own)
            pieces.append(Piece(new[index].source, names, tuple(checksums[layer] for layer in own), starts))
        key = f"write-{token}-{partition.chunks[0]}"
        work = partial(write_partition, partition, FromModels(tuple(pieces)), resume=resume)
        tasks.append(cluster.task(key, work))
    (parts,) = cluster.run([passes.merge_tree(tasks, TAKEN, f"write-{token}")], "write")
    return list(parts)


def _on_top(files: Files, head: Snapshot | None, entry: Entry, added: list[str]) -> Snapshot | None:
    """The snapshot that adds the segment to `head`; None where it is in it. Raises ConflictError."""
    if head is None:
        return snapshots.new("ingest", segments=(entry,))
    if any(other.id == entry.id for other in head.segments):
        return None
    taken = set(map(str, Database(files, head).models["model"].values)) & set(added)
    if taken:
        raise ConflictError(
            f"{files.root}: expected to add {len(added)} models, but another ingest committed {sorted(taken)[0]!r} "
            "meanwhile; run again"
        )
    following = head.next("ingest")
    return replace(following, segments=(*head.segments, entry))
