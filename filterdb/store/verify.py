"""Verify a database: all snapshots and chunks exist, and tables, metadata and layers are as they were committed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from filterdb import schema
from filterdb.errors import DamageError, StoreMissingError, UsageError
from filterdb.plan import offsets
from filterdb.store import pages, summary
from filterdb.store import snapshot as snapshots
from filterdb.store.canonical import digest
from filterdb.store.database import Database
from filterdb.store.files import Files
from filterdb.store.pages import Entry, located
from filterdb.store.segment import Segment
from filterdb.store.stored_tables import check_joined, joined_name, page_of
from filterdb.store.tables import PACK, Created, check_objects, packs, read_tables


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference to what was committed.

    `segment` is empty for an object that belongs to no segment, `chunk` is None for anything but a chunk, and `what`
    describes the difference.
    """

    segment: str
    variable: str
    chunk: int | None
    what: str


def check_history(db: Database) -> list[Problem]:
    """Check every snapshot of the database, with its pages, basis and labels, and the joined tables of its pages."""
    pages.forget()  # so that what is stored is read
    readable, damaged = snapshots.survey(db.files)
    problems = [Problem("", snapshots.name_of(number), None, what) for number, what in damaged.items()]
    checked: set[tuple[str | None, ...]] = set()
    for state in readable:
        bases = [basis for basis in (state.basis, *state.bases.values()) if basis is not None]
        refers = (*bases, state.labels)
        if refers in checked:
            continue
        checked.add(refers)
        try:
            for basis in bases:
                snapshots.read_basis(db.files, basis)
            snapshots.read_labels(db.files, state.labels)
        except (DamageError, UsageError) as error:
            problems.append(Problem("", snapshots.name_of(state.number), None, str(error)))
    return problems


class Listing:
    """The objects of a database's segments and their summaries, listed once. A web server lists nothing."""

    def __init__(self, files: Files) -> None:
        self.sizes: dict[str, int | None] | None = None if files.web else files.list("segments")
        """Sizes of the objects below segments/; None where they must be looked up by name."""
        self.summaries: dict[str, list[str]] = defaultdict(list)
        """Names of summaries by segment."""
        for name in () if files.web else files.list("summaries"):
            self.summaries[name.split("/")[1]].append(name)


def check_segment(entry: Entry, files: Files, listing: Listing) -> tuple[list[Problem], dict[str, np.ndarray] | None]:
    """Check a segment's metadata, tables, summaries and the sizes of its chunks.

    Return the problems and the tables, which are None if damaged.
    """
    segment = entry.segment(files)
    damaged_objects = check_objects(segment, entry.digests)
    problems = [Problem(entry.id, name, None, what) for name, what in damaged_objects.items()]
    tables = None
    try:
        tables = read_tables(segment, entry.digests)
    except DamageError as error:
        if not damaged_objects:
            problems.append(Problem(entry.id, "tables", None, str(error)))
    # Those on a web server are checked when they are read.
    for name in [name for id_ in sorted(entry.ids) for name in listing.summaries.get(id_, ())]:
        what = summary.problem(files, name)
        if what:
            problems.append(Problem(entry.id, name, None, what))
    presence = [problem for bank in entry.segments(files) for problem in check_presence(bank, listing.sizes)]
    return problems + presence, tables


def check_pages(db: Database, tables: Sequence[dict[str, np.ndarray] | None]) -> list[Problem]:
    """Check the joined tables of a snapshot's pages against the segments' own, where none of those is damaged.

    Of their joined summaries, check that the bytes are those that were stored.
    """
    problems, ids = [], {page.id for page, _ in located(db.state.pages)}
    summaries = [] if db.files.web else [name for name in db.files.list("tables") if name.endswith(".npz")]
    for name in summaries:
        what = summary.problem(db.files, name) if page_of(name) in ids else None
        problems += [Problem("", name, None, what)] if what else []
    for page, first in located(db.state.pages):
        own = [own_tables for own_tables in tables[first : first + len(page.segments)] if own_tables is not None]
        what = check_joined(db.files, page, own) if len(own) == len(page.segments) else None
        if what:
            problems.append(Problem("", joined_name(page.id), None, what))
    return problems


def check_created(segment: Segment, created: Created, banks: Sequence[Segment] = ()) -> list[Problem]:
    """Check, with one listing and a read, that all objects of a new segment exist and have their size.

    `banks` are its banks of other kernel shapes, or those of an addition that is given in the place of a segment.
    """
    listing = segment.files.list(segment.name)
    problems = []
    for name, size in created.sizes.items():
        if listing.get(name) != size:
            what = f"expected {size} bytes, got {listing[name]}" if name in listing else "missing"
            problems.append(Problem(segment.id, name.removeprefix(f"{segment.name}/"), None, what))
    for wanted in packs(segment, created.digests):
        pack = segment.files.read_many([wanted.name]).get(wanted.name)
        if pack is None or digest(pack) != wanted.sha256:
            problems.append(Problem(segment.id, wanted.name, None, "missing" if pack is None else "changed"))
    own = [segment, *banks] if PACK in created.digests else banks
    return problems + [problem for bank in own for problem in check_presence(bank, listing)]


def check_presence(segment: Segment, listing: Mapping[str, int | None] | None = None) -> list[Problem]:
    """Check that a segment's chunks exist and have the right size, if the store reports sizes.

    Takes one listing, or a request for each chunk on a web server.
    """
    size = segment.chunk_bytes
    if listing is None:
        names = [segment.chunk_name(chunk) for chunk in range(segment.chunks)]
        listing = segment.files.sizes(names, f"{segment.name}/{schema.FILTERS.name}/c")
    problems = []
    for chunk in range(segment.chunks):
        name = segment.chunk_name(chunk)
        got = listing.get(name)
        if name not in listing:
            problems.append(Problem(segment.id, segment.variable, chunk, "missing"))
        elif got is not None and got != size:
            problems.append(Problem(segment.id, segment.variable, chunk, f"expected {size} bytes, got {got}"))
    return problems


@dataclass(frozen=True, slots=True)
class Layers:
    """Consecutive layers of a segment, with their names and hashes. `bounds` (layers + 1,) are their rows."""

    segment: Segment
    bounds: np.ndarray
    names: tuple[str, ...]
    hashes: tuple[str, ...]


def layers_of(segment: Segment, tables: Mapping[str, np.ndarray], rows: int) -> list[Layers]:
    """Split a segment's layers into runs of about `rows` rows."""
    bounds = offsets(tables["row_size"])
    runs, first = [], 0
    for last in range(1, len(bounds)):
        if bounds[last] - bounds[first] >= rows or last == len(bounds) - 1:
            layers = slice(first, last)
            names, hashes = (tuple(map(str, tables[name][layers])) for name in ("layer_name", "hash"))
            runs.append(Layers(segment, bounds[first : last + 1], names, hashes))
            first = last
    return runs


def check_layers(layers: Layers) -> list[Problem]:
    """Read the chunks of layers, and check every checksum and that each layer has the hash that it had at ingest.

    The hash also detects two exchanged chunks, whose checksums are correct. One chunk is in memory at a time.
    """
    segment, problems = layers.segment, []
    held: tuple[int, np.ndarray | None] = (-1, None)
    for name, expected, start, stop in zip(
        layers.names, layers.hashes, layers.bounds[:-1], layers.bounds[1:], strict=True
    ):
        sha256, row = hashlib.sha256(), int(start)
        while row < stop:
            chunk = row // segment.chunk_rows
            low, high = segment.bounds(chunk)
            if held[0] != chunk:
                try:
                    held = chunk, segment.read_columns(chunk)
                except (DamageError, StoreMissingError) as error:
                    problems.append(Problem(segment.id, segment.variable, chunk, str(error)))
                    held = chunk, None
            end = min(high, int(stop))
            if held[1] is not None:
                sha256.update(np.ascontiguousarray(held[1][:, row - low : end - low].T).data)
            row = end
        damaged_chunks = {problem.chunk for problem in problems} & set(
            range(int(start) // segment.chunk_rows, -(-int(stop) // segment.chunk_rows))
        )
        if not damaged_chunks and sha256.hexdigest() != expected:
            chunk = int(start) // segment.chunk_rows
            what = f"layer {name!r}: expected filters with SHA-256 {expected[:16]}…, got {sha256.hexdigest()[:16]}…"
            problems.append(Problem(segment.id, segment.variable, chunk, what))
    return problems
