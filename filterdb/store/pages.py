"""Pages: immutable objects that hold the beginning of a snapshot's list of segments, so that snapshots stay small.

A snapshot with N segments names about log(N) pages and lists fewer than FAN segments itself. A page of level 1 holds
FAN segments, a page of level k + 1 holds FAN pages of level k. Their names are digests of their content, so snapshots
share them: adding a segment writes a page once in FAN times. Pages are never removed.

The segments of a page have their tables in one more object, `tables/<page>.safetensors` (see `stored_tables`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from filterdb import schema
from filterdb.errors import DamageError
from filterdb.store.canonical import canonical, digest
from filterdb.store.files import Files
from filterdb.store.segment import RESTORE, Segment, additions

FAN = 32
"""Segments of a page of level 1, and pages of a page of a higher level."""

CACHED_PAGES = 4096
"""Number of pages that a process keeps in memory, so that the snapshots of a history share them."""

_cache: dict[str, Page] = {}


class Bank(NamedTuple):
    """The size of a bank of a segment, and the addition that holds it, which is empty if the segment itself does."""

    filters: int
    layers: int
    chunk_rows: int
    addition: str = ""

    @classmethod
    def from_json(cls, fields: Sequence[Any]) -> Bank:
        """Return a bank from what `to_json` returns."""
        filters, layers, chunk_rows, *addition = fields
        return cls(filters, layers, chunk_rows, *addition)

    def to_json(self) -> list[Any]:
        """Return the size, and the addition if there is one."""
        return list(self) if self.addition else list(self[:3])


THREES = schema.kernel_name(schema.KERNEL)
"""The name of the bank that every segment has, and the kernels that earlier versions read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment in a snapshot. `filters`, `layers` and `chunk_rows` are those of 3×3, or of the bank `kernel`."""

    id: str
    filters: int
    layers: int
    models: int
    skipped: int
    chunk_rows: int
    digests: Mapping[str, str]
    banks: Mapping[str, Bank] = field(default_factory=dict)
    """Those of other kernel shapes by name, and under `schema.OTHER` the layers whose filters are not stored."""
    kernels: str = THREES
    """The kernel shapes that were read of its models, joined with commas, or "all"."""
    kernel: schema.Kernel = schema.KERNEL
    addition: str = ""
    """The addition that holds this bank; empty if the segment itself does."""

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Entry:
        """Return an entry from what `to_json` returns."""
        banks = {str(name): Bank.from_json(bank) for name, bank in fields.get("banks", {}).items()}
        return cls(**{**fields, "banks": banks})

    def to_json(self) -> dict[str, Any]:
        """Return its fields. A segment of 3×3 filters alone has those that earlier versions know."""
        names = ("id", "filters", "layers", "models", "skipped", "chunk_rows", "digests")
        own = {name: getattr(self, name) for name in names}
        if self.banks:
            own["banks"] = {name: bank.to_json() for name, bank in self.banks.items()}
        return own if self.kernels == THREES else own | {"kernels": self.kernels}

    def of(self, kernel: schema.Kernel) -> Entry:
        """Return the entry of a bank of the segment, with no filters if the segment has no such bank."""
        return self if kernel == self.kernel else replace(self._of(schema.kernel_name(kernel)), kernel=kernel)

    @property
    def others(self) -> Entry:
        """The entry of the layers whose filters are not stored."""
        return self._of(schema.OTHER)

    def _of(self, bank: str) -> Entry:
        return replace(self, **self.banks.get(bank, Bank(0, 0, 1))._asdict())

    @property
    def ids(self) -> set[str]:
        """The ids of all that it is made of: its own, and those of its additions."""
        return {self.id, *additions(self.digests)}

    def segment(self, files: Files) -> Segment:
        """Return the segment itself, or its addition that holds the bank."""
        return Segment(files, self.addition or self.id, self.filters, self.chunk_rows, self.kernel)

    def segments(self, files: Files) -> list[Segment]:
        """Return the segment and its banks of other kernel shapes."""
        kernels = [schema.parse_kernel(name) for name in self.banks if name != schema.OTHER]
        return [self.of(kernel).segment(files) for kernel in (schema.KERNEL, *kernels)]


def ids_of(entries: Iterable[Entry]) -> set[str]:
    """Return the ids of all that entries are made of. Snapshots share entries, so each is looked at once."""
    return {id_ for entry in set(entries) for id_ in entry.ids}


@dataclass(frozen=True)
class Page:
    """A page: its segments (level 1) or its pages."""

    level: int
    entries: tuple[Entry, ...] = ()
    pages: tuple[Page, ...] = ()

    @cached_property
    def content(self) -> bytes:
        """The bytes of its object."""
        if self.pages:
            return canonical({"level": self.level, "pages": [page.id for page in self.pages]})
        return canonical({"level": self.level, "segments": [entry.to_json() for entry in self.entries]})

    @cached_property
    def id(self) -> str:
        """The hash of its content."""
        return digest(self.content)[:20]

    @cached_property
    def segments(self) -> tuple[Entry, ...]:
        """All segments below it, in order."""
        return self.entries or tuple(entry for page in self.pages for entry in page.segments)


def located(pages: Sequence[Page], first: int = 0) -> Iterator[tuple[Page, int]]:
    """Yield pages and those below them, lower ones first, with the position of the first segment of each."""
    for page in pages:
        yield from located(page.pages, first)
        yield page, first
        first += len(page.segments)


def page_name(page_id: str) -> str:
    """Return the name of a page's object."""
    return f"pages/{page_id}.json"


@lru_cache(maxsize=4)
def paginate(segments: tuple[Entry, ...]) -> tuple[tuple[Page, ...], tuple[Entry, ...]]:
    """Return the pages that a list of segments begins with, the largest first, and the segments after them."""
    full = len(segments) // FAN * FAN
    levels: list[list[Page]] = [[Page(1, segments[i : i + FAN]) for i in range(0, full, FAN)]]
    while len(levels[-1]) >= FAN:
        lower = levels[-1]
        whole = len(lower) // FAN * FAN
        levels.append([Page(len(levels) + 1, pages=tuple(lower[i : i + FAN])) for i in range(0, whole, FAN)])
        del lower[:whole]
    return tuple(page for level in reversed(levels) for page in level), segments[full:]


def write_pages(files: Files, pages: Sequence[Page], known: Sequence[Page]) -> None:
    """Store the pages that a snapshot names, except those of an earlier snapshot, which are `known`."""
    stored = {page.id for page, _ in located(known)}
    for page, _ in located(pages):
        if page.id not in stored and not files.create(page_name(page.id), page.content):
            raise DamageError(f"{files.url(page_name(page.id))}: expected the page of this name, got other bytes")


def read_pages(files: Files, ids: Sequence[str]) -> tuple[Page, ...]:
    """Read pages with everything below them. Raises DamageError if one is missing or not as it was committed."""
    pages = _load(files, ids)
    return tuple(pages[page_id] for page_id in ids)


def forget() -> None:
    """Drop the pages in memory, so that they are read from the store again."""
    _cache.clear()


def _load(files: Files, ids: Sequence[str]) -> dict[str, Page]:
    pages = {page_id: page for page_id in ids if (page := _cache.get(page_id)) is not None}
    missing = [page_id for page_id in dict.fromkeys(ids) if page_id not in pages]
    if not missing:
        return pages
    contents = files.retry_on_damage(lambda: _read_contents(files, missing))
    below = _load(files, [child for content in contents.values() for child in content.get("pages", ())])
    new = {}
    for page_id, content in contents.items():
        entries = tuple(map(Entry.from_json, content.get("segments", ())))
        new[page_id] = Page(content["level"], entries, tuple(below[child] for child in content.get("pages", ())))
    if len(_cache) + len(new) > CACHED_PAGES:
        _cache.clear()
    _cache.update(new)
    return pages | new


def _read_contents(files: Files, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the content of pages of one level."""
    stored = files.read_many([page_name(page_id) for page_id in ids])
    contents = {}
    for page_id in ids:
        data, url = stored.get(page_name(page_id)), files.url(page_name(page_id))
        if data is None:
            raise DamageError(f"{url}: the object is missing, although a snapshot names it; {RESTORE}")
        if digest(data)[:20] != page_id:
            raise DamageError(f"{url}: expected content with SHA-256 {page_id}…, got other bytes; {RESTORE}")
        contents[page_id] = json.loads(data)
    return contents
