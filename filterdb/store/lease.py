"""Leases: record which segments are being written, and which are being collected, so that nobody's work is wasted.

A writer puts `ingests/<nonce>.json`, which names its segment. It renews this lease while it lives; the lease is valid
for LEASE_SECONDS after its last renewal. A collector puts `ingests/gc-<nonce>.json`, which names the segments that it
is about to remove. Both put their own object first and then look for the other's, so at least one sees the other.

Ages use the store's clock only: times of two objects of the store are compared, never a time of the store with a local
clock. Even so, a suspended writer may lose its lease. What prevents a commit from listing a removed segment is not the
lease but `Snapshot.collected` (see `collect`).
"""

from __future__ import annotations

import json
import logging
import math
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from filterdb.errors import InterruptedRunError, StoreError
from filterdb.store.canonical import canonical
from filterdb.store.files import Files
from filterdb.store.local import ObjectInfo

FOLDER = "ingests"

LEASE_SECONDS = 900.0
"""Seconds for which a lease is valid after its last renewal."""

RENEW_SECONDS = 60.0
"""Seconds between renewals of a lease."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A writer's claim to a segment."""

    files: Files
    name: str
    segment_id: str

    def put(self) -> None:
        """Create or renew the lease."""
        self.files.put({self.name: canonical({"segments": [self.segment_id]})})

    def check(self) -> None:
        """Raise InterruptedRunError if the lease was removed, because a collector considered this run dead."""
        if not self.files.read_many([self.name]):
            raise InterruptedRunError(
                f"{self.files.url(self.name)}: this ingest's lease is gone; it was suspended and `filterdb gc` removed "
                "what it had written; nothing was committed, run again"
            )


@contextmanager
def writing(files: Files, segment_id: str) -> Iterator[Lease]:
    """Hold a lease on a segment while it is written. Raises InterruptedRunError if a collector is about to remove it.

    After a failure the lease is left to expire, because a commit whose reply was lost may have succeeded.
    """
    lease = Lease(files, f"{FOLDER}/{uuid.uuid4().hex}.json", segment_id)
    lease.put()
    for other, ids in active(files, lease.name, collectors=True).items():
        if segment_id in ids:
            raise InterruptedRunError(
                f"{files.url(other)}: expected segment {segment_id} for this ingest alone, `filterdb gc` is removing "
                "what an earlier run left of it; run again in a moment"
            )
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                lease.check()  # a lease that a collector removed must not be created again
                lease.put()
            except StoreError as error:
                log.warning("lease not renewed: %s", error)
            except InterruptedRunError:
                return  # the writer raises this error before it commits

    renewal = threading.Thread(target=renew, name="filterdb-lease", daemon=True)
    renewal.start()
    try:
        yield lease
    finally:
        ended.set()
        renewal.join()
    try:
        files.remove([lease.name])
    except StoreError as error:
        log.warning("lease stays until it expires: %s", error)


@contextmanager
def collecting(files: Files, ids: list[str]) -> Iterator[str]:
    """Announce which segments are about to be removed, and yield the name of the announcement."""
    name = f"{FOLDER}/gc-{uuid.uuid4().hex}.json"
    files.put({name: canonical({"segments": ids})})
    yield name
    files.remove([name])


def active(files: Files, own: str, *, collectors: bool) -> dict[str, list[str]]:
    """Return the valid leases or, with `collectors`, the collectors' announcements: name → ids of segments.

    `own` is an object that the caller has just put into the same folder; its time is used as the present. Objects that
    cannot be read claim nothing.
    """
    entries = files.entries(FOLDER)
    outdated = expired(entries, modified(entries, own))
    names = [name for name in entries if name.startswith(f"{FOLDER}/gc-") == collectors and name not in outdated]
    contents = files.read_many([name for name in names if name != own])
    return {name: segments_of(data) for name, data in contents.items()}


def expired(entries: Mapping[str, ObjectInfo], now: float) -> list[str]:
    """Return the names written more than LEASE_SECONDS before `now`. An unknown time counts as now."""
    return [name for name, entry in entries.items() if now - entry.modified > LEASE_SECONDS]


def modified(entries: Mapping[str, ObjectInfo], name: str) -> float:
    """Return when an object was written, by the store's clock; NaN if it is not listed."""
    return entries[name].modified if name in entries else math.nan


def store_time(files: Files) -> float:
    """Return the present time of the store's clock, which is the time of an object that is put for this purpose.

    NaN if the store reports no times. Then nothing counts as old, and every lease as valid.
    """
    name = f"{FOLDER}/clock-{uuid.uuid4().hex}"
    files.put({name: b"clock\n"})
    try:
        return modified(files.entries(FOLDER), name)
    finally:
        files.remove([name])


def segments_of(data: bytes) -> list[str]:
    """Return the segments that a lease or an announcement names."""
    try:
        return [str(segment_id) for segment_id in json.loads(data)["segments"]]
    except (ValueError, KeyError, TypeError):
        return []
