"""Collection of what no snapshot lists: segments of ingests that never ended, their summaries, leftovers.

Only what is older than a grace and what no live writer owns. Snapshots, bases and labels stay: a reader at any
snapshot of the history keeps all that it needs.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from filterdb.errors import InterruptedRunError, StoreMissingError
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, as_url
from filterdb.store.files import Files
from filterdb.store.local import Found

GRACE = 3600.0
"""Seconds for which everything is left alone after it was last written."""

_WITHIN = lease.LIVE / 2
"""Seconds after which an announcement is about to expire and protects nobody."""

_OF_SEGMENT = re.compile(r"(?:segments/(?P<segment>[^/]+)\.zarr|summaries/(?P<summary>[^/]+))/")
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Garbage:
    """Objects that nobody needs. `kind`: segment (never committed, with its summaries), parts (of a pass that never
    ended), leases (of writers that are gone), temporary (files that a writer was killed over)."""

    kind: str
    name: str
    objects: tuple[str, ...]
    bytes: int


def gc(url: AnyDatabase, *, delete: bool = False, grace: float = GRACE) -> list[Garbage]:
    """What no snapshot of the database at `url` lists and no live writer owns, untouched for `grace` seconds.

    Looked up only, unless `delete`: then removed, and what was removed is given. Raises StoreMissingError where there
    is no database, DamageError where its history is not whole.
    """
    files = Files.at(as_url(url))
    if snapshots.latest(files) is None:
        # What has no snapshot at all may be an ingest's first.
        raise StoreMissingError(f"{files.root}: expected a filterdb database, found no snapshot; nothing is removed")
    return _collect(files, grace) if delete else find_garbage(files, grace)


def find_garbage(files: Files, grace: float) -> list[Garbage]:
    """What would be removed now. Raises DamageError where the history is not whole: nothing is known then."""
    # In this order: a writer puts its lease before its first object, and its snapshot before it gives up its lease.
    objects = files.entries("segments") | files.entries("summaries")
    owned = {id_ for ids in lease.active(files, collectors=False).values() for id_ in ids}
    listed = _listed(files)
    now = time.time()

    def is_old(names: Iterable[str], found: Mapping[str, Found]) -> bool:
        return all(now - found[name].modified > grace for name in names)  # an unknown time (NaN) is not old

    by_segment: dict[str, list[str]] = defaultdict(list)
    for name in objects:
        match = _OF_SEGMENT.match(name)
        if match:
            by_segment[match["segment"] or match["summary"]].append(name)
    found = []
    for id_, names in by_segment.items():
        kind, own = "segment", names
        if id_ in listed:
            kind, own = "parts", [name for name in names if name.startswith(f"summaries/{id_}/parts/")]
        if own and id_ not in owned and is_old(own, objects):
            found.append(_garbage(kind, id_, own, objects))
    leases = {name: entry for name, entry in files.entries(lease.FOLDER).items() if now - entry.modified > lease.LIVE}
    leases = {name: entry for name, entry in leases.items() if now - entry.modified > grace}
    temporary = {name: entry for name, entry in files.unfinished().items() if now - entry.modified > grace}
    found += [_garbage("leases", lease.FOLDER, leases, leases)] if leases else []
    found += [_garbage("temporary", "", temporary, temporary)] if temporary else []
    return found


def _collect(files: Files, grace: float) -> list[Garbage]:
    """Remove what `find_garbage` finds and nobody claims meanwhile; gives what was removed."""
    candidates = find_garbage(files, grace)
    ids = [one.name for one in candidates if one.kind == "segment"]
    if not candidates:
        return []
    removed = []
    with lease.collecting(files, ids) as own:
        began = time.monotonic()
        claimed = {id_ for found in lease.active(files, collectors=False).values() for id_ in found} | _listed(files)
        for garbage in candidates:
            if garbage.kind == "segment" and garbage.name in claimed:
                continue
            for start in range(0, len(garbage.objects), _BATCH):
                if time.monotonic() - began > _WITHIN:
                    raise InterruptedRunError(f"{files.url(own)}: removing takes longer than announced; run again")
                files.remove(garbage.objects[start : start + _BATCH])
            removed.append(garbage)
    return removed


def _listed(files: Files) -> set[str]:
    """Segments that any snapshot lists."""
    return {entry.id for state in snapshots.history(files) for entry in state.segments}


def _garbage(kind: str, name: str, names: Iterable[str], found: Mapping[str, Found]) -> Garbage:
    own = tuple(names)
    return Garbage(kind, name, own, sum(found[one].size for one in own))
