"""Purge models: remove every object that holds their filters, also those that only earlier snapshots list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from filterdb import schema
from filterdb.arguments import as_names
from filterdb.errors import DamageError, UsageError
from filterdb.extras import require
from filterdb.ingestion.compact import join_segments
from filterdb.store import pack
from filterdb.store import snapshot as snapshots
from filterdb.store.collect import Garbage, remove_segments, segment_of
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.expiry import drop
from filterdb.store.files import Files
from filterdb.store.history import remove
from filterdb.store.pages import ids_of
from filterdb.store.segment import pack_name
from filterdb.store.tables import banks_of, read_many
from filterdb.wording import meant


@dataclass(frozen=True, slots=True)
class Purged:
    """The result of a purge: the database, what was removed, and what still has the same filters.

    `snapshots` are the numbers that were dropped from the history. `shared_with` are the ids of models that have one of
    the purged layers and stay; an empty list is the proof that no object holds them.
    """

    database: Database
    removed: list[Garbage]
    snapshots: list[int]
    shared_with: list[str]


def purge(db: AnyDatabase, models: str | Iterable[str]) -> Purged:
    """Remove models from the newest snapshot and from the store.

    The segments that hold them are written again without them. Every snapshot that lists such a segment is dropped from
    the history, also if it is tagged, and the objects are removed at once: who still reads at such a snapshot gets
    ExpiredSnapshotError. So are segments that no snapshot lists, which stopped runs have left: an ingest of the models
    that is still running fails. A purge that was stopped goes on when it is repeated.

    Parameters
    ----------
    db
        The database, or its path or URL.
    models
        Ids of models of any snapshot.

    Returns
    -------
    Purged
        The database at the newest snapshot, what was removed, and which models still have one of these layers.

    Raises
    ------
    UsageError
        If no stored segment has such a model.
    DamageError
        If tables are damaged or missing, because then it is not known which segments have the models.

    Examples
    --------
    >>> fdb.purge("db", "resnet18").shared_with  # doctest: +SKIP
    []
    """
    db = _newest(as_database(db).files)
    wanted = list(dict.fromkeys(as_names(models, "models")))
    if not wanted:
        raise UsageError("purge: expected at least one model, got none")
    require("zarr")  # segments are written after the commit of the removal
    holding, hashes, known = _holding(db.files, wanted)
    unknown = [model for model in wanted if model not in known]
    if unknown:
        raise UsageError(
            f"{db.url}: no stored model is named {unknown[0]!r}{meant(unknown[0], known)}; nothing was purged. "
            "`filterdb models` lists the models."
        )
    current = [model for model in wanted if model in set(map(str, db.model_columns["model"].values))]
    if current:
        db = remove(db, current)
    for entry in db.state.segments:
        if entry.id in holding:  # other models of the segment stay
            db = Database(db.files, join_segments(db, [entry.id]))
    states = snapshots.history(db.files, expired=True)
    numbers = [s.number for s in states if holding & {entry.id for entry in s.segments}]
    db = drop(db, numbers, tags=True)
    removed = remove_segments(db.files, db.state, list(holding), numbers)
    db = _newest(db.files)
    _check_gone(db.files, holding)
    shared = set()
    for layers in (*(db.bank(kernel).layer_columns for kernel in db.kernels), db.other_columns):
        shares = np.isin(layers["hash"].values.astype(str), sorted(hashes))
        shared |= set(layers["model"].values[shares].tolist())
    return Purged(db, removed, numbers, sorted(shared))


def _newest(files: Files) -> Database:
    return Database(files, snapshots.existing(files, snapshots.latest(files)))


def _holding(files: Files, wanted: list[str]) -> tuple[set[str], set[str], set[str]]:
    """Return the stored segments that have one of the models, the hashes of its layers, and which models they have."""
    states = snapshots.history(files, expired=True)
    collected = set(states[-1].collected) if states else set()
    entries = dict.fromkeys(entry for state in states for entry in state.segments if entry.id not in collected)
    listed = [(entry.segment(files), entry.digests) for entry in entries]
    stored = [(entry.ids, tables) for entry, tables in zip(entries, read_many(listed) if listed else [], strict=True)]
    unlisted = _unlisted(files, ids_of(entries), collected)
    holding, hashes, known = set(), set(), set()
    for ids, tables in [*stored, *(({id_}, tables) for id_, tables in unlisted.items())]:
        rows = np.flatnonzero(np.isin(tables["model"].astype(object), wanted))
        if len(rows):
            holding |= ids
            known |= set(map(str, tables["model"][rows]))
            for prefix in ("", *(f"{bank}/" for bank in banks_of(tables))):
                if f"{prefix}hash" in tables:  # an addition has no 3×3 filters
                    hashes |= set(map(str, tables[f"{prefix}hash"][np.isin(tables[f"{prefix}model_index"], rows)]))
    return holding, hashes, known


def _unlisted(files: Files, listed: set[str], collected: set[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return the tables of segments that no snapshot lists, by id: what was not committed, or not removed to the end.

    Raises DamageError if there are filters without tables, unless the segment is collected and thus removed anyway.
    """
    names = files.list("segments")
    with_filters = {segment_of(name) for name in names if f"/{schema.FILTERS.name}/c/" in name}
    ids = sorted({str(segment_of(name)) for name in names} - listed)
    packs = files.read_many([pack_name(id_) for id_ in ids if pack_name(id_) in names])
    stored = {}
    for id_ in ids:
        name = pack_name(id_)
        try:
            stored[id_], _ = pack.decode(packs.get(name, b""), files.url(name))
        except DamageError as error:
            if id_ in with_filters - collected:
                state = "damaged" if name in packs else "missing"
                raise DamageError(
                    f"{files.url(name)}: this segment, which no snapshot lists, has {state} tables; nothing was "
                    "purged. Run `filterdb gc --delete`, then purge again."
                ) from error
    return stored


def _check_gone(files: Files, holding: set[str]) -> None:
    """Raise DamageError if an object of a purged segment is left."""
    left = [
        name
        for folder in ("segments", "summaries", "manifests")
        for name in files.list(folder)
        if segment_of(name) in holding
    ]
    left += [name for name in files.unfinished() if segment_of(name) in holding]
    if left:
        raise DamageError(f"{files.url(left[0])}: expected no object of a purged segment, found {len(left)}; run again")
