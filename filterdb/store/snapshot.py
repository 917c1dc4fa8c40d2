"""The list of segments that make a database, the commit that adds to it, and its history.

A snapshot is one small JSON object, `snapshots/<number>.json`, put where there is none: whoever puts it first has
committed. It carries a nonce, so that a writer whose reply was lost can tell its own from another's, and the SHA-256
of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from filterdb import schema
from filterdb.errors import ConflictError, DamageError, StoreMissingError, UsageError
from filterdb.schema import WEIGHTS
from filterdb.store.files import Files
from filterdb.store.segment import Segment

_NAME = re.compile(r"snapshots/(\d{8})\.json")

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
class Snapshot:
    """A database at one moment: its segments in order, and its basis (None until the first reduce fits one)."""

    number: int
    action: str
    created: str
    nonce: str
    segments: tuple[Entry, ...] = ()
    basis: str | None = None
    format: int = schema.FORMAT

    def next(self, action: str, **changes: Any) -> Snapshot:
        """The snapshot after this one, not committed yet."""
        return replace(new(action), number=self.number + 1, segments=self.segments, basis=self.basis, **changes)

    def to_json(self) -> bytes:
        """Canonical bytes, with the SHA-256 of everything else."""
        content = asdict(self)
        return canonical({**content, "sha256": hashlib.sha256(canonical(content)).hexdigest()})


def new(action: str, number: int = 0, **fields: Any) -> Snapshot:
    """A snapshot with a fresh nonce and the present time (UTC)."""
    return Snapshot(number, action, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex, **fields)


def canonical(content: Any) -> bytes:
    """JSON with sorted keys and no spare space: the same content gives the same bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def name_of(number: int) -> str:
    """Place of a snapshot below the root."""
    return f"snapshots/{number:08d}.json"


def numbers(files: Files) -> list[int]:
    """Numbers of all snapshots, rising."""
    found = (_NAME.fullmatch(name) for name in files.list("snapshots"))
    return sorted(int(match.group(1)) for match in found if match)


def latest(files: Files) -> Snapshot | None:
    """The newest snapshot; None where there is no database yet."""
    known = numbers(files)
    return read(files, known[-1]) if known else None


def read(files: Files, number: int) -> Snapshot:
    """One snapshot. Raises UsageError where there is none, DamageError where it is not what was committed."""
    url = files.url(name_of(number))
    try:
        data = files.read(name_of(number))
    except StoreMissingError as error:
        raise UsageError(f"{url}: expected a snapshot, found none; `filterdb snapshots` lists them") from error
    try:
        content = json.loads(data)
        if content.get("format") != schema.FORMAT:
            raise UsageError(
                f"{url}: expected store format {schema.FORMAT}, got {content.get('format')}; "
                "open it with the filterdb version that wrote it"
            )
        digest = content.pop("sha256")
        if hashlib.sha256(canonical(content)).hexdigest() != digest:
            raise DamageError(
                f"{url}: expected content with SHA-256 {digest[:16]}…, got another; restore it from a copy"
            )
        if content["number"] != number:
            raise DamageError(f"{url}: expected snapshot {number}, got {content['number']}; remove the copy")
        entries = tuple(Entry(**entry) for entry in content.pop("segments"))
        return Snapshot(segments=entries, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise DamageError(f"{url}: expected a snapshot's JSON, got damage ({error}); restore it from a copy") from error


def commit(files: Files, base: Snapshot | None, build: Callable[[Snapshot | None], Snapshot | None]) -> Snapshot:
    """Put the snapshot that `build` makes on top of `base`; on top of others' if they were first.

    `build` gets the snapshot to build on; it raises ConflictError where its change does not fit there any more, and
    gives None where the change is in it already.
    """
    for _ in range(COMMIT_TRIES):
        wanted = build(base)
        if wanted is None:
            assert base is not None
            return base
        if files.create(name_of(wanted.number), wanted.to_json()):
            return wanted
        base = read(files, wanted.number)
    raise ConflictError(
        f"{files.root}: expected to commit within {COMMIT_TRIES} tries, others were always first; run again"
    )


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
    return replace(basis, id=hashlib.sha256(basis.content()).hexdigest()[:16])


def write_basis(files: Files, basis: StoredBasis) -> StoredBasis:
    """Store a named basis; gives it."""
    if not files.create(basis_name(basis.id), basis.content()):
        raise DamageError(f"{files.url(basis_name(basis.id))}: expected the basis of this name, got other bytes")
    return basis


def read_basis(files: Files, basis_id: str) -> StoredBasis:
    """A stored basis. Raises DamageError where it is missing or not what was committed."""
    url = files.url(basis_name(basis_id))
    try:
        data = files.read(basis_name(basis_id))
    except StoreMissingError as error:
        raise DamageError(f"{url}: expected the snapshot's basis, is missing; `filterdb refit` fits another") from error
    if hashlib.sha256(data).hexdigest()[:16] != basis_id:
        raise DamageError(f"{url}: expected a basis with SHA-256 {basis_id}…, got other bytes; restore it from a copy")
    return StoredBasis(**json.loads(data), id=basis_id)
