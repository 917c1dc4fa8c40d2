"""Read the summaries of many small segments from few objects.

A snapshot's list of segments begins with pages (see `store.pages`). For every page and kind of summary, an object holds
the summaries of the page's segments, one after the other. It is made once all of them are stored, and may be deleted at
any time: what counts are the segments' own summaries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from filterdb import schema
from filterdb.engine.reduction import LayerReduction
from filterdb.errors import DamageError, StoreError
from filterdb.plan import offsets
from filterdb.store import summary
from filterdb.store.database import Database
from filterdb.store.pages import Entry, Page
from filterdb.store.summary import Arrays, Key

MOST_LAYERS = 8_192
"""Most layers of a page whose summaries are joined. Where segments are larger, an object for each costs little."""

READERS = 16
"""Objects that are read at a time from an object store."""

Known = Mapping[tuple[int, Key], Arrays]
"""Summaries by the position of their segment."""

Places = list[tuple[Page, int]]
"""Pages, each with the position of its first segment."""

log = logging.getLogger(__name__)


def load(db: Database, reduction: LayerReduction) -> tuple[Known, Places]:
    """Return the summaries that pages of a whole snapshot have, and the pages that have none yet.

    A page without an object is read from those of its parts as far as they have one.
    """
    known: dict[tuple[int, Key], Arrays] = {}
    missing: Places = []
    level = [(page, first, True) for page, first in _with_positions(db.state.pages, 0) if not _is_empty(db, page)]
    with ThreadPoolExecutor(READERS) as pool:
        while level:
            wanted = [(page, first) for page, first, _ in level if _layers(db, page) <= MOST_LAYERS]
            wanted = [place for place in wanted if not _is_kept(db, reduction, place[0])]
            loaded = list((pool.map if db.files.remote else map)(lambda place: _load(db, reduction, *place), wanted))
            absent = {page.id for (page, _), arrays in zip(wanted, loaded, strict=True) if arrays is None}
            missing += [(page, first) for page, first, is_top in level if page.id in absent and is_top]
            for (page, first), arrays in zip(wanted, loaded, strict=True):
                if arrays is not None:
                    known |= _split(db, reduction, page, first, arrays)
            level = [
                (below, start, is_top and page.id not in absent)
                for page, first, is_top in level
                if page.id in absent or _layers(db, page) > MOST_LAYERS
                for below, start in _with_positions(page.pages, first)
                if not _is_empty(db, below)
            ]
    return known, missing


def save(db: Database, reduction: LayerReduction, parts: Sequence[Arrays | None], missing: Places) -> None:
    """Store the summaries of pages, given those of each segment; None for one that has none."""
    for page, first in missing:
        own = [part for part in parts[first : first + len(page.segments)] if part is not None]
        if len(own) < len(page.segments):
            continue
        arrays = {name: np.concatenate([part[name] for part in own]) for name in own[0]}
        try:
            summary.save_joined(db.files, _place(db, page), reduction.key, arrays)
        except StoreError as error:
            log.debug("summaries of a page not stored: %s", error)
            return


def _with_positions(pages: Iterable[Page], first: int) -> Places:
    places = []
    for page in pages:
        places.append((page, first))
        first += len(page.segments)
    return places


def _entries(db: Database, page: Page) -> list[Entry]:
    """Return the segments of a page, or the bank of each."""
    return [entry.of(db.kernel) for entry in page.segments]


def _place(db: Database, page: Page) -> str:
    """Return the folder of a page's summaries."""
    return page.id if db.kernel == schema.KERNEL else f"{page.id}/{schema.kernel_name(db.kernel)}"


def _is_empty(db: Database, page: Page) -> bool:
    """Return whether a page has no layers of another kernel shape, and so no summaries to join."""
    return db.kernel != schema.KERNEL and not _layers(db, page)


def _layers(db: Database, page: Page) -> int:
    return sum(entry.layers for entry in _entries(db, page))


def _is_kept(db: Database, reduction: LayerReduction, page: Page) -> bool:
    """Return whether the summaries of all segments of a page are in memory."""
    segments = [entry.segment(db.files) for entry in _entries(db, page)]
    return all((segment.summarised_as, reduction.key) in db.kept for segment in segments)


def _load(db: Database, reduction: LayerReduction, page: Page, first: int) -> Arrays | None:
    """Return a page's summaries after checking them; None if they are missing or damaged."""
    arrays = summary.load_joined(db.files, _place(db, page), reduction.key, reduction.narrow)
    if arrays is None:
        return None
    start = sum(entry.layers for entry in db.entries[:first])
    rows = slice(start, start + _layers(db, page))
    tables = {name: db.tables.columns[name][rows] for name in ("row_size", "layer_name", "peak")}
    try:
        reduction.check(arrays, tables, _entries(db, page)[0].segment(db.files), reduction.key)
    except DamageError as error:
        log.warning("%s", error)
        return None
    return arrays


def _split(
    db: Database, reduction: LayerReduction, page: Page, first: int, arrays: Arrays
) -> dict[tuple[int, Key], Arrays]:
    """Return the summaries of each segment of a page, and keep them in memory if the reduction's are kept."""
    entries = _entries(db, page)
    bounds = offsets(np.array([entry.layers for entry in entries])).tolist()
    parts = {}
    for number, entry in enumerate(entries):
        part = {name: array[bounds[number] : bounds[number + 1]] for name, array in arrays.items()}
        parts[first + number, reduction.key] = part
        if reduction.stays_in_memory:
            db.kept[entry.segment(db.files).summarised_as, reduction.key] = part
    return parts
