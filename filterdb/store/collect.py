"""Garbage collection: remove what no snapshot lists, such as segments of failed ingests and their summaries.

Only objects that are older than a grace period and that no live writer owns are removed. Snapshots, pages, bases and
labels are kept, so readers at any snapshot in the history have everything they need. Snapshots that have expired are
removed with the segments that only they list, once the snapshot that says so is older than the grace period: readers
have that long to end.

A writer that is suspended (a closed laptop, a paused virtual machine) looks dead but may continue later. Therefore the
collector commits a snapshot before it removes a segment. That snapshot and all later ones name the segment in
`collected`. Commits are numbered consecutively, so there are two cases. If the writer commits first, the segment is
listed and stays. Otherwise, the writer must commit on top of a snapshot that says that its segment is collected, and
fails. If the same models are ingested again, their segment gets another id, so that a suspended collector cannot
remove it. None of this depends on a clock.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from filterdb import schema
from filterdb.choices import GRACE as GRACE  # noqa: PLC0414 - also imported from here
from filterdb.errors import StoreError, StoreMissingError
from filterdb.store import lease, summary
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, as_url
from filterdb.store.files import Files
from filterdb.store.local import ObjectInfo
from filterdb.store.pages import ids_of, located
from filterdb.store.snapshot import Snapshot
from filterdb.store.stored_tables import page_of

_FOLDERS = ("segments", "manifests", "summaries")
_OF_SEGMENT = re.compile(
    r"segments/\.?(?P<segment>[^/.]+)\.(?:zarr/|(?:[0-9a-f]+\.)?safetensors)|manifests/(?P<manifest>[^/]+)\.json$|"
    r"summaries/(?P<summary>[^/]+)/"
)
"""Objects of a segment, and temporary files of writers that were killed, whose names begin with a dot."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Objects that nothing needs any more.

    `kind` is "segment" (never committed or no longer listed, with its summaries), "snapshots" (expired), "tables"
    (joined for pages of earlier snapshots), "parts" (of an unfinished pass), "leases" (of writers that have ended) or
    "temporary" (files of writers that were killed).
    """

    kind: str
    name: str
    objects: tuple[str, ...]
    bytes: int


def gc(url: AnyDatabase, *, delete: bool = False, grace: float = GRACE) -> list[Garbage]:
    """List objects that no snapshot needs and no live writer owns. With `delete`, remove them.

    Parameters
    ----------
    url
        A database, or its path or URL.
    delete
        Remove the objects. Default: only list them.
    grace
        Ignore objects that were written less than so many seconds ago. Default: one hour.

    Returns
    -------
    list of Garbage
        What could be removed or, with `delete`, what was removed.

    Raises
    ------
    StoreMissingError
        If there is no database at `url`.
    DamageError
        If a snapshot is lost or damaged, because then it is not known what is needed.

    Examples
    --------
    >>> sum(garbage.bytes for garbage in fdb.gc("db"))  # doctest: +SKIP
    0
    """
    files = Files.at(as_url(url))
    head = snapshots.latest(files)
    if head is None:
        # Without any snapshot, the objects may belong to the first ingest.
        raise StoreMissingError(f"{files.root}: expected a filterdb database, found no snapshot; nothing is removed")
    if delete:
        return _collect(files, head, grace)
    try:
        now = lease.store_time(files)
    except StoreError:
        now = time.time()  # the store is read-only, so this time is only used to list
    return find_garbage(files, grace, now)


def find_garbage(files: Files, grace: float, now: float) -> list[Garbage]:
    """Return what could be removed at the time `now` of the store's clock.

    Raises DamageError if a snapshot is lost or damaged, because then it is not known what is listed.
    """
    # The order matters: a writer puts its lease before its first object, and removes it after it has committed.
    objects = {name: entry for folder in _FOLDERS for name, entry in files.entries(folder).items()}
    leases = files.entries(lease.FOLDER)
    expired = lease.expired(leases, now)
    owned = _owned(files, [name for name in leases if name not in expired])
    history = _History.of(files, grace, now)

    def is_old(entries: Iterable[ObjectInfo]) -> bool:
        return all(now - entry.modified > grace for entry in entries)  # false for an unknown time (NaN)

    by_segment: dict[str, list[str]] = defaultdict(list)
    for name in objects:
        id_ = segment_of(name)
        if id_:
            by_segment[id_].append(name)
    garbage = []
    for id_, names in by_segment.items():
        kind, unneeded = "segment", names
        if id_ in history.listed:
            kind, unneeded = "parts", [name for name in names if summary.is_in_parts(name)]
        if unneeded and id_ not in owned and is_old(objects[name] for name in unneeded):
            garbage.append(_garbage(kind, id_, unneeded, objects))
    old_leases = [name for name in expired if is_old([leases[name]])]
    temporary = {name: entry for name, entry in files.unfinished().items() if is_old([entry])}
    joined = files.entries("tables")
    unused = [name for name in joined if page_of(name) not in history.joined and is_old([joined[name]])]
    expired_states = files.entries("snapshots")
    dropped = [name for name in history.dropped if name in expired_states]
    garbage += [_garbage("snapshots", "snapshots", dropped, expired_states)] if dropped else []
    garbage += [_garbage("tables", "tables", unused, joined)] if unused else []
    garbage += [_garbage("leases", lease.FOLDER, old_leases, leases)] if old_leases else []
    garbage += [_garbage("temporary", "", temporary, temporary)] if temporary else []
    return garbage


@dataclass(frozen=True, slots=True)
class _History:
    """What snapshots need. `dropped` are the names of those that expired longer ago than the grace period."""

    listed: set[str]
    """Segments that the other snapshots list, and additions to them."""
    joined: set[str]
    """Ids of the pages of the newest snapshot."""
    dropped: list[str]

    @classmethod
    def of(cls, files: Files, grace: float, now: float) -> _History:
        """Read every snapshot. Raises DamageError if one is lost or damaged that has not expired."""
        states = snapshots.history(files, expired=True)
        entries = files.entries("snapshots")
        settled = [s for s in states if now - lease.modified(entries, snapshots.name_of(s.number)) > grace]
        dropped = {s.number for s in states if settled and settled[-1].has_expired(s.number)}
        listed = ids_of(entry for state in states if state.number not in dropped for entry in state.segments)
        joined = {page.id for page, _ in located(states[-1].pages)} if states else set()
        return cls(listed, joined, [snapshots.name_of(number) for number in sorted(dropped)])


def _owned(files: Files, names: list[str]) -> set[str]:
    writers = [name for name in names if not name.startswith(f"{lease.FOLDER}/gc-")]
    return {id_ for data in files.read_many(writers).values() for id_ in lease.segments_of(data)}


def _collect(files: Files, head: Snapshot, grace: float) -> list[Garbage]:
    """Remove what `find_garbage` returns, except what a writer claims in the meantime, and return what was removed."""
    candidates = find_garbage(files, grace, lease.store_time(files))
    if not candidates:
        return []
    ids = [garbage.name for garbage in candidates if garbage.kind == "segment"]
    with lease.collecting(files, ids) as own:
        claimed = {id_ for claims in lease.active(files, own, collectors=False).values() for id_ in claims}
        ids = [id_ for id_ in ids if id_ not in claimed]
        # After this commit, no snapshot can list these segments any more, even if a writer has not noticed us.
        dropped = {name for garbage in candidates if garbage.kind == "snapshots" for name in garbage.objects}
        collected = set(snapshots.commit(files, head, lambda newest: _without(files, newest, ids, dropped)).collected)
        removed = []
        for garbage in candidates:
            if garbage.kind == "segment" and (garbage.name in claimed or garbage.name not in collected):
                continue
            files.remove(sorted(garbage.objects, key=_order))
            removed.append(garbage)
    return removed


def segment_of(name: str) -> str | None:
    """Return the id of the segment that an object belongs to; None if it belongs to none."""
    match = _OF_SEGMENT.match(name)
    return match and (match["segment"] or match["manifest"] or match["summary"])


def _order(name: str) -> int:
    """Return when to remove an object: filters first, then snapshots, tables last.

    If the removal is stopped, the tables still say which models the filters belong to, and `purge` finds them.
    """
    if name.startswith(("summaries/", "tables/")) or f"/{schema.FILTERS.name}/" in name:
        return 0
    return 1 if name.startswith("snapshots/") else 3 if name.endswith(".safetensors") else 2


def remove_segments(files: Files, head: Snapshot, ids: list[str], dropped: list[int]) -> list[Garbage]:
    """Remove segments that only `dropped` snapshots list, these snapshots and joined tables, whatever their age.

    What an interrupted run has left of other collected segments is removed too.
    """
    names = {snapshots.name_of(number) for number in dropped}
    with lease.collecting(files, ids):
        collected = set(snapshots.commit(files, head, lambda newest: _without(files, newest, ids, names)).collected)
        removed = []
        for folder, kind in (("snapshots", "snapshots"), ("tables", "tables"), *((f, "segment") for f in _FOLDERS)):
            entries = files.entries(folder)
            chosen: dict[str, list[str]] = defaultdict(list)
            for name in entries:
                id_ = segment_of(name)
                if id_ in collected:
                    chosen[str(id_)].append(name)
                elif kind == "tables" or name in names:
                    chosen[kind].append(name)
            removed += [_garbage(kind, id_, objects, entries) for id_, objects in chosen.items()]
        temporary = {name: entry for name, entry in files.unfinished().items() if segment_of(name) in collected}
        removed += [_garbage("temporary", "", temporary, temporary)] if temporary else []
        files.remove(sorted((name for garbage in removed for name in garbage.objects), key=_order))
    return removed


def _without(files: Files, head: Snapshot | None, ids: list[str], dropped: Collection[str]) -> Snapshot | None:
    """Return the snapshot that marks these segments as collected, unless listed by now; None if there is no change.

    What the `dropped` snapshots list does not count.
    """
    head = snapshots.existing(files, head)
    states = snapshots.history(files, expired=True) if ids else []
    listed = ids_of(e for state in states if snapshots.name_of(state.number) not in dropped for e in state.segments)
    new = [id_ for id_ in ids if id_ not in listed and id_ not in head.collected]
    return head.next("gc", collected=(*head.collected, *new)) if new else None


def _garbage(kind: str, name: str, names: Iterable[str], entries: Mapping[str, ObjectInfo]) -> Garbage:
    objects = tuple(names)
    return Garbage(kind, name, objects, sum(entries[object_name].size or 0 for object_name in objects))
