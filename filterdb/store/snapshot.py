"""Snapshots: the list of segments of a database, commits, and the history.

A snapshot is a small JSON object, `snapshots/<number>.json`. It is created only if it does not exist, so the first of
several writers wins. It has a nonce, by which a writer that lost the store's reply recognises its own snapshot, and the
SHA-256 of its content. After it, a mark is written, `<number>.committed`. Without marks, a database whose newest
snapshot is lost would look like an older, intact one. Every segment in the history is kept. Snapshots are removed only
after a later one says that they have expired; their marks stay, so that the numbers have no gaps.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import numpy as np

from filterdb import logs, schema
from filterdb.errors import ConflictError, DamageError, ExpiredSnapshotError, StoreError, StoreMissingError, UsageError
from filterdb.store import collected
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.numbering import mark_of as mark_of  # noqa: PLC0414 - also imported from here
from filterdb.store.numbering import name_of as name_of  # noqa: PLC0414
from filterdb.store.numbering import newest, put_hint
from filterdb.store.numbering import numbers as numbers  # noqa: PLC0414
from filterdb.store.pages import THREES, Entry, Page, paginate, read_pages, write_pages
from filterdb.store.segment import RESTORE
from filterdb.wording import meant

log = logging.getLogger(__name__)

COMMIT_TRIES = 20
"""Number of attempts to commit on top of other writers' snapshots."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A model that a segment contains but the snapshot does not."""

    segment: str
    model: str
    filters: int
    layers: int


_CONTENT = ("segments", "basis", "bases", "without", "labels")
"""Fields that describe what a database contains; the others belong to its history."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a database: its segments in order, and its basis (None until the first reduce fits one).

    `bases`: ids of the bases of other kernel shapes by name.
    `without`: removed models of the segments. `labels`: id of the catalog rows that replace those of the segments.
    `tags`: names of this and earlier snapshots. `collected`: ids of segments that `gc` has removed or is removing, so
    that no later snapshot may list them (see `collect`). `expired`: first and last numbers of the snapshots that are no
    longer part of the history (see `expiry`).
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
    expired: tuple[tuple[int, int], ...] = ()
    format: int = schema.FORMAT
    bases: Mapping[str, str] = field(default_factory=dict)

    def next(self, action: str, **changes: Any) -> Snapshot:
        """Return a snapshot to commit after this one, with these changes."""
        kept = {name: getattr(self, name) for name in (*_CONTENT, "tags", "collected", "expired")}
        return new(action, self.number + 1, **{**kept, **changes})

    def restoring(self, old: Snapshot) -> Snapshot:
        """Return a snapshot to commit after this one, with the content of an older one."""
        return self.next("restore", **{name: getattr(old, name) for name in _CONTENT})

    def has_content_of(self, other: Snapshot) -> bool:
        """Return whether both have the same models with the same labels."""
        return (self.segments, self.without, self.labels) == (other.segments, other.without, other.labels)

    @property
    def layers_key(self) -> str:
        """A text that is equal for snapshots of one database with the same layers, whatever their labels."""
        removed = [[model.segment, model.model] for model in self.without]
        return canonical({"segments": [entry.id for entry in self.segments], "without": removed}).decode()

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of filters, layers and models."""
        return {
            "filters": sum(e.filters for e in self.segments) - sum(r.filters for r in self.without),
            "layers": sum(e.layers for e in self.segments) - sum(r.layers for r in self.without),
            "models": sum(e.models for e in self.segments) - len(self.without),
        }

    def basis_of(self, kernel: schema.Kernel) -> str | None:
        """Return the id of the basis of a kernel shape; None if none is fitted yet."""
        return self.basis if kernel == schema.KERNEL else self.bases.get(schema.kernel_name(kernel))

    def with_basis(self, kernel: schema.Kernel, basis: str) -> Snapshot:
        """Return the same snapshot with another basis of a kernel shape."""
        if kernel == schema.KERNEL:
            return replace(self, basis=basis)
        return replace(self, bases={**self.bases, schema.kernel_name(kernel): basis})

    def has_expired(self, number: int) -> bool:
        """Return whether this snapshot says that another is no longer part of the history."""
        return any(first <= number <= last for first, last in self.expired)

    @property
    def pages(self) -> tuple[Page, ...]:
        """The pages that its list of segments begins with."""
        return paginate(self.segments)[0]

    @property
    def format_needed(self) -> int:
        """The version of the format that its content needs, if that is newer than its own."""
        return schema.FORMAT_OF_BANKS if self.has_banks else self.format

    @property
    def has_banks(self) -> bool:
        """Whether it lists what versions of filterdb before FORMAT_OF_BANKS could not read."""
        return bool(self.bases) or any(entry.banks or entry.kernels != THREES for entry in self.segments)

    def to_json(self) -> bytes:
        """Encode as canonical JSON, with the SHA-256 of all other fields."""
        pages, segments = paginate(self.segments)
        own = asdict(replace(self, segments=()))
        if not self.bases:
            del own["bases"]
        content = {
            **own,
            "format": self.format_needed,
            "pages": [page.id for page in pages],
            "segments": [entry.to_json() for entry in segments],
            "collected": collected.encode(self.collected),
        }
        return canonical({**content, "sha256": digest(canonical(content))})


def new(action: str, number: int = 0, **fields: Any) -> Snapshot:
    """Create a snapshot with a new nonce and the present time (UTC)."""
    return Snapshot(number, action, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex, **fields)


def latest(files: Files) -> Snapshot | None:
    """Read the newest snapshot; None if there is no database yet. Raises DamageError if the newest is lost."""
    head = newest(files)
    if head is not None and head.is_lost:
        raise DamageError(_lost(files, head.number))
    return _read(files, head.number, head.data) if head else None


def existing(files: Files, head: Snapshot | None) -> Snapshot:
    """Return `head`, the newest snapshot. Raises StoreMissingError if the database no longer has any."""
    if head is None:
        raise StoreMissingError(f"{files.root}: expected a filterdb database, found no snapshot; was it removed?")
    return head


def history(files: Files, *, expired: bool = False) -> list[Snapshot]:
    """Read every snapshot of the history, oldest first; with `expired`, also those that have expired.

    Raises DamageError if one of the history is lost or damaged.
    """
    readable, damaged = stored(files)
    newest = readable[-1] if readable else None
    for number, what in damaged.items():
        if newest is None or not newest.has_expired(number):
            raise DamageError(what)
    return readable if expired or newest is None else [s for s in readable if not newest.has_expired(s.number)]


def survey(files: Files) -> tuple[list[Snapshot], dict[int, str]]:
    """Return the snapshots of the history that can be read, oldest first, and what is wrong with others, by number.

    Snapshots that have expired are left out.
    """
    readable, damaged = stored(files)
    if readable:
        newest = readable[-1]
        readable = [state for state in readable if not newest.has_expired(state.number)]
        damaged = {number: what for number, what in damaged.items() if not newest.has_expired(number)}
    return readable, damaged


def stored(files: Files) -> tuple[list[Snapshot], dict[int, str]]:
    """Return what `survey` returns, with the snapshots that have expired."""
    present, lost = numbers(files)
    readable, damaged = [], {number: _lost(files, number) for number in lost}
    contents = files.read_many([name_of(number) for number in present])
    for number in present:
        try:
            readable.append(_read(files, number, contents.get(name_of(number))))
        except DamageError as error:
            damaged[number] = str(error)
    return readable, dict(sorted(damaged.items()))


def _lost(files: Files, number: int) -> str:
    return (
        f"{files.url(name_of(number))}: the committed snapshot {number} is missing; "
        "restore it from a copy; --snapshot N opens an earlier one, `filterdb restore` goes back to it"
    )


def tagged(files: Files, name: str) -> Snapshot:
    """Read the snapshot that has a tag. Raises UsageError if there is no such tag."""
    head = latest(files)
    tags = {} if head is None else head.tags
    if name not in tags:
        known = ", ".join(sorted(tags)) or "none"
        got = f"{name!r}{meant(name, tags)}"
        raise UsageError(f"{files.root}: expected a snapshot's number or a tag, got {got}; there are tags: {known}")
    return read(files, tags[name])


def of_history(files: Files, number: int) -> Snapshot:
    """Read a snapshot as `read` does. Raises ExpiredSnapshotError if it has expired."""
    try:
        head = latest(files)
    except DamageError:
        head = None  # an earlier snapshot can be read all the same
    if head is not None:
        check_kept(files, head, number)
    return read(files, number)


def check_kept(files: Files, head: Snapshot, number: int) -> None:
    """Raise ExpiredSnapshotError if a snapshot is no longer part of the history that `head` has."""
    if head.has_expired(number):
        raise ExpiredSnapshotError(
            f"{files.url(name_of(number))}: expected a snapshot of the history, this one has expired; "
            "`filterdb snapshots` lists those that are left"
        )


def read(files: Files, number: int) -> Snapshot:
    """Read a snapshot. Raises UsageError if it does not exist, DamageError if it differs from what was committed."""
    url = files.url(name_of(number))
    try:
        return _decoded(files, files.read_valid(name_of(number), lambda data: _checked(data, number, url)), url)
    except StoreMissingError as error:
        if mark_of(number) in files.sizes([mark_of(number)], "snapshots"):
            raise DamageError(_lost(files, number)) from error
        raise UsageError(f"{url}: expected a snapshot, found none; `filterdb snapshots` lists them") from error


def _read(files: Files, number: int, data: bytes | None) -> Snapshot:
    """Decode a snapshot's object that was read with others, or read it by itself if it is damaged or missing."""
    url = files.url(name_of(number))
    try:
        if data is not None:
            return _decoded(files, _checked(data, number, url), url)
    except DamageError:
        pass
    return read(files, number)


def _checked(data: bytes, number: int, url: str) -> dict[str, Any]:
    """Return the content of a snapshot's object. Raises DamageError, or UsageError for an unknown format."""
    try:
        content: dict[str, Any] = json.loads(data)
        # Check the digest first, because an unknown format may be a flipped bit. All formats have the same digest.
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
        return content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise _not_json(url, error) from error


def _decoded(files: Files, content: dict[str, Any], url: str) -> Snapshot:
    """Return a snapshot from the content of its object, with the segments of its pages."""
    try:
        pages = read_pages(files, content.pop("pages", ()))
        entries = tuple(map(Entry.from_json, content.pop("segments")))
        without = tuple(Removed(**removed) for removed in content.pop("without", ()))
        ids = collected.decode(files, content.pop("collected", ()))
        expired = tuple((int(first), int(last)) for first, last in content.pop("expired", ()))
        segments = (*(entry for page in pages for entry in page.segments), *entries)
        return Snapshot(segments=segments, without=without, collected=ids, expired=expired, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_json(url, error) from error


def _not_json(url: str, error: Exception) -> DamageError:
    return DamageError(f"{url}: expected a snapshot's JSON, got damage ({error}); {RESTORE}")


Build = Callable[[Snapshot | None], Snapshot | None]
"""Builds the snapshot to commit on top of a given one; None if there is nothing to do."""


def commit(files: Files, base: Snapshot | None, build: Build) -> Snapshot:
    """Commit the snapshot that `build` makes on top of `base`, or on top of a newer one if another writer was first.

    `build` gets the snapshot to build on. It raises ConflictError if its change does not fit there, and returns None if
    that snapshot already contains the change.
    """
    for _ in range(COMMIT_TRIES):
        following = build(base)
        if following is None:
            return existing(files, base)
        following = replace(following, format=following.format_needed)
        number = following.number
        taken = files.read_many([mark_of(number), name_of(number)])
        if mark_of(number) in taken and name_of(number) not in taken:
            # Later snapshots may be based on the lost one, and would not contain this change.
            raise DamageError(_lost(files, number))
        write_pages(files, following.pages, () if base is None else base.pages)
        if base is None or base.collected != following.collected:
            collected.write(files, following.collected)
        if files.create(name_of(number), following.to_json()):
            mark(files, number)
            put_hint(files, number)
            known = set() if base is None else {entry.id for entry in base.segments}
            added = [entry.id for entry in following.segments if entry.id not in known]
            logs.event(log, "committed", url=files.root, snapshot=number, action=following.action, segments=added)
            return following
        base = read(files, number)
    raise ConflictError(
        f"{files.root}: could not commit in {COMMIT_TRIES} tries, other writers committed first each time; run again"
    )


def mark(files: Files, number: int) -> None:
    """Mark a snapshot as committed, and those before it that killed writers have left unmarked.

    If the store fails, only warn, because the snapshot is committed in any case.
    """
    unmarked: list[int] = []
    try:
        for last in range(number, -1, -2):
            pair = [last, last - 1] if last else [last]
            marks = files.read_many(list(map(mark_of, pair)))
            unmarked += takewhile(lambda n: mark_of(n) not in marks, pair)  # noqa: B023
            if marks:
                break
        stored = files.read_many([name_of(n) for n in unmarked[1:]])
        for n in reversed(unmarked):
            if n == number or name_of(n) in stored:
                files.create(mark_of(n), b"committed\n")
    except StoreError as error:
        log.warning("snapshot %d is committed, but not marked: %s", number, error)


@dataclass(frozen=True, slots=True)
class StoredBasis:
    """A basis in the store, for filters of K weights, and its origin.

    mean (K,), components (K, K), explained_variance_ratio (K,), range.
    """

    mean: list[float]
    components: list[list[float]]
    explained_variance_ratio: list[float]
    range: list[float]
    snapshot: int
    filters: int
    id: str = field(default="")

    @property
    def is_usable(self) -> bool:
        """Whether any of its weights is positive. With too few filters, or with equal filters only, none is."""
        return self.filters > len(self.mean) and sum(self.explained_variance_ratio) > 0

    def content(self) -> bytes:
        """Encode as canonical JSON without the id, which is computed from it."""
        return canonical({key: value for key, value in asdict(self).items() if key != "id"})

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean (K,), components (K, K) and explained_variance_ratio (K,) as float64."""
        return np.array(self.mean), np.array(self.components), np.array(self.explained_variance_ratio)


def basis_name(basis_id: str) -> str:
    """Return the name of a basis's object."""
    return f"bases/{basis_id}.json"


def named(basis: StoredBasis) -> StoredBasis:
    """Return the basis with its id, which is the hash of its content."""
    return replace(basis, id=digest(basis.content())[:16])


def write_basis(files: Files, basis: StoredBasis) -> StoredBasis:
    """Store a named basis, and return it."""
    if not files.create(basis_name(basis.id), basis.content()):
        raise DamageError(f"{files.url(basis_name(basis.id))}: expected the basis of this name, got other bytes")
    return basis


def read_basis(files: Files, basis_id: str) -> StoredBasis:
    """Read a basis. Raises DamageError if it is missing or differs from what was committed."""
    content = _read_named(files, basis_name(basis_id), basis_id, "`filterdb refit` fits another")
    return StoredBasis(**content, id=basis_id)


Rows = Mapping[str, Mapping[str, str]]
"""Catalog rows by model id: the labels and `extra`, as in the models' table."""


def labels_name(labels_id: str) -> str:
    """Return the name of the object with catalog rows."""
    return f"labels/{labels_id}.json"


def write_labels(files: Files, rows: Rows) -> str:
    """Store catalog rows, and return their id, which is the hash of their content."""
    data = canonical({model: dict(row) for model, row in rows.items()})
    labels_id = digest(data)[:16]
    if not files.create(labels_name(labels_id), data):
        raise DamageError(f"{files.url(labels_name(labels_id))}: expected the rows of this name, got other bytes")
    return labels_id


def read_labels(files: Files, labels_id: str | None) -> Rows:
    """Read catalog rows; {} for None. Raises DamageError if they are missing or differ from what was committed."""
    return {} if labels_id is None else _read_named(files, labels_name(labels_id), labels_id, "restore it from a copy")


def _read_named(files: Files, name: str, id_: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object that is named after the hash of its content. Raises DamageError."""
    url = files.url(name)

    def decode(data: bytes) -> dict[str, Any]:
        if digest(data)[:16] != id_:
            raise DamageError(f"{url}: expected content with SHA-256 {id_}…, got other bytes; restore it from a copy")
        content: dict[str, Any] = json.loads(data)
        return content

    try:
        return files.read_valid(name, decode)
    except StoreMissingError as error:
        raise DamageError(f"{url}: the object is missing, although the snapshot refers to it; {remedy}") from error
