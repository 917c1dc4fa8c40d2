"""New snapshots that rewrite no filter: models removed, rows replaced, names for snapshots, earlier ones restored."""

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
from filterdb.store.segment import read_tables
from filterdb.store.snapshot import Removed, Rows, Snapshot

log = logging.getLogger(__name__)


def remove(db: AnyDatabase, models: str | Iterable[str]) -> Database:
    """Commit a snapshot without these models; earlier snapshots keep them, and so does the disk.

    Raises UsageError where the newest snapshot has no such model.
    """
    db = as_database(db)
    wanted = list(dict.fromkeys(as_names(models, "models")))
    if not wanted:
        raise UsageError("remove: expected at least one model, got none")

    def build(head: Snapshot | None) -> Snapshot:
        head = snapshots.existing(db.files, head)
        now = Database(db.files, head)
        gone = _stored(now, wanted)
        without = {(one.segment, one.model): one for one in (*head.without, *gone)}
        kept = []
        for entry in head.segments:
            own = [key for key in without if key[0] == entry.id]
            if len(own) == entry.models:  # nothing of it is left
                for key in own:
                    del without[key]
            else:
                kept.append(entry)
        rows = snapshots.read_labels(db.files, head.labels)
        # A model of this name that comes again comes with a row of its own.
        left = {model: row for model, row in rows.items() if model not in wanted}
        labels = head.labels if len(left) == len(rows) else snapshots.write_labels(db.files, left) if left else None
        return head.next("remove", segments=tuple(kept), without=tuple(without.values()), labels=labels)

    return _committed(db, build)


def _stored(db: Database, wanted: list[str]) -> list[Removed]:
    """Return where the models lie, and how large they are.

    Segments whose tables are damaged are passed over, as long as the models are found in others. Raises DamageError
    where they are not, UsageError where there are no such models.
    """
    gone = {(removed.segment, removed.model) for removed in db.state.without}
    stored, damage = {}, None
    for entry in db.state.segments:
        try:
            tables = read_tables(entry.segment(db.files), entry.digests)
        except DamageError as error:
            damage = damage or error
            continue
        for row, model in enumerate(map(str, tables["model"])):
            if model in wanted and (entry.id, model) not in gone:
                sizes = tables["row_size"][tables["model_index"] == row]
                stored[model] = Removed(entry.id, model, int(sizes.sum()), len(sizes))
    unknown = [model for model in wanted if model not in stored]
    if unknown and damage is not None:
        raise damage
    if unknown:
        raise UsageError(
            f"{db.url}: expected models of snapshot {db.snapshot}, got {unknown[0]!r}; `filterdb models` lists them"
        )
    if damage is not None:
        log.warning("%s", damage)
    return [stored[model] for model in wanted]


def relabel(db: Database, rows: Rows) -> Database:
    """Commit a snapshot in which these catalog rows stand for those of the models: labels and `extra`, by model id.

    A row replaces the model's whole row. Raises InputError for a row of a model that is not there. Where nothing
    changes there is no new snapshot.
    """

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        now = Database(db.files, head)
        ids = set(map(str, now.models["model"].values))
        unknown = [model for model in rows if model not in ids]
        if unknown:
            raise InputError(
                f"{db.url}: expected rows of models that are there, got one of {unknown[0]!r}; "
                "`filterdb models` lists them, `filterdb ingest` adds it"
            )
        if not changed_rows(now, rows):
            return None
        before = {model: row for model, row in snapshots.read_labels(db.files, head.labels).items() if model in ids}
        return head.next("relabel", labels=snapshots.write_labels(db.files, {**before, **rows}))

    return _committed(db, build)


def changed_rows(db: Database, rows: Rows) -> list[str]:
    """Models of the database whose row is another than given here."""
    table = db.models
    position = {str(model): i for i, model in enumerate(table["model"].values)}
    return [
        model
        for model, row in rows.items()
        if any(str(table[name].values[position[model]]) != value for name, value in row.items())
    ]


def tag(db: AnyDatabase, name: str) -> Database:
    """Commit a snapshot that calls the database's own snapshot by a name; `open(url, snapshot=name)` finds it.

    Raises UsageError for a name that is a number, ConflictError for one that another snapshot has: tags never move.
    """
    db = as_database(db)
    if not name or name.strip() != name or name.isdigit() or not name.isprintable():
        raise UsageError(f"tag: expected a name that is no number, such as cvpr-2026, got {name!r}")

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        there = head.tags.get(name)
        if there == db.snapshot:
            return None
        if there is not None:
            raise ConflictError(f"{db.url}: expected a name of no snapshot, {name!r} is snapshot {there}; take another")
        return head.next("tag", tags={**head.tags, name: db.snapshot})

    return _committed(db, build)


def restore(db: Database | str | os.PathLike[str], snapshot: int | str) -> Database:
    """Commit a snapshot that holds what an earlier one held: its models, labels and basis.

    Nothing is lost by it: the snapshots between stay, and so do all tags. Where the newest snapshots are lost or
    damaged, the new one goes on top of them; of those only their tags and their place in the history are gone. Where
    the newest snapshot holds the same already, nothing is committed.

    Parameters
    ----------
    db
        The database, or its path or URL.
    snapshot
        Number or tag of the snapshot to go back to.

    Returns
    -------
    Database
        At the new snapshot, or at the newest where nothing changes.

    Raises
    ------
    UsageError
        Where there is no such snapshot.
    DamageError
        Where that snapshot itself is lost or damaged.
    """
    files = db.files if isinstance(db, Database) else Files.at(as_url(db, "db"))
    old = open_database(files.root, snapshot).state
    readable, damaged = snapshots.survey(files)
    newest = readable[-1]
    end = max([newest.number, *damaged])

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(files, head)
        if head.number == newest.number < end:  # what is damaged keeps its place, a copy may still be put there
            return replace(head.restoring(old), number=end + 1)
        return None if head.has_content_of(old) and head.basis == old.basis else head.restoring(old)

    return Database(files, snapshots.commit(files, newest, build))


def _committed(db: Database, build: snapshots.Build) -> Database:
    """The newest state after a change to it."""
    head = snapshots.latest(db.files)
    state = snapshots.commit(db.files, head, build)
    return replace(Database(db.files, state), kept=db.kept)
