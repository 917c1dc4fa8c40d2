"""Who is writing a segment just now, and who is collecting: so that neither takes it from the other.

`ingests/<nonce>.json` names a segment; it is renewed while its writer lives, and counts for LIVE seconds after. A
collector leaves `ingests/gc-<nonce>.json` that names what it is about to remove. Each puts its own first and looks for
the other's then: of two at the same time at least one sees the other.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from filterdb.errors import InterruptedRunError, StoreError
from filterdb.store.canonical import canonical
from filterdb.store.files import Files

FOLDER = "ingests"

LIVE = 900.0
"""Seconds for which a lease counts after it was last renewed."""

RENEW = 60.0
"""Seconds between renewals."""

log = logging.getLogger(__name__)


@contextmanager
def writing(files: Files, segment_id: str) -> Iterator[None]:
    """Own a segment while it is written. Raises InterruptedRunError where a collector is about to remove it.

    After a failure the lease is left to expire: what a lost reply has made of the commit is not known here.
    """
    name = f"{FOLDER}/{uuid.uuid4().hex}.json"
    content = canonical({"segments": [segment_id]})
    files.put({name: content})
    for other, ids in active(files, collectors=True).items():
        if segment_id in ids:
            raise InterruptedRunError(
                f"{files.url(other)}: expected segment {segment_id} for this ingest alone, `filterdb gc` is removing "
                "what an earlier run left of it; run again in a moment"
            )
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW):
            try:
                files.put({name: content})
            except StoreError as error:
                log.warning("lease not renewed: %s", error)

    heart = threading.Thread(target=renew, name="filterdb-lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
    try:
        files.remove([name])
    except StoreError as error:
        log.warning("lease stays until it expires: %s", error)


@contextmanager
def collecting(files: Files, ids: list[str]) -> Iterator[str]:
    """Announce what is about to be removed; gives the name of the announcement."""
    name = f"{FOLDER}/gc-{uuid.uuid4().hex}.json"
    files.put({name: canonical({"segments": ids})})
    yield name
    files.remove([name])


def active(files: Files, *, collectors: bool) -> dict[str, list[str]]:
    """Leases that count, or collectors' announcements: name → ids of segments. What is not readable owns nothing."""
    found = {}
    for name, entry in files.entries(FOLDER).items():
        is_collector = name.startswith(f"{FOLDER}/gc-")
        # A time that is not known counts as now.
        if is_collector == collectors and not time.time() - entry.modified > LIVE:
            found[name] = _segments(files.read_many([name]).get(name, b""))
    return found


def _segments(data: bytes) -> list[str]:
    try:
        return [str(one) for one in json.loads(data)["segments"]]
    except (ValueError, KeyError, TypeError):
        return []
