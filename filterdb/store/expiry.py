"""Expire snapshots: commit one that drops others from the history, so that `gc` may remove what only they list.

The newest snapshot never expires. Ages are by the store's clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from filterdb.errors import UsageError
from filterdb.store import lease
from filterdb.store import snapshot as snapshots
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.files import Files
from filterdb.store.snapshot import Snapshot

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def expire(
    db: AnyDatabase, *, older_than: str | timedelta | None = None, keep: int | None = None, tags: bool = False
) -> Database:
    """Commit a snapshot that drops earlier ones from the history. `gc` then removes what only they listed.

    Parameters
    ----------
    db
        The database, or its path or URL.
    older_than
        Drop snapshots that were committed longer ago, such as "30d" (m, h, d, w) or a timedelta.
    keep
        Drop all but so many of the newest snapshots. Give either this or `older_than`.
    tags
        Drop tagged snapshots too, with their tags. Default: keep them.

    Returns
    -------
    Database
        The database at the new snapshot, or at the newest if nothing is dropped.

    Raises
    ------
    UsageError
        If neither or both of `older_than` and `keep` are given, or if one has no sense.

    Examples
    --------
    >>> fdb.expire("db", older_than="30d")  # doctest: +SKIP
    """
    db = as_database(db)
    if keep is not None and older_than is None:
        old: Collection[int] = _numbers(db.files)[: -_checked(keep)]
    elif older_than is not None and keep is None:
        old = _older(db.files, _numbers(db.files), parse_age(older_than))
    else:
        got = "neither" if keep is None else "both"
        raise UsageError(
            f"expire: expected `older_than` (an age such as 30d) or `keep` (a number of snapshots), got {got}"
        )
    return drop(db, old, tags=tags)


def _checked(keep: Any) -> int:
    """Return a number of snapshots to keep. Raises UsageError."""
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise UsageError(f"expire: expected to keep at least 1 snapshot, got {keep!r}")
    return keep


def parse_age(age: str | timedelta) -> timedelta:
    """Return a duration from text such as 30d. Raises UsageError."""
    if isinstance(age, timedelta):
        return age
    match = _AGE.fullmatch(str(age).strip())
    if match is None:
        raise UsageError(f"expire: expected an age such as 30d (m, h, d, w), got {age!r}")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def _numbers(files: Files) -> list[int]:
    """Return the numbers of the snapshots of the history, also of those that are lost or damaged."""
    readable, damaged = snapshots.survey(files)
    return sorted([*(state.number for state in readable), *damaged])


def _older(files: Files, numbers: Collection[int], age: timedelta) -> set[int]:
    """Return the snapshots before the first that was committed no longer ago than `age`. Unknown times are recent."""
    now, entries = lease.store_time(files), files.entries("snapshots")
    kept = [n for n in numbers if not now - lease.modified(entries, snapshots.name_of(n)) > age.total_seconds()]
    return {number for number in numbers if number < min(kept, default=max(numbers))}


def drop(db: Database, numbers: Iterable[int], *, tags: bool = False) -> Database:
    """Commit a snapshot that says that these have expired, except tagged ones unless `tags` is true."""
    wanted = set(numbers)

    def build(head: Snapshot | None) -> Snapshot | None:
        head = snapshots.existing(db.files, head)
        tagged = set(head.tags.values())
        dropped = {n for n in wanted if n < head.number and not head.has_expired(n) and (tags or n not in tagged)}
        if not dropped:
            return None
        before = {n for first, last in head.expired for n in range(first, last + 1)}
        left = {name: number for name, number in head.tags.items() if number not in dropped}
        return replace(head.next("expire"), expired=_ranges(dropped | before), tags=left)

    state = snapshots.commit(db.files, snapshots.latest(db.files), build)
    return Database(db.files, state)


def _ranges(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Return the first and last of each run of consecutive numbers."""
    firsts = sorted(number for number in numbers if number - 1 not in numbers)
    lasts = sorted(number for number in numbers if number + 1 not in numbers)
    return tuple(zip(firsts, lasts, strict=True))
