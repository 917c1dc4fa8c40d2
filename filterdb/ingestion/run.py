"""Ingest models: all new models become one segment in one commit."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb import cluster, logs, plan, schema
from filterdb.arguments import as_path
from filterdb.engine.partition import Partition
from filterdb.errors import ConflictError, InputError, UsageError
from filterdb.ingestion.duplicates import duplicates
from filterdb.ingestion.segment_writer import FillRows, commit_segment, new_segment, stack
from filterdb.ingestion.write import FromModels, Piece
from filterdb.models.catalog import ModelSource, check_unique, parse_catalog
from filterdb.models.inputs import expand, is_absent, read_input
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan, scan
from filterdb.models.sources import NamedFile, as_id, as_order, as_sources, on_disk
from filterdb.redaction import redact_url
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_url
from filterdb.store.files import Files, local_path
from filterdb.store.remote import is_remote
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Entry, Snapshot

if TYPE_CHECKING:
    from filterdb.models.sources import Order, Sources

log = logging.getLogger(__name__)

EXTRACTION = 2
"""Version of what is read from a model. It is part of a segment's id, since another version makes other segments."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of an ingest.

    `segment` is the id of the new segment, or None if nothing was new. `added` and `present` are ids of models;
    `rejected` has the reason for each rejected file.
    """

    database: Database
    segment: str | None
    added: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def duplicates(self) -> list[str]:
        """Added models whose content the database also has under another name."""
        models = self.database.models
        duplicate_of = dict(
            zip(models["model"].values.astype(str), models["duplicate_of"].values.astype(str), strict=True)
        )
        return [model for model in self.added if duplicate_of.get(model)]

    @property
    def unread(self) -> list[tuple[str, str, str]]:
        """Model, layer and reason of each convolution of these models that should have been read but could not be."""
        ledger, models = self.database.unread, {*self.added, *self.present}
        columns = (ledger[f"skipped_{name}"].values.astype(str).tolist() for name in ("model", "layer", "reason"))
        return [row for row in zip(*columns, strict=True) if row[0] in models]


def ingest(
    url: AnyDatabase,
    sources: Sources = (),
    *,
    catalog: str | os.PathLike[str] | None = None,
    chunk_rows: int = schema.CHUNK_ROWS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
) -> Ingested:
    """Read models into a database, on Dask. All new models become one segment in one commit.

    A model is skipped if the newest snapshot has it with the same content and catalog row. A file is rejected, with a
    reason, if it is not a readable model or exceeds `limits`; the other files are ingested nevertheless.

    Parameters
    ----------
    url
        Path or URL of the database, which is created if necessary, or a Database.
    sources
        Model files, folders, globs or URLs: one or a list. Default: every row of the catalog. An onnx.ModelProto is
        accepted too. Its id is its graph's name, and it is read from a temporary file, which workers on other
        machines do not see.
    catalog
        Path or URL of a table (CSV or Parquet) with the models' labels.
    chunk_rows
        Filters in a chunk of the new segment.
    limits
        What reading one model may take.
    key
        Which network to read of a checkpoint with several, such as "ema".
    order
        The names of the weights in the order of execution, or a JSON file with them, for files without a graph.

    Returns
    -------
    Ingested
        The models that were added, present and rejected.

    Raises
    ------
    InputError
        If a source or the catalog cannot be used, or if a model's id already has other content or another row.
    StoreError
        If the store fails.
    InterruptedRunError
        If the run failed, and a re-run resumes it.

    Examples
    --------
    >>> fdb.ingest("db", "models/", catalog="catalog.csv").added  # doctest: +SKIP
    """
    place, table = as_url(url), None if catalog is None else as_path(catalog, "catalog")
    with on_disk(as_sources(sources)) as named:
        names = as_order(order)
        models = [replace(model, key=key, order=names) for model in find_sources(named, table)]
        return _ingest(Files.at(place), models, chunk_rows, limits)


def _ingest(files: Files, models: list[ModelSource], chunk_rows: int, limits: Limits) -> Ingested:
    base = snapshots.latest(files)
    if base is None:
        files.probe()  # before any work is spent on reading models
    old = None if base is None else Database(files, base)
    known = {} if old is None else known_models(old)
    # New task names, so that a cluster does not return the result of an earlier scan.
    token = uuid.uuid4().hex[:8]
    tasks = [
        cluster.task(
            f"scan-{token}-{position}", partial(scan, source, known.get(source.id, {}).get("file_hash"), limits)
        )
        for position, source in enumerate(models)
    ]
    scans: list[Scan] = cluster.run(tasks, "scan")
    rejected = {result.source.id: result.rejected for result in scans if result.rejected is not None}
    for model, reason in rejected.items():
        logs.event(log, "rejected", model=model, reason=reason)
    listed = set() if old is None else _rejections(old)
    unlisted = {model: reason for model, reason in rejected.items() if (model, reason) not in listed}
    present = [result.source.id for result in scans if not result.rejected and _is_present(result, known)]
    new = [result for result in scans if not result.rejected and result.source.id not in present]
    if not new:
        if old is None or not present:
            raise InputError(next(iter(rejected.values())))
        snapshots.mark(files, old.snapshot)
        return Ingested(old, None, [], present, rejected)
    tables, made_from = build_tables(new, unlisted, old)
    segment = new_segment(files, tables, made_from, chunk_rows, base)
    committed = commit_models(segment, tables, from_models(tables, new, limits), base)
    return replace(committed, present=present, rejected=rejected)


def find_sources(sources: Sequence[NamedFile], catalog: str | None) -> list[ModelSource]:
    """Return the models that sources and catalog name, in the catalog's order, then in the order of the sources."""
    rows: list[ModelSource] = []
    if not sources and catalog is None:
        raise UsageError("ingest: expected sources or a catalog, got neither")
    if catalog is not None:
        place = local_path(catalog)
        rows = [replace(row, url=_absolute(row.url)) for row in parse_catalog(read_input(place), place)]
        for row in rows:
            if not is_remote(row.url) and is_absent(row.url):
                raise InputError(f"{redact_url(place)}: model {row.id!r}: expected a file at {row.shown}, found none")
    if not sources:
        return rows
    by_place = {_place(row.url): (position, row) for position, row in enumerate(rows)}
    listed: dict[str, tuple[int, ModelSource]] = {}
    for source in sources:
        for name in [source.path] if source.alias else expand(source.path):
            place = _place(name)
            model_id = as_id(source) if source.alias else _as_id(name)
            model = ModelSource(model_id, _absolute(name), alias=source.alias)
            listed.setdefault(place, by_place.get(place, (len(rows), model)))
    models = [source for _, source in sorted(listed.values(), key=lambda item: item[0])]
    check_unique(models, "ingest")
    return models


def _absolute(url: str) -> str:
    """Return a URL, or an absolute path, which is valid in any working directory of a worker."""
    url = local_path(url)
    return url if is_remote(url) else str(Path(url).absolute())


def _place(url: str) -> str:
    return url if is_remote(url) else os.path.realpath(url)  # Path.resolve raises RuntimeError for a loop of links


def _as_id(name: str) -> str:
    return redact_url(name if is_remote(name) else Path(name).as_posix())


def _rejections(db: Database) -> set[tuple[str, str]]:
    """Return id and reason of each rejected file in the snapshot's ledger."""
    ledger = db.skipped
    rows = zip(*(ledger[f"skipped_{name}"].values.astype(str) for name in ("model", "code", "reason")), strict=True)
    return {(model, reason) for model, code, reason in rows if code == schema.REJECTED}


def known_models(db: Database) -> dict[str, dict[str, Any]]:
    """Return the snapshot's models: id → file hash and catalog row."""
    models = db.models
    names = ["file_hash", "extra", *schema.LABELS]
    columns = {name: models[name].values for name in names}
    return {
        str(model): {name: str(columns[name][i]) for name in names} for i, model in enumerate(models["model"].values)
    }


def _is_present(result: Scan, known: dict[str, dict[str, Any]]) -> bool:
    """Return whether the snapshot already has this model. Raises InputError if it has another model with this id."""
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
            f"{stored[name]!r}; `filterdb relabel` changes the labels of stored models"
        )
    return True


def build_tables(
    new: list[Scan], rejected: dict[str, str], old: Database | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tables of the new models, and everything else that determines the id of their segment."""
    rows = [row | {"model_index": index} for index, result in enumerate(new) for row in result.rows]
    made_from: dict[str, Any] = {
        "extraction": EXTRACTION,
        "models": [[r.source.id, r.file_hash, dict(r.source.labels), dict(r.source.extra)] for r in new],
        "rejected": rejected,
    }
    layers = stack(rows, schema.LAYER_VARIABLES)
    twins = duplicates(old, [(result.source.id, result.file_hash) for result in new], layers)
    models = [
        {
            "model": result.source.id,
            "file_hash": result.file_hash,
            "duplicate_of": twin,
            **result.source.labels,
            "extra": result.source.extra_json,
            **result.facts,
        }
        for result, twin in zip(new, twins, strict=True)
    ]
    ledger = [(r.source.id, skip.layer, skip.code, skip.reason) for r in new for skip in r.skipped]
    ledger += [(model, "", schema.REJECTED, reason) for model, reason in rejected.items()]
    skipped = [dict(zip((v.name for v in schema.SKIPPED_VARIABLES), entry, strict=True)) for entry in ledger]
    tables = {
        **layers,
        **stack(models, schema.MODEL_VARIABLES),
        **stack(skipped, schema.SKIPPED_VARIABLES),
    }
    return tables, made_from


def from_models(tables: dict[str, np.ndarray], new: list[Scan], limits: Limits) -> FillRows:
    """Return a function that returns, for a partition, what fills it: the models whose layers overlap it."""
    bounds = plan.offsets(tables["row_size"])
    checksums = [checksum for result in new for checksum in result.checksums]

    def filler(partition: Partition) -> FromModels:
        layers = range(partition.first, partition.first + len(partition.peaks))
        pieces = []
        for index, group in groupby(layers, key=lambda layer: int(tables["model_index"][layer])):
            own_layers = list(group)
            pieces.append(
                Piece(
                    new[index].source,
                    tuple(str(tables["layer_name"][layer]) for layer in own_layers),
                    tuple(checksums[layer] for layer in own_layers),
                    tuple(int(tables["row_size"][layer]) for layer in own_layers),
                    tuple(int(bounds[layer]) for layer in own_layers),
                )
            )
        return FromModels(tuple(pieces), limits)

    return filler


def commit_models(segment: Segment, tables: dict[str, np.ndarray], filler: FillRows, base: Snapshot | None) -> Ingested:
    """Write and commit a segment of new models, on top of other writers' commits. Raises ConflictError."""
    files, added = segment.files, [str(model) for model in tables["model"]]
    state = commit_segment(segment, tables, filler, base, lambda head, entry: _with_models(files, head, entry, added))
    return Ingested(Database(files, state), segment.id, added)


def _with_models(files: Files, head: Snapshot | None, entry: Entry, added: list[str]) -> Snapshot | None:
    """Return the snapshot that adds the segment to `head`; None if `head` has it. Raises ConflictError."""
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
    return head.next("ingest", segments=(*head.segments, entry))
