"""The list of segments that make a database, the commit that adds to it, and its history.

A snapshot is one small JSON object, `snapshots/<number>.json`, put where there is none: whoever puts it first has
committed. It carries a nonce, so that a writer whose reply was lost can tell its own from another's, and the SHA-256
of its content. A mark `<number>.committed` follows it: without the marks a database whose newest snapshot is
lost would look like an older one that is whole. Snapshots are never removed: their history is what keeps a segment.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from filterdb import logs, schema
from filterdb.errors import ConflictError, DamageError, StoreError, StoreMissingError, UsageError
from filterdb.schema import WEIGHTS
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.segment import RESTORE, Segment

_NAME = re.compile(r"snapshots/(\d{8})\.(json|committed)")

log = logging.getLogger(__name__)

COMMIT_TRIES = 20
"""How often a commit is put on top of others' before it gives up."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment as a snapshot lists it."""

    id: str
    filters: int
    layers: int
    models: int
    skipped: int
    chunk_rows: int
    digests: Mapping[str, str]

    def segment(self, files: Files) -> Segment:
        """The segment itself."""
        return Segment(files, self.id, self.filters, self.chunk_rows)


@dataclass(frozen=True, slots=True)
class Removed:
    """A model that a segment has and the snapshot has not any more."""

    segment: str
    model: str
    filters: int
    layers: int


_CONTENT = ("segments", "basis", "without", "labels")
"""Fields that say what a database holds; the others belong to its history."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A database at one moment: its segments in order, and its basis (None until the first reduce fits one).

    `without`: models of the segments that were removed. `labels`: id of the catalog rows that stand for those of the
    segments. `tags`: names of snapshots, this one or earlier. `collected`: ids of segments that `gc` has removed or is
    removing; no snapshot may list them any more (see `collect`).
    """

    number: int
    action: str
    created: str
    nonce: str
    segments: tuple[Entry, ...] = ()
    basis: str | None = None
    without: tuple[Removed, ...] = ()
    labels: str | None = None
    tags: Mapping[str, int] = field(default_factory=dict)
    collected: tuple[str, ...] = ()
    format: int = schema.FORMAT

    def next(self, action: str, **changes: Any) -> Snapshot:
        """The snapshot after this one, not committed yet."""
        kept = {name: getattr(self, name) for name in (*_CONTENT, "tags", "collected")}
        return new(action, self.number + 1, **{**kept, **changes})

    def restoring(self, old: Snapshot) -> Snapshot:
        """Return the snapshot after this one, not committed yet, that holds what an older one held."""
        return self.next("restore", **{name: getattr(old, name) for name in _CONTENT})

    def has_content_of(self, other: Snapshot) -> bool:
        """Whether the same models stand in both, under the same labels."""
        return (self.segments, self.without, self.labels) == (other.segments, other.without, other.labels)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of filters, layers and models."""
        return {
            "filters": sum(e.filters for e in self.segments) - sum(r.filters for r in self.without),
            "layers": sum(e.layers for e in self.segments) - sum(r.layers for r in self.without),
            "models": sum(e.models for e in self.segments) - len(self.without),
        }

    def to_json(self) -> bytes:
        """Canonical bytes, with the SHA-256 of everything else."""
        content = asdict(self)
        return canonical({**content, "sha256": digest(canonical(content))})


def new(action: str, number: int = 0, **fields: Any) -> Snapshot:
    """A snapshot with a fresh nonce and the present time (UTC)."""
    return Snapshot(number, action, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex, **fields)


def name_of(number: int) -> str:
    """Place of a snapshot below the root."""
    return f"snapshots/{number:08d}.json"


def mark_of(number: int) -> str:
    """Place of the mark that says that a snapshot was committed."""
    return f"snapshots/{number:08d}.committed"


def numbers(files: Files) -> tuple[list[int], list[int]]:
    """Numbers of the snapshots that are there, and of those that must have been and are not; rising."""
    found = [match for match in map(_NAME.fullmatch, files.list("snapshots")) if match]
    there = {int(match[1]) for match in found if match[2] == "json"}
    end = max((int(match[1]) for match in found), default=-1) + 1
    return sorted(there), sorted(set(range(end)) - there)


def latest(files: Files) -> Snapshot | None:
    """The newest snapshot; None where there is no database yet. Raises DamageError where the newest is lost."""
    there, lost = numbers(files)
    if lost and (not there or lost[-1] > there[-1]):
        raise DamageError(_lost(files, lost[-1]))
    return read(files, there[-1]) if there else None


def existing(files: Files, head: Snapshot | None) -> Snapshot:
    """Return `head`, the newest snapshot. Raises StoreMissingError if the database has none any more."""
    if head is None:
        raise StoreMissingError(f"{files.root}: expected a filterdb database, found no snapshot; was it removed?")
    return head


def history(files: Files) -> list[Snapshot]:
    """Return every snapshot, oldest first. Raises DamageError where one is lost or damaged."""
    readable, damaged = survey(files)
    if damaged:
        raise DamageError(next(iter(damaged.values())))
    return readable


def survey(files: Files) -> tuple[list[Snapshot], dict[int, str]]:
    """Return the snapshots that can be read, oldest first, and what is wrong with each of the others, by number."""
    there, lost = numbers(files)
    readable, damaged = [], {number: _lost(files, number) for number in lost}
    for number in there:
        try:
            readable.append(read(files, number))
        except DamageError as error:
            damaged[number] = str(error)
    return readable, dict(sorted(damaged.items()))


def _lost(files: Files, number: int) -> str:
    return (
        f"{files.url(name_of(number))}: expected the snapshot that was committed under this number, is missing; "
        "restore it from a copy; --snapshot N opens an earlier one, `filterdb restore` goes back to it"
    )


def tagged(files: Files, name: str) -> Snapshot:
    """The snapshot that a tag names. Raises UsageError where there is no such tag."""
    head = latest(files)
    tags = {} if head is None else head.tags
    if name not in tags:
        known = ", ".join(sorted(tags)) or "none"
        raise UsageError(f"{files.root}: expected a snapshot's number or a tag, got {name!r}; there are tags: {known}")
    return read(files, tags[name])


def read(files: Files, number: int) -> Snapshot:
    """One snapshot. Raises UsageError where there is none, DamageError where it is not what was committed."""
    url = files.url(name_of(number))
    try:
        return files.read_valid(name_of(number), lambda data: _decode(data, number, url))
    except StoreMissingError as error:
        if mark_of(number) in files.list("snapshots"):
            raise DamageError(_lost(files, number)) from error
        raise UsageError(f"{url}: expected a snapshot, found none; `filterdb snapshots` lists them") from error


def _decode(data: bytes, number: int, url: str) -> Snapshot:
    try:
        content = json.loads(data)
        # The digest first: a format that nobody knows may be a flipped bit. Every format has it in the same place.
        expected = content.pop("sha256")
        if digest(canonical(content)) != expected:
            raise DamageError(f"{url}: expected content with SHA-256 {expected[:16]}…, got another; {RESTORE}")
        if content["format"] not in schema.READABLE:
            raise UsageError(
                f"{url}: expected store format {' or '.join(map(str, schema.READABLE))}, got {content['format']}; "
                "install a newer filterdb: pip install --upgrade filterdb"
            )
        if content["number"] != number:
            raise DamageError(f"{url}: expected snapshot {number}, got {content['number']}; {RESTORE}")
        entries = tuple(Entry(**entry) for entry in content.pop("segments"))
        without = tuple(Removed(**one) for one in content.pop("without", ()))
        collected = tuple(map(str, content.pop("collected", ())))
        return Snapshot(segments=entries, without=without, collected=collected, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise DamageError(f"{url}: expected a snapshot's JSON, got damage ({error}); {RESTORE}") from error


Build = Callable[[Snapshot | None], Snapshot | None]
"""Makes the snapshot to commit on top of one; None where there is nothing to do."""


def commit(files: Files, base: Snapshot | None, build: Build) -> Snapshot:
    """Put the snapshot that `build` makes on top of `base`; on top of others' if they were first.

    `build` gets the snapshot to build on; it raises ConflictError where its change does not fit there any more, and
    gives None where the change is in it already.
    """
    for _ in range(COMMIT_TRIES):
        wanted = build(base)
        if wanted is None:
            return existing(files, base)
        names = files.list("snapshots")
        if mark_of(wanted.number) in names and name_of(wanted.number) not in names:
            # Later snapshots may have been built on the one that is lost: this one would not be in them.
            raise DamageError(_lost(files, wanted.number))
        if files.create(name_of(wanted.number), wanted.to_json()):
            mark(files, wanted.number)
            known = set() if base is None else {entry.id for entry in base.segments}
            added = [entry.id for entry in wanted.segments if entry.id not in known]
            logs.event(log, "committed", url=files.root, snapshot=wanted.number, action=wanted.action, segments=added)
            return wanted
        base = read(files, wanted.number)
    raise ConflictError(
        f"{files.root}: expected to commit within {COMMIT_TRIES} tries, others were always first; run again"
    )


def mark(files: Files, number: int) -> None:
    """Say that snapshots up to this one were committed: a writer that was killed may have left the last unmarked.

    A store that refuses is told of, no more: the snapshot is committed all the same.
    """
    try:
        marked = files.list("snapshots")
    except StoreError as error:
        log.warning("snapshot %d is committed, but not marked: %s", number, error)
        return
    for one in range(number + 1):
        if mark_of(one) not in marked:
            try:
                files.create(mark_of(one), b"committed\n")
            except StoreError as error:
                log.warning("snapshot %d is committed, but not marked: %s", one, error)


@dataclass(frozen=True, slots=True)
class StoredBasis:
    """A basis as it stands in the store: mean (9,), components (9, 9), weights (9,), range, where it was fitted."""

    mean: list[float]
    components: list[list[float]]
    explained_variance_ratio: list[float]
    range: list[float]
    snapshot: int
    filters: int
    id: str = field(default="")

    @property
    def is_usable(self) -> bool:
        """Whether it weighs the components at all: a basis of too few or equal filters would freeze zeros."""
        return self.filters > WEIGHTS and sum(self.explained_variance_ratio) > 0

    def content(self) -> bytes:
        """Canonical bytes, the id left out: they give the id."""
        return canonical({key: value for key, value in asdict(self).items() if key != "id"})

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """mean (9,), components (9, 9), ratios (9,) float64."""
        return np.array(self.mean), np.array(self.components), np.array(self.explained_variance_ratio)


def basis_name(basis_id: str) -> str:
    """Place of a basis below the root."""
    return f"bases/{basis_id}.json"


def named(basis: StoredBasis) -> StoredBasis:
    """The basis with its id, the hash of its content."""
    return replace(basis, id=digest(basis.content())[:16])


def write_basis(files: Files, basis: StoredBasis) -> StoredBasis:
    """Store a named basis; gives it."""
    if not files.create(basis_name(basis.id), basis.content()):
        raise DamageError(f"{files.url(basis_name(basis.id))}: expected the basis of this name, got other bytes")
    return basis


def read_basis(files: Files, basis_id: str) -> StoredBasis:
    """A stored basis. Raises DamageError where it is missing or not what was committed."""
    content = _read_named(files, basis_name(basis_id), basis_id, "`filterdb refit` fits another")
    return StoredBasis(**content, id=basis_id)


Rows = Mapping[str, Mapping[str, str]]
"""Catalog rows by model id: the labels and `extra`, as the models' table has them."""


def labels_name(labels_id: str) -> str:
    """Place of catalog rows below the root."""
    return f"labels/{labels_id}.json"


def write_labels(files: Files, rows: Rows) -> str:
    """Store catalog rows; gives their id, the hash of their content."""
    data = canonical({model: dict(row) for model, row in rows.items()})
    labels_id = digest(data)[:16]
    if not files.create(labels_name(labels_id), data):
        raise DamageError(f"{files.url(labels_name(labels_id))}: expected the rows of this name, got other bytes")
    return labels_id


def read_labels(files: Files, labels_id: str | None) -> Rows:
    """Stored catalog rows; {} for None. Raises DamageError where they are missing or not what was committed."""
    return {} if labels_id is None else _read_named(files, labels_name(labels_id), labels_id, "restore it from a copy")


def _read_named(files: Files, name: str, id_: str, remedy: str) -> dict[str, Any]:
    """A JSON object that is named by its content's hash."""
    url = files.url(name)

    def decode(data: bytes) -> dict[str, Any]:
        if digest(data)[:16] != id_:
            raise DamageError(f"{url}: expected content with SHA-256 {id_}…, got other bytes; restore it from a copy")
        content: dict[str, Any] = json.loads(data)
        return content

    try:
        return files.read_valid(name, decode)
    except StoreMissingError as error:
        raise DamageError(f"{url}: expected to be there, as the snapshot names it, is missing; {remedy}") from error
