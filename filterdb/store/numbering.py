"""Find the numbers of a database's snapshots.

A listing of all snapshots takes longer the older a database is. Therefore each commit to an object store also puts the
newest number into `snapshots/newest`. It is only a hint: it may be behind, since a writer may be killed before it puts
it, and several may put it in any order. What counts are the snapshots and their marks, which are looked up from there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from filterdb.errors import StoreError
from filterdb.store.files import Files

HINT = "snapshots/newest"
"""Object with the number of the newest snapshot, or of an earlier one."""

_NAME = re.compile(r"snapshots/(\d{8})\.(json|committed)")

_PROBES = 8
"""Snapshots that are looked for at a time in a store that lists nothing."""

_AHEAD = 3
"""Snapshots that are looked for at a time from the hint on."""

log = logging.getLogger(__name__)


def name_of(number: int) -> str:
    """Return the name of a snapshot's object."""
    return f"snapshots/{number:08d}.json"


def mark_of(number: int) -> str:
    """Return the name of the mark that a snapshot was committed."""
    return f"snapshots/{number:08d}.committed"


def numbers(files: Files) -> tuple[list[int], list[int]]:
    """Return the numbers of the snapshots that exist, and of those that are lost, in ascending order."""
    if files.web:
        return _probe(files)
    matches = [match for match in map(_NAME.fullmatch, files.list("snapshots")) if match]
    present = {int(match[1]) for match in matches if match[2] == "json"}
    end = max((int(match[1]) for match in matches), default=-1) + 1
    return sorted(present), sorted(set(range(end)) - present)


def _probe(files: Files) -> tuple[list[int], list[int]]:
    """Return what `numbers` does for a store that lists nothing, by looking for objects by name.

    Snapshots are numbered without gaps and never removed, so the end is searched in steps that grow, then by
    bisection. Of those before the newest, one that is lost is noticed when it is read.
    """

    lost: set[int] = set()

    def exist(numbers: Sequence[int]) -> list[bool]:
        contents = files.read_many([name for number in numbers for name in (name_of(number), mark_of(number))])
        # Some servers answer every request with a page.
        stored = {name for name, data in contents.items() if data.startswith((b"{", b"committed"))}
        lost.update(n for n in numbers if mark_of(n) in stored and name_of(n) not in stored)
        return [name_of(number) in stored or number in lost for number in numbers]

    low, high, step = -1, None, 1  # `low` exists or is -1; `high` does not exist
    while high is None or high - low > 1:
        width = step if high is None else max(1, (high - low) // (_PROBES + 1))
        probed = [n for n in range(low + width, low + width * _PROBES + 1, width) if high is None or n < high]
        absent = [n for n, exists in zip(probed, exist(probed), strict=True) if not exists]
        high = absent[0] if absent else high
        low = max((n for n in probed if not absent or n < absent[0]), default=low)
        step *= _PROBES
    return sorted(set(range(low + 1)) - lost), sorted(n for n in lost if n <= low)


class Newest(NamedTuple):
    """The newest snapshot: its number, and its bytes if they were read; it may be lost."""

    number: int
    data: bytes | None
    is_lost: bool


def newest(files: Files) -> Newest | None:
    """Return the newest snapshot, with few requests whatever their number; None if there is none."""
    state = _from_hint(files) if files.remote and not files.web else None
    if state is not None:
        return state
    present, lost = numbers(files)
    if lost and (not present or lost[-1] > present[-1]):
        return Newest(lost[-1], None, is_lost=True)
    return Newest(present[-1], None, is_lost=False) if present else None


def _from_hint(files: Files) -> Newest | None:
    """Return the newest snapshot from the hinted number on; None if there is no hint or nothing at that number."""
    hint = files.read_many([HINT]).get(HINT, b"").strip()
    if not (hint.isdigit() and len(hint) <= 8):
        return None
    first, state = int(hint), None
    while True:
        batch = range(first, first + _AHEAD)
        contents = files.read_many([name for number in batch for name in (name_of(number), mark_of(number))])
        existing = [number for number in batch if name_of(number) in contents or mark_of(number) in contents]
        if state is None and first not in existing:
            return None
        if existing:
            data = contents.get(name_of(existing[-1]))
            state = Newest(existing[-1], data, data is None)
        if batch[-1] not in existing:
            return state
        first = batch[-1] + 1


def put_hint(files: Files, number: int) -> None:
    """Put the hint, where it spares a listing. If the store fails, only warn: readers go on from an earlier number."""
    if not files.remote:
        return
    try:
        files.put({HINT: b"%d\n" % number})
    except StoreError as error:
        log.warning("snapshot %d is committed, but readers look for it longer: %s", number, error)
