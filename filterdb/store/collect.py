"""Collection of what no snapshot lists: segments of ingests that never ended, their summaries, leftovers.

Only what is older than a grace and what no live writer owns. Snapshots, bases and labels stay: a reader at any
snapshot of the history keeps all that it needs.

A writer that was suspended (a laptop's lid, a virtual machine that pauses) looks dead and comes back. Therefore the
collector commits a snapshot before it removes a segment, and that snapshot names the segment in `collected`, as does
every later one. Commits are numbered one after the other, so the writer either committed first, and the segment is
listed and stays, or it has to commit on top of a snapshot that says that its segment is gone, and gives up. A segment
of the same models that is written later gets another id, so that a collector which was suspended cannot remove it.
Neither depends on a clock.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from filterdb.errors import StoreError, StoreMissingError
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, as_url
from filterdb.store.files import Files
from filterdb.store.local import Found
from filterdb.store.snapshot import Snapshot

GRACE = 3600.0
"""Seconds for which everything is left alone after it was last written."""

_FOLDERS = ("segments", "manifests", "summaries")
_OF_SEGMENT = re.compile(
    r"segments/(?P<segment>[^/]+)\.zarr/|manifests/(?P<manifest>[^/]+)\.json$|summaries/(?P<summary>[^/]+)/"
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Objects that nobody needs. `kind`: segment (never committed, with its summaries), parts (of a pass that never
    ended), leases (of writers that are gone), temporary (files that a writer was killed over)."""

    kind: str
    name: str
    objects: tuple[str, ...]
    bytes: int


def gc(url: AnyDatabase, *, delete: bool = False, grace: float = GRACE) -> list[Garbage]:
    """List what no snapshot of the database at `url` lists and no live writer owns, untouched for `grace` seconds.

    With `delete`, remove it and return what was removed. Raises StoreMissingError where there is no database,
    DamageError where its history is not whole.
    """
    files = Files.at(as_url(url))
    head = snapshots.latest(files)
    if head is None:
        # What has no snapshot at all may be an ingest's first.
        raise StoreMissingError(f"{files.root}: expected a filterdb database, found no snapshot; nothing is removed")
    if delete:
        return _collect(files, head, grace)
    try:
        now = lease.store_time(files)
    except StoreError:
        now = time.time()  # a store that cannot be written: nothing is removed by this time
    return find_garbage(files, grace, now)


def find_garbage(files: Files, grace: float, now: float) -> list[Garbage]:
    """Return what could be removed at `now`, by the store's clock.

    Raises DamageError where the history is not whole: what it lists is not known then.
    """
    # In this order: a writer puts its lease before its first object, and its snapshot before it gives up its lease.
    objects = {name: entry for folder in _FOLDERS for name, entry in files.entries(folder).items()}
    leases = files.entries(lease.FOLDER)
    gone = lease.expired(leases, now)
    owned = _owned(files, [name for name in leases if name not in gone])
    listed = _listed(files)

    def is_old(entries: Iterable[Found]) -> bool:
        return all(now - entry.modified > grace for entry in entries)  # an unknown time (NaN) is not old

    by_segment: dict[str, list[str]] = defaultdict(list)
    for name in objects:
        match = _OF_SEGMENT.match(name)
        if match:
            by_segment[match["segment"] or match["manifest"] or match["summary"]].append(name)
    garbage = []
    for id_, names in by_segment.items():
        kind, own = "segment", names
        if id_ in listed:
            kind, own = "parts", [name for name in names if name.startswith(f"summaries/{id_}/parts/")]
        if own and id_ not in owned and is_old(objects[name] for name in own):
            garbage.append(_garbage(kind, id_, own, objects))
    old = [name for name in gone if is_old([leases[name]])]
    temporary = {name: entry for name, entry in files.unfinished().items() if is_old([entry])}
    garbage += [_garbage("leases", lease.FOLDER, old, leases)] if old else []
    garbage += [_garbage("temporary", "", temporary, temporary)] if temporary else []
    return garbage


def _owned(files: Files, names: list[str]) -> set[str]:
    writers = [name for name in names if not name.startswith(f"{lease.FOLDER}/gc-")]
    return {id_ for data in files.read_many(writers).values() for id_ in lease.segments_of(data)}


def _collect(files: Files, head: Snapshot, grace: float) -> list[Garbage]:
    """Remove what `find_garbage` returns and nobody claims meanwhile, and return it."""
    candidates = find_garbage(files, grace, lease.store_time(files))
    if not candidates:
        return []
    ids = [garbage.name for garbage in candidates if garbage.kind == "segment"]
    with lease.collecting(files, ids) as own:
        claimed = {id_ for claims in lease.active(files, own, collectors=False).values() for id_ in claims}
        ids = [id_ for id_ in ids if id_ not in claimed]
        # From here on no commit can list them, whatever a writer knows of us and we of it.
        collected = set(snapshots.commit(files, head, lambda newest: _without(files, newest, ids)).collected)
        removed = []
        for garbage in candidates:
            if garbage.kind == "segment" and (garbage.name in claimed or garbage.name not in collected):
                continue
            files.remove(garbage.objects)
            removed.append(garbage)
    return removed


def _without(files: Files, head: Snapshot | None, ids: list[str]) -> Snapshot | None:
    """Return the snapshot that gives up these segments, but those that are listed by now; None for nothing new."""
    head = snapshots.existing(files, head)
    listed = _listed(files) if ids else set()
    new = [id_ for id_ in ids if id_ not in listed and id_ not in head.collected]
    return head.next("gc", collected=(*head.collected, *new)) if new else None


def _listed(files: Files) -> set[str]:
    """Return the segments that any snapshot lists."""
    return {entry.id for state in snapshots.history(files) for entry in state.segments}


def _garbage(kind: str, name: str, names: Iterable[str], found: Mapping[str, Found]) -> Garbage:
    own = tuple(names)
    return Garbage(kind, name, own, sum(found[object_name].size or 0 for object_name in own))
