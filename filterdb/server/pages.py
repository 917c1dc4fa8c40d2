"""Compute the pages of snapshots, and the files beside them, when they are asked for; keep what fits in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, NamedTuple

from filterdb.errors import UsageError
from filterdb.numerics.modes import ModeName
from filterdb.page.model_pages import ModelPages
from filterdb.page.page_files import data_files, download
from filterdb.page.report import (
    Addition,
    banks_with_pages,
    compute_sections,
    model_links,
    page_folder,
    page_html,
    page_links,
)
from filterdb.page.results import GROUPINGS, gather
from filterdb.page.section import Section
from filterdb.page.sections import section_classes
from filterdb.store import snapshot as snapshots
from filterdb.store.database import Database, open_database
from filterdb.store.snapshot import Snapshot

KEPT_PAGES, PAGE_BYTES = 8, 512 * 2**20
"""Most pages in memory, those of two snapshots if there are four kernel shapes, and the bytes that they take together.
The newest page stays, whatever its size."""

CACHE_BYTES = 256 * 2**20
"""Most bytes of files in memory."""


class Place(NamedTuple):
    """Where a page is: its snapshot, and its folder, which is "" for the first kernel shape."""

    snapshot: int
    folder: str


class Progress(NamedTuple):
    """The step that is being computed, the number of steps before it and about how many there are, and since when."""

    step: str
    done: int
    steps: int
    began: float


@dataclass
class Page:
    """A page in memory.

    `snapshot` is the one that has its basis, which may follow the one that was asked for; `size` is roughly that of
    the page and its results in bytes.
    """

    html: bytes
    sections: list[Section]
    models: ModelPages
    links: dict[str, list[tuple[str, str | None]]]
    """The kernel shapes of each model by name, with links to their pages."""
    snapshot: int
    size: int = 0
    owners: dict[str, Section] = field(default_factory=dict)
    """The section of each data file, for the first `asked` sections."""
    asked: int = 0

    names: set[str] | None = None
    """The names of all figures and tables, once an unknown one was asked for."""

    def downloads(self, path: str) -> dict[str, bytes]:
        """Return a figure or a table in all of its formats; nothing, without looking twice, if there is none."""
        if self.names is not None and PurePosixPath(path).stem not in self.names:
            return {}
        files = download(self.sections, path)
        if not files and self.names is None:
            self.names = {picture.name for section in self.sections for picture in section.pictures()}
            self.names |= {table.name for section in self.sections for table in section.tables()}
        return files

    def data(self, path: str) -> dict[str, bytes]:
        """Return the data files of the section with this one, encoding those of no more sections than necessary."""
        while path not in self.owners and self.asked < len(self.sections):
            section = self.sections[self.asked]
            files = data_files(section)
            self.owners |= dict.fromkeys(files, section)
            self.asked += 1
            if path in files:
                return files
        return data_files(self.owners[path]) if path in self.owners else {}


class Cache:
    """Bytes by key, up to CACHE_BYTES; those that were not asked for the longest are dropped. Threads may share it."""

    def __init__(self) -> None:
        self._values: OrderedDict[Any, bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: Any) -> bytes | None:
        """Return the bytes under a key, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Any, value: bytes) -> None:
        """Keep bytes under a key, unless they alone are too many."""
        with self._lock:
            self._size -= len(self._values.pop(key, b""))
            if len(value) > CACHE_BYTES:
                return
            self._values[key] = value
            self._size += len(value)
            while self._size > CACHE_BYTES:
                self._size -= len(self._values.popitem(last=False)[1])


class KeptPages:
    """Pages by place, up to KEPT_PAGES and PAGE_BYTES; those that were not asked for the longest are dropped.

    Threads may share it. A page that was computed at a later snapshot, which has its basis, is kept once, under both
    places.
    """

    def __init__(self) -> None:
        self._pages: OrderedDict[Place, Page] = OrderedDict()
        self._aliases: dict[Place, Place] = {}
        self._lock = Lock()

    def get(self, place: Place) -> Page | None:
        """Return the page at a place, or None."""
        with self._lock:
            place = self._aliases.get(place, place)
            if place in self._pages:
                self._pages.move_to_end(place)
            return self._pages.get(place)

    def put(self, place: Place, page: Page) -> None:
        """Keep the page that was asked for at a place."""
        with self._lock:
            kept = Place(page.snapshot, place.folder)
            self._pages[kept] = page
            self._pages.move_to_end(kept)
            if place != kept:
                self._aliases[place] = kept
            while len(self._pages) > KEPT_PAGES or (len(self._pages) > 1 and self._size() > PAGE_BYTES):
                dropped, _ = self._pages.popitem(last=False)
                self._aliases = {place: kept for place, kept in self._aliases.items() if kept != dropped}

    def _size(self) -> int:
        return sum(page.size for page in self._pages.values())


class Pages:
    """The pages of a database. All methods but `built`, `kept_file` and `newest` run in the worker's thread."""

    def __init__(
        self, db: Database, mode: ModeName, densities: bool | None, *, only: bool, live: Mapping[str, Any]
    ) -> None:
        self.db, self.mode, self.densities, self.only, self.live = db, mode, densities, only, live
        self.progress: dict[Place, Progress] = {}
        self._databases: OrderedDict[int, Database] = OrderedDict({db.snapshot: db})
        self._pages = KeptPages()
        self._files = Cache()
        self._newest = db.state

    @property
    def follows(self) -> bool:
        """Return whether other snapshots can be shown: layers of certain verdicts were chosen for one snapshot only."""
        return self.db.labels is not None

    def newest(self) -> int:
        """Return the number of the newest snapshot, or of the one before it that has the same models and labels.

        A basis and a tag are snapshots too, but nothing to look at. This runs in any thread.
        """
        state = snapshots.latest(self.db.files) if self.follows else None
        if state is not None and not _same_models(state, self._newest):
            self._newest = state
        return self._newest.number

    def resolve(self, snapshot: str) -> int:
        """Return the number of a snapshot, given as number or tag. Raises UsageError if there is none."""
        return self.db.snapshot if snapshot == str(self.db.snapshot) else self._open(snapshot).snapshot

    def database(self, snapshot: int) -> Database:
        """Return the served view at a snapshot. Raises UsageError if there is no such snapshot."""
        if snapshot not in self._databases:
            self._databases[snapshot] = self._open(str(snapshot))
        self._databases.move_to_end(snapshot)
        while len(self._databases) > KEPT_PAGES:
            self._databases.popitem(last=False)
        return self._databases[snapshot]

    def _open(self, snapshot: str) -> Database:
        if self.db.labels is None:
            number = self.db.snapshot
            raise UsageError(f"snapshot: expected {number}, for which layers were chosen by verdict, got {snapshot}")
        # The shape first: no 3×3 layer has to meet the conditions of a view of another shape.
        opened = open_database(self.db, snapshot).bank(self.db.kernel)
        for name, values, negate in self.db.labels:
            opened = opened.where(name, values, negate=negate)
        return opened

    def built(self, place: Place) -> Page | None:
        """Return a page if it is in memory."""
        return self._pages.get(place)

    def build(self, place: Place) -> Page:
        """Return a page, computed if necessary. Raises UsageError if there is no such snapshot or kernel shape."""
        page = self._pages.get(place)
        if page is None:
            try:
                page = self._compute(place)
            finally:
                self.progress.pop(place, None)
            self._pages.put(place, page)
        return page

    def _compute(self, place: Place) -> Page:
        steps, names = len(GROUPINGS) + 3 + len(section_classes()), iter(range(1_000))

        def begin(step: str) -> None:
            self.progress[place] = Progress(step, next(names), steps, time.monotonic())

        begin("open the database")
        banks = banks_with_pages(self.database(place.snapshot), only=self.only)
        folders = [page_folder(number, bank) for number, bank in enumerate(banks)]
        if place.folder not in folders:
            raise UsageError(f"{place.folder.rstrip('/')}: expected a kernel shape that has a page, got another")
        number = folders.index(place.folder)
        results = gather(banks[number], self.mode, self.densities, begin=begin)
        sections = compute_sections(results, begin=begin)
        shown = results.db.snapshot
        live = {"snapshot": shown, "home": "../" if number else "", "follows": self.follows, **self.live}
        addition = Addition(_web("live.js"), _web("live.css"), live)
        html = page_html(results, sections, page_links(banks, number), addition)
        return Page(html, sections, ModelPages(results), model_links(banks, number), shown, len(html) + results.nbytes)

    def kept_file(self, place: Place, path: str) -> bytes | None:
        """Return a file beside a page if it is in memory."""
        return self._files.get((place, path))

    def file(self, place: Place, path: str) -> bytes | None:
        """Return a file beside a page, made if necessary; None if there is no such file."""
        kept = self.kept_file(place, path)
        if kept is not None:
            return kept
        page = self.build(place)
        if path == "model.html" or path.startswith("data/models/"):
            data = page.models.file(path, page.links)
            files = {} if data is None else {path: data}
        else:
            files = page.data(path) if path.startswith("data/") else page.downloads(path)
        for name, data in files.items():
            self._files.put((place, name), data)
        return files.get(path)


def _same_models(a: Snapshot, b: Snapshot) -> bool:
    """Return whether two snapshots have the same models with the same labels."""
    return (a.segments, a.without, a.labels) == (b.segments, b.without, b.labels)


def _web(name: str) -> str:
    """Return a file of this package's `web`."""
    return resources.files("filterdb.server").joinpath("web", name).read_text("utf-8")
