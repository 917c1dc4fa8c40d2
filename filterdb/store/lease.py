"""Who is writing a segment just now, and who is collecting: so that neither wastes the other's work.

`ingests/<nonce>.json` names the segment that a writer writes. It is renewed while the writer lives and counts for LIVE
seconds after. A collector leaves `ingests/gc-<nonce>.json`, which names what it is about to remove. Each puts its own
first and then looks for the other's: of two at the same time at least one sees the other.

Ages are told by the store's clock alone: the times of two objects of the store are compared, never a time of the store
with the clock of a machine. Even so a writer that was suspended may lose its lease. What keeps a commit from listing
what was removed is not the lease but `Snapshot.collected` (see `collect`).
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
from filterdb.store.local import Found

FOLDER = "ingests"

LIVE = 900.0
"""Seconds for which a lease counts after it was last renewed."""

RENEW = 60.0
"""Seconds between renewals."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A writer's claim to a segment."""

    files: Files
    name: str
    segment_id: str

    def put(self) -> None:
        """Put the lease, or renew it."""
        self.files.put({self.name: canonical({"segments": [self.segment_id]})})

    def check(self) -> None:
        """Raise InterruptedRunError where the lease is gone: a collector took this run for dead."""
        if not self.files.read_many([self.name]):
            raise InterruptedRunError(
                f"{self.files.url(self.name)}: this ingest's lease is gone; it was suspended and `filterdb gc` removed "
                "what it had written; nothing is committed, run again"
            )


@contextmanager
def writing(files: Files, segment_id: str) -> Iterator[Lease]:
    """Own a segment while it is written. Raises InterruptedRunError where a collector is about to remove it.

    After a failure the lease is left to expire: what a lost reply has made of the commit is not known here.
    """
    own = Lease(files, f"{FOLDER}/{uuid.uuid4().hex}.json", segment_id)
    own.put()
    for other, ids in active(files, own.name, collectors=True).items():
        if segment_id in ids:
            raise InterruptedRunError(
                f"{files.url(other)}: expected segment {segment_id} for this ingest alone, `filterdb gc` is removing "
                "what an earlier run left of it; run again in a moment"
            )
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW):
            try:
                own.check()  # a lease that is gone must stay gone
                own.put()
            except StoreError as error:
                log.warning("lease not renewed: %s", error)
            except InterruptedRunError:
                return  # the commit says so

    heart = threading.Thread(target=renew, name="filterdb-lease", daemon=True)
    heart.start()
    try:
        yield own
    finally:
        ended.set()
        heart.join()
    try:
        files.remove([own.name])
    except StoreError as error:
        log.warning("lease stays until it expires: %s", error)


@contextmanager
def collecting(files: Files, ids: list[str]) -> Iterator[str]:
    """Announce which segments are about to be removed. Yield the name of the announcement."""
    name = f"{FOLDER}/gc-{uuid.uuid4().hex}.json"
    files.put({name: canonical({"segments": ids})})
    yield name
    files.remove([name])


def active(files: Files, own: str, *, collectors: bool) -> dict[str, list[str]]:
    """Return the leases that count, or the collectors' announcements: name → ids of segments.

    `own`: an object that the caller has just put into the same folder, whose time is the present. What cannot be read
    owns nothing.
    """
    entries = files.entries(FOLDER)
    gone = expired(entries, modified(entries, own))
    names = [name for name in entries if name.startswith(f"{FOLDER}/gc-") == collectors and name not in gone]
    contents = files.read_many([name for name in names if name != own])
    return {name: segments_of(data) for name, data in contents.items()}


def expired(entries: Mapping[str, Found], now: float) -> list[str]:
    """Return the names that were written more than LIVE seconds before `now`; an unknown time counts as now."""
    return [name for name, entry in entries.items() if now - entry.modified > LIVE]


def modified(entries: Mapping[str, Found], name: str) -> float:
    """Return when an object was written, by the store's clock; NaN where it is not listed."""
    return entries[name].modified if name in entries else math.nan


def store_time(files: Files) -> float:
    """Return the present time by the store's clock, taken from an object that is put for it.

    NaN where the store tells no times: then nothing is old, and every lease counts.
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
