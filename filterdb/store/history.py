"""Commit snapshots without rewriting filters: remove models, replace catalog rows, tag, restore earlier snapshots."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace

from filterdb.arguments import as_names
from filterdb.errors import ConflictError, DamageError, InputError, UsageError
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database, as_url, open_database
from filterdb.store.files import Files
from filterdb.store.snapshot import Removed, Rows, Snapshot
from filterdb.store.tables import read_tables
from filterdb.wording import meant

log = logging.getLogger(__name__)


def remove(db: AnyDatabase, models: str | Iterable[str]) -> Database:
    """Commit a snapshot without some models. Earlier snapshots keep them, so no disk space is freed.

    Parameters
    ----------
    db
        The database, or its path or URL.
    models
        Ids of models in the newest snapshot.

    Returns
    -------
    Database
        The database at the new snapshot.

    Raises
    ------
    UsageError
        If the newest snapshot has no such model.

    Examples
    --------
    >>> db = fdb.remove(db, "resnet18")  # doctest: +SKIP
    """
    db = as_database(db)
    wanted = list(dict.fromkeys(as_names(models, "models")))
    if not wanted:
        raise UsageError("remove: expected at least one model, got none")

    def build(head: Snapshot | None) -> Snapshot:
        head = snapshots.existing(db.files, head)
        newly_removed = _stored(Database(db.files, head), wanted)
        without = {(removed.segment, removed.model): removed for removed in (*head.without, *newly_removed)}
        kept = []
        for entry in head.segments:
            keys = [key for key in without if key[0] == entry.id]
            if len(keys) == entry.models:  # all models of the segment are removed
                for key in keys:
                    del without[key]
            else:
                kept.append(entry)
        rows = snapshots.read_labels(db.files, head.labels)
        # Drop the models' rows. If such a model is ingested again, it comes with its own row.
        remaining = {model: row for model, row in rows.items() if model not in wanted}
        labels = head.labels
        if len(remaining) < len(rows):
            labels = snapshots.write_labels(db.files, remaining) if remaining else None
        return head.next("remove", segments=tuple(kept), without=tuple(without.values()), labels=labels)

    return _committed(db, build)


def _stored(db: Database, wanted: list[str]) -> list[Removed]:
    """Return the segment and size of each model.

    Segments with damaged tables are skipped if the models are in other segments. Raises DamageError if a model may be
    in a damaged segment, UsageError if there is no such model.
    """
    already_removed = {(removed.segment, removed.model) for removed in db.state.without}
    stored, damage = {}, None
    for entry in db.state.segments:
        try:
            tables = read_tables(entry.segment(db.files), entry.digests)
        except DamageError as error:
            damage = damage or error
            continue
        for row, model in enumerate(map(str, tables["model"])):
            if model in wanted and (entry.id, model) not in already_removed:
                sizes = tables["row_size"][tables["model_index"] == row]
                stored[model] = Removed(entry.id, model, int(sizes.sum()), len(sizes))
    unknown = [model for model in wanted if model not in stored]
    if unknown and damage is not None:
        raise damage
    if unknown:
        hint = meant(unknown[0], map(str, db.model_columns["model"].values))
        raise UsageError(
            f"{db.url}: expected models of snapshot {db.snapshot}, got {unknown[0]!r}{hint}; "
            "`filterdb models` lists them"
        )
    if damage is not None:
        log.warning("%s", damage)
    return [stored[model] for model in wanted]


def relabel(db: Database, rows: Rows) -> Database:
    """Commit a snapshot with new catalog rows (labels and `extra`) for some models, by model id.

    A row replaces the model's whole row. If nothing changes, no snapshot is committed. Raises InputError if a model
    does not exist.
    """

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        newest = Database(db.files, head)
        ids = set(map(str, newest.model_columns["model"].values))
        unknown = [model for model in rows if model not in ids]
        if unknown:
            raise InputError(
                f"{db.url}: expected rows of models that are there, got one of {unknown[0]!r}{meant(unknown[0], ids)}; "
                "`filterdb models` lists them, `filterdb ingest` adds it"
            )
        if not changed_rows(newest, rows):
            return None
        before = {model: row for model, row in snapshots.read_labels(db.files, head.labels).items() if model in ids}
        return head.next("relabel", labels=snapshots.write_labels(db.files, {**before, **rows}))

    return _committed(db, build)


def changed_rows(db: Database, rows: Rows) -> list[str]:
    """Return the models whose row in the database differs from the given one."""
    table = db.model_columns
    position = {str(model): i for i, model in enumerate(table["model"].values)}
    return [
        model
        for model, row in rows.items()
        if any(str(table[name].values[position[model]]) != value for name, value in row.items())
    ]


def tag(db: AnyDatabase, name: str) -> Database:
    """Commit a snapshot that gives the snapshot of `db` a name. `open(url, snapshot=name)` opens it.

    Parameters
    ----------
    db
        The database at the snapshot to name, or its path or URL for the newest snapshot.
    name
        A name that is not a number.

    Returns
    -------
    Database
        The database at the new snapshot, or at the newest if the tag exists already.

    Raises
    ------
    UsageError
        If the name is a number, is empty or has characters that cannot be printed.
    ConflictError
        If another snapshot has this name. Tags never move.

    Examples
    --------
    >>> fdb.tag(db, "cvpr-2026")  # doctest: +SKIP
    >>> fdb.open("db", snapshot="cvpr-2026")  # doctest: +SKIP
    """
    db = as_database(db)
    if not name or name.strip() != name or name.isdigit() or not name.isprintable():
        raise UsageError(f"tag: expected a name that is no number, such as cvpr-2026, got {name!r}")

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        snapshots.check_kept(db.files, head, db.snapshot)
        tagged = head.tags.get(name)
        if tagged == db.snapshot:
            return None
        if tagged is not None:
            raise ConflictError(
                f"{db.url}: expected a name of no snapshot, {name!r} is snapshot {tagged}; take another"
            )
        return head.next("tag", tags={**head.tags, name: db.snapshot})

    return _committed(db, build)


def restore(db: Database | str | os.PathLike[str], snapshot: int | str) -> Database:
    """Commit a snapshot with the models, labels and basis of an earlier one.

    The snapshots in between and all tags are kept. If the newest snapshots are lost or damaged, the new one is
    committed after them; only tags that a damaged snapshot added are lost. If the newest snapshot already has the same
    content, nothing is committed.

    Parameters
    ----------
    db
        The database, or its path or URL.
    snapshot
        Number or tag of the earlier snapshot.

    Returns
    -------
    Database
        The database at the new snapshot, or at the newest if nothing changes.

    Raises
    ------
    UsageError
        If there is no such snapshot.
    DamageError
        If the earlier snapshot is itself lost or damaged.

    Examples
    --------
    >>> fdb.restore("db", 3)  # doctest: +SKIP
    """
    files = db.files if isinstance(db, Database) else Files.at(as_url(db, "db"))
    old = open_database(files.root, snapshot).state
    readable, damaged = snapshots.survey(files)
    newest = readable[-1]
    end = max([newest.number, *damaged])

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(files, head)
        snapshots.check_kept(files, head, old.number)
        if head.number == newest.number < end:  # skip the damaged numbers, so that they can be restored from a copy
            return replace(head.restoring(old), number=end + 1)
        return None if head.has_content_of(old) and head.basis == old.basis else head.restoring(old)

    return Database(files, snapshots.commit(files, newest, build))


def _committed(db: Database, build: snapshots.Build) -> Database:
    """Commit a change to the newest snapshot, and return the database at the result."""
    head = snapshots.latest(db.files)
    state = snapshots.commit(db.files, head, build)
    return replace(Database(db.files, state), kept=db.kept)
