"""Ingest models: all new models become one segment in one commit, or one per batch of a long list."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb import cluster, logs, schema
from filterdb.arguments import unexpected
from filterdb.errors import ConflictError, FilterDBError, InputError, UsageError
from filterdb.extras import require
from filterdb.ingestion.compact import compact_newest
from filterdb.ingestion.duplicates import Stored
from filterdb.ingestion.ingested import Ingested
from filterdb.ingestion.more_kernels import Widening, name_of, widen
from filterdb.ingestion.scanned import build_tables, from_models
from filterdb.ingestion.scanning import new_spool, scan_models
from filterdb.ingestion.segment_writer import FillRows, commit_segment, new_banks, new_segment
from filterdb.ingestion.source_records import SourceRecords
from filterdb.ingestion.write import LostModelError
from filterdb.models.catalog import ModelSource, check_unique
from filterdb.models.catalog_input import Catalog, as_catalog, read_catalog
from filterdb.models.inputs import expand, is_absent
from filterdb.models.sandbox import Limits
from filterdb.models.scan import Scan
from filterdb.models.sources import NamedFile, as_id, as_order, as_sources, on_disk
from filterdb.models.spool import Spool
from filterdb.redaction import redact_url
from filterdb.schema import Kernels
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_url
from filterdb.store.files import Files, local_path
from filterdb.store.pages import THREES, Entry
from filterdb.store.remote import is_remote
from filterdb.store.segment import Segment
from filterdb.store.snapshot import Snapshot
from filterdb.wording import counted

if TYPE_CHECKING:
    from filterdb.models.sources import Order, Sources

log = logging.getLogger(__name__)

BATCH = 100
"""Models of a commit, if more than this many are remote and the caller does not say."""

READ_AHEAD = 32
"""Models to read at once at least, so that small commits do not leave workers idle."""


def ingest(  # noqa: PLR0913 - the options of the command
    url: AnyDatabase,
    sources: Sources = (),
    *,
    catalog: Catalog | None = None,
    chunk_rows: int = schema.CHUNK_ROWS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    key: str = "",
    order: Order | None = None,
    commit_every: int | None = None,
    compact: bool = True,
    kernels: str = "all",
) -> Ingested:
    """Read models into a database, on Dask. All new models become one segment in one commit, or one per batch.

    A model is skipped if the newest snapshot has it with the same content and catalog row. A remote file is not fetched
    for this if its ETag, or size and time, are those of the last run. A file is rejected, with a reason, if it is not a
    readable model, exceeds `limits` or cannot be fetched; the other files are ingested nevertheless.

    Parameters
    ----------
    url
        Path or URL of the database, which is created if necessary, or a Database.
    sources
        Model files, folders, globs or URLs: one, a list, or a mapping of ids to them. Default: every row of the
        catalog. Models in memory are accepted too (onnx.ModelProto, torch.nn.Module, keras.Model). Their ids are those
        of the mapping, or else the name of the graph or the Keras model. They are read from temporary files, which
        workers on other machines do not see.
    catalog
        Path or URL of a table (CSV or Parquet) with the models' labels, or the table itself: a pandas.DataFrame, or a
        table with `to_pandas`, as of polars. Paths in it are then relative to the working folder.
    chunk_rows
        Filters in a chunk of the new segment.
    limits
        What reading one model may take.
    key
        Which network to read of a checkpoint with several, such as "ema".
    order
        The names of the weights in the order of execution, or a JSON file with them, for files without a graph.
    commit_every
        Commit after so many new models, each time as a segment of its own. A run that stops keeps what it has
        committed, and a re-run resumes after it. Default: once, or every 100 models if more than 100 files are remote.
    compact
        Join the newest segments into one, with a commit of its own, when there are many small ones.
    kernels
        The shapes of the filters to store, such as "3x3,5x5". Default: all, those of 1-D convolutions as 1×k. Models
        that an earlier ingest has read for fewer shapes are read again, if all models of their segment are given.

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
    MissingExtraError
        If the extra `ingest` is not installed.

    Examples
    --------
    >>> fdb.ingest("db", "models/", catalog="catalog.csv").added  # doctest: +SKIP
    """
    place, table = as_url(url), None if catalog is None else as_catalog(catalog)
    require("zarr")
    with on_disk(as_sources(sources)) as named:
        files, names = Files.at(place), as_order(order)
        models = [replace(model, key=key, order=names) for model in find_sources(named, table)]
        every = _models_per_commit(models, commit_every)
        records = SourceRecords.of_run(files, models, limits)
        done = _Run(files, chunk_rows, limits, every, records, schema.parse_kernels(kernels)).ingest(models)
    return replace(done, database=compact_newest(done.database, chunk_rows)) if compact else done


def _models_per_commit(models: Sequence[ModelSource], commit_every: Any) -> int | None:
    """Return after how many models to commit; None: once, when all are read. Raises UsageError."""
    if commit_every is None:
        return BATCH if sum(is_remote(model.url) for model in models) > BATCH else None
    if isinstance(commit_every, bool) or not isinstance(commit_every, int):
        raise unexpected("commit_every", "a number of models", commit_every)
    if commit_every < 1:
        raise UsageError(f"commit_every: expected at least 1 model, got {commit_every}")
    return commit_every


@dataclass
class _Run:
    """An ingest in progress: what the store has, what is read and not yet committed, and what came of the others.

    Only the tables of the models that wait for a commit are in memory. Models are read in groups by their position in
    the list, and committed in their order, so that a run that resumes makes the same segments.
    """

    files: Files
    chunk_rows: int
    limits: Limits
    every: int | None
    records: SourceRecords
    kernels: Kernels = (schema.KERNEL,)
    """The kernel shapes to read."""
    sources: set[str] = field(default_factory=set)
    """Ids of all models of the run."""
    wider: Widening = field(default_factory=Widening)
    """What is read again for more kernel shapes."""
    db: Database | None = None
    """The newest snapshot that was read or committed; None: there is none yet."""
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    listed: set[tuple[str, str]] = field(default_factory=set)
    """Id and reason of each rejected file in the store's ledger."""
    unlisted: dict[str, str] = field(default_factory=dict)
    """Rejections for the ledger of the next segment."""
    waiting: list[Scan] = field(default_factory=list)
    spool: Spool = field(default_factory=new_spool)
    """The filters of models that wait, as far as there is room for them in this process."""
    error: FilterDBError | None = None
    """Why the first file was rejected."""
    stored: Stored | None = None
    """What duplicates are recognised by; None until the first commit needs it."""
    segments: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    def ingest(self, models: Sequence[ModelSource]) -> Ingested:
        """Read all models, and commit those that are new."""
        self.sources = {model.id for model in models}
        head = snapshots.latest(self.files)
        if head is None:
            self.files.probe()  # before any work is spent on reading models
        else:
            self._build_on(head)
        for model in models:
            _check_row(model, self.known)
        size = max(len(models), 1) if self.every is None else max(self.every, READ_AHEAD)
        with cluster.tally("models", len(models)) if self.every else nullcontext() as tally:
            for start in range(0, len(models), size):
                if start:
                    self._refresh()
                self._scan(models[start : start + size])
                self._show(tally)
                while self.waiting and (len(self.waiting) >= (self.every or 1) or start + size >= len(models)):
                    self._commit_next()
                    self._show(tally)
                self._widen()
        return self._result()

    @property
    def head(self) -> Snapshot | None:
        """The snapshot to build on."""
        return None if self.db is None else self.db.state

    def _show(self, tally: cluster.Tally | None) -> None:
        if tally is not None:
            tally.done(len(self.added) + len(self.present) + len(self.rejected))

    def _build_on(self, head: Snapshot) -> None:
        """Read what a snapshot has."""
        self.db, self.stored = Database(self.files, head), None
        self.known, self.listed = known_models(self.db), _rejections(self.db)
        scans, self.wider = self.wider.scans, Widening.of(self.db, self.kernels, self.sources)
        self.wider.scans = {segment: own for segment, own in scans.items() if segment in self.wider.segments.values()}

    def _refresh(self) -> bool:
        """Build on what other writers have committed meanwhile; return whether they have."""
        head = snapshots.latest(self.files)
        if head is None and self.head is None:
            return False
        head = snapshots.existing(self.files, head)
        if self.head is not None and head.nonce == self.head.nonce:
            return False
        self._build_on(head)
        waiting, self.waiting = self.waiting, []
        for result in waiting:
            self._add(result)
        return True

    def _scan(self, models: Sequence[ModelSource]) -> None:
        to_read = [(model, self.wider.kernels.get(model.id, self.kernels)) for model in models]
        known = {model: row for model, row in self.known.items() if model not in self.wider.kernels}
        results = scan_models(to_read, known, self.limits, self.records, self.spool)
        for source, result in zip(models, results, strict=True):
            self.records.add(source, result)
            self._add(result)
        if self.head is not None:
            self.records.write()

    def _add(self, result: Scan) -> None:
        """Add the result of a scan to the rejected, present or waiting models."""
        model = result.source.id
        if result.rejected is not None:
            self._reject(model, result.rejected, result.error)
            return
        try:
            is_present = _is_present(result, self.known)
        except InputError as error:
            if self.every is None:
                raise
            # Earlier models are committed already, and later ones need not wait until this row is changed.
            self._reject(model, str(error), error)
            self.unlisted.pop(model, None)  # the stored model is sound
            return
        if is_present:
            if model in self.wider.segments and not result.known:
                self.wider.add(result)
            else:
                self.spool.drop([model])
            self.present.append(model)
        else:
            self.waiting.append(result)

    def _reject(self, model: str, reason: str, error: FilterDBError | None) -> None:
        logs.event(log, "rejected", model=model, reason=reason)
        self.rejected[model] = reason
        self.spool.drop([model])
        self.error = self.error or error or InputError(reason)
        if (model, reason) not in self.listed:
            self.unlisted[model] = reason

    def _commit_next(self) -> None:
        """Commit the next waiting models. A remote file that fails meanwhile is rejected, and the rest goes on."""
        number = len(self.waiting) if self.every is None else self.every
        new, self.waiting = self.waiting[:number], self.waiting[number:]
        self.records.write()
        while new:
            tables, made_from = build_tables(new, self.unlisted, self._stored())
            segment = new_segment(self.files, tables, made_from, self.chunk_rows, self.head)
            banks = new_banks(segment, tables, self.chunk_rows)
            try:
                filler = from_models(tables, dict(enumerate(new)), self.limits, self.spool)
                committed = commit_models(
                    segment, tables, filler, self.db, self.known, banks=banks, kernels=name_of(self.kernels)
                )
            except LostModelError as error:
                lost = [result for result in new if result.source.id == error.model]
                if not any(is_remote(result.source.url) for result in lost):
                    raise
                self._reject(error.model, str(error), error)
                new = [result for result in new if result not in lost]
            except ConflictError:
                self.waiting = [*new, *self.waiting]
                if self.every is None or not self._refresh():
                    raise
                return
            else:
                self.spool.drop(result.source.id for result in new)
                self._add_committed(committed, new, tables)
                return

    def _widen(self) -> None:
        """Add banks to the segments of which all models have been read again."""
        for segment in self.wider.complete():
            if self.db is not None:
                models = list(self.wider.scans[segment])
                widened = widen(self.db, segment, self.wider, self.limits, self.spool, self.chunk_rows)
                self.spool.drop(models)
                self.widened += models
                self._build_on(widened.state)

    def _stored(self) -> Stored:
        """Return what duplicates of the head's models are recognised by."""
        if self.stored is None:
            self.stored = Stored.of(self.db)
        return self.stored

    def _add_committed(self, committed: Ingested, new: Sequence[Scan], tables: Mapping[str, np.ndarray]) -> None:
        """Update what the store has after a commit, and read it again if other writers have committed too."""
        before, after = self.head, committed.database.state
        self.segments += committed.segments
        self.added += committed.added
        listed, self.unlisted = self.unlisted, {}
        own = [entry.id for entry in after.segments[-1:]] == committed.segments
        if before is None or not own or not replace(after, segments=after.segments[:-1]).has_content_of(before):
            self._build_on(after)
            return
        self.db = committed.database
        self.listed |= set(listed.items())
        self.stored = self._stored().with_models([(result.source.id, result.file_hash) for result in new], tables)
        for result in new:
            row = {**result.source.labels, "extra": result.source.extra_json}
            self.known[result.source.id] = {"file_hash": result.file_hash, **row}

    def _result(self) -> Ingested:
        """Return what came of all models. Raises the error of the first rejected file if there is nothing else."""
        db = self.db
        if db is None or not (self.segments or self.present):
            raise self.error or InputError("ingest: expected at least one model, got none")
        if not self.segments:
            snapshots.mark(self.files, db.snapshot)
        last = self.segments[-1] if self.segments else None
        return Ingested(db, last, self.added, self.present, self.rejected, self.segments, self.widened, self.wider.left)


def find_sources(sources: Sequence[NamedFile], catalog: Any | None) -> list[ModelSource]:
    """Return the models that sources and catalog name, in the catalog's order, then in the order of the sources."""
    rows: list[ModelSource] = []
    if not sources and catalog is None:
        raise UsageError("ingest: expected sources or a catalog, got neither")
    if catalog is not None:
        shown, listed = read_catalog(catalog)
        rows = [replace(row, url=_absolute(row.url)) for row in listed]
        for row in rows:
            if not is_remote(row.url) and is_absent(row.url):
                raise InputError(f"{shown}: model {row.id!r}: expected a file at {row.shown}, found none")
    if not sources:
        return rows
    by_place = {_place(row.url): (position, row) for position, row in enumerate(rows)}
    chosen: dict[str, tuple[int, ModelSource]] = {}
    for source in sources:
        for name in [source.single().path] if source.alias else expand(source.path):
            place = _place(name)
            model_id = as_id(source) if source.alias else _as_id(name)
            model = ModelSource(model_id, _absolute(name), alias=source.alias)
            chosen.setdefault(place, by_place.get(place, (len(rows), model)))
    models = [source for _, source in sorted(chosen.values(), key=lambda item: item[0])]
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
    ledger = db.skipped_columns
    rows = zip(*(ledger[f"skipped_{name}"].values.astype(str) for name in ("model", "code", "reason")), strict=True)
    return {(model, reason) for model, code, reason in rows if code == schema.REJECTED}


def known_models(db: Database) -> dict[str, dict[str, Any]]:
    """Return the snapshot's models: id → file hash and catalog row."""
    models = db.model_columns
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
            f"model {source.id!r}: {source.shown} has different content ({result.file_hash[:12]}…) from the model "
            f"stored under this name ({stored['file_hash'][:12]}…); give it another `name` in the catalog"
        )
    _check_row(source, known)
    return True


def _check_row(source: ModelSource, known: dict[str, dict[str, Any]]) -> None:
    """Raise InputError if the snapshot has a model with this id and another catalog row."""
    stored = known.get(source.id)
    if stored is None or not source.has_row:
        return
    row = {**source.labels, "extra": source.extra_json}
    changed = [name for name, value in row.items() if stored[name] != value]
    if changed:
        name = changed[0]
        raise InputError(
            f"model {source.id!r}: expected its stored catalog row, got {name} = {row[name]!r} instead of "
            f"{stored[name]!r}; `filterdb relabel` changes the labels of stored models"
        )


def commit_models(
    segment: Segment,
    tables: dict[str, np.ndarray],
    filler: FillRows,
    db: Database | None,
    known: Collection[str],
    *,
    banks: Sequence[Segment] = (),
    kernels: str = THREES,
) -> Ingested:
    """Write and commit a segment of new models, on top of other writers' commits. Raises ConflictError.

    `known` are the models of `db`, the database to add to. `banks` and `kernels` are those of `commit_segment`.
    """
    base = None if db is None else db.state
    files, added = segment.files, [str(model) for model in tables["model"]]

    def build(head: Snapshot | None, entry: Entry) -> Snapshot | None:
        if head is None:
            return snapshots.new("ingest", segments=(entry,))
        if any(other.id == entry.id for other in head.segments):
            return None
        ids = known if head is base else map(str, Database(files, head).model_columns["model"].values)
        _check_disjoint(files, set(ids), added)
        return head.next("ingest", segments=(*head.segments, entry))

    state = commit_segment(segment, tables, filler, base, build, banks=banks, kernels=kernels)
    after = Database(files, state) if db is None else db.followed_by(state, tables)
    return Ingested(after, segment.id, added, segments=[segment.id])


def _check_disjoint(files: Files, ids: set[str], added: list[str]) -> None:
    """Raise ConflictError if one of the models to add is among those of the snapshot to build on."""
    taken = ids & set(added)
    if taken:
        raise ConflictError(
            f"{files.root}: expected to add {counted(len(added), 'model')}, but another ingest committed "
            f"{sorted(taken)[0]!r} meanwhile; run again"
        )
