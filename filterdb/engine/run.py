"""Run passes: read stored summaries; compute missing ones on Dask and store them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import batched
from types import MappingProxyType

import numpy as np

from filterdb import cluster
from filterdb.cluster import Memory, Work
from filterdb.engine import graph, joined
from filterdb.engine.partition import GROUP_OF_LAYER
from filterdb.engine.parts import kinds
from filterdb.engine.reduction import LayerReduction, Reduction
from filterdb.store import summary
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A request for summaries of one segment: `reductions` by layer, or by `group_of_layer` (layers,), −1 for none."""

    position: int
    reductions: tuple[Reduction, ...]
    group_of_layer: np.ndarray | None = None


def summaries(db: Database, *reductions: LayerReduction) -> list[Arrays]:
    """Return the arrays of each reduction for every layer of the whole snapshot, in its order.

    Stored summaries are read. Missing ones are computed, all reductions in one reading of the chunks, and stored. If
    the store cannot be written the results are kept in memory.
    """
    db = db.whole
    wanted = [Wanted(position, reductions) for position in range(len(db.segments))]
    pages = [joined.load(db, reduction) for reduction in reductions]
    known = {place: arrays for found, _ in pages for place, arrays in found.items()}
    results = {(request.position, key): arrays for request, key, arrays in compute(db, wanted, known)}
    answers = []
    for reduction, (_, missing) in zip(reductions, pages, strict=True):
        parts = [results[request.position, reduction.key] for request in wanted]
        joined.save(db, reduction, parts, missing)
        answers.append(_present(db, _concatenate(reduction, parts)))
    return answers


def stored(db: Database, reduction: LayerReduction) -> tuple[Arrays, np.ndarray]:
    """Return the arrays of a reduction for every layer of the whole snapshot, and which layers have them, (layers,).

    Nothing is computed: the arrays of segments without a stored summary are those of layers without filters.
    """
    db = db.whole
    wanted = [Wanted(position, (reduction,)) for position in range(len(db.segments))]
    known, missing = joined.load(db, reduction)
    found = list(_lookups(db, wanted, known))
    joined.save(db, reduction, found, missing)
    layers = [entry.layers for entry in db.state.segments]
    parts = [reduction.empty(rows) if part is None else part for rows, part in zip(layers, found, strict=True)]
    has = np.repeat(np.array([part is not None for part in found], bool), layers)
    return _present(db, _concatenate(reduction, parts)), _present(db, {"": has})[""]


def _present(db: Database, arrays: Arrays) -> Arrays:
    """Drop the layers of removed models: summaries cover whole segments, answers only the snapshot."""
    return {name: array[db.present] for name, array in arrays.items()} if db.state.without else arrays


def _concatenate(reduction: Reduction, parts: list[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    parts = parts or [reduction.empty(0)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compute(
    db: Database, wanted: Sequence[Wanted], known: joined.Known = MappingProxyType({})
) -> Iterator[tuple[Wanted, Key, Arrays]]:
    """Yield all wanted summaries: first stored ones, then computed ones, which take a single run on the cluster.

    `known` are some that are not looked for.
    """
    tasks, missing, memory, nbytes = [], [], [], 0
    segments, stored_summaries = db.segments, _lookups(db, wanted, known)
    for request in wanted:
        absent = []
        for reduction in request.reductions:
            keys = []
            for key in reduction.keys:
                arrays = next(stored_summaries)
                if arrays is None:
                    keys.append(key)
                else:
                    yield request, key, arrays
            if keys:
                absent.append(reduction.only(keys))
        if absent:
            segment, tables = segments[request.position], _tables(db, request)
            missing.append((request, absent))
            tasks.append(graph.build_and_store(segment, tables, absent))
            memory.append(graph.projected(segment, tables, absent))
            nbytes += segment.chunks * segment.chunk_bytes
    label = kinds([reduction for _, absent in missing for reduction in absent])
    results = cluster.run(tasks, label, Memory.most(memory), Work(nbytes, db.files.remote))
    for (request, absent), result in zip(missing, results, strict=True):
        segment = segments[request.position]
        for reduction, stored in zip(absent, result, strict=True):
            for key, (arrays, is_stored) in zip(reduction.keys, stored, strict=True):
                if reduction.stays_in_memory or not is_stored:
                    db.kept[segment.summarised_as, key] = arrays
                yield request, key, arrays


def _lookups(db: Database, wanted: Sequence[Wanted], known: joined.Known) -> Iterator[Arrays | None]:
    """Yield what `_find` returns for each wanted summary that is not known, in order of `wanted`.

    From an object store several are read at a time.
    """
    segments = db.segments
    lookups = (
        partial(known.get, (request.position, key))
        if (request.position, key) in known
        else partial(_find, db, segments[request.position], _tables(db, request), reduction, key)
        for request in wanted
        for reduction in request.reductions
        for key in reduction.keys
    )
    if not db.files.remote:
        yield from (lookup() for lookup in lookups)
        return
    with ThreadPoolExecutor(joined.READERS) as pool:
        for batch in batched(lookups, joined.READERS):
            yield from pool.map(lambda lookup: lookup(), batch)


def _tables(db: Database, request: Wanted) -> Arrays:
    """Return the tables of a wanted summary's segment, with the groups of its layers."""
    tables = db.tables[request.position]
    return tables if request.group_of_layer is None else {**tables, GROUP_OF_LAYER: request.group_of_layer}


def _find(db: Database, segment: Segment, tables: Arrays, reduction: Reduction, key: Key) -> Arrays | None:
    """Return a summary from memory or, after checking it, from the store; None if it is in neither."""
    name = (segment.summarised_as, key)
    arrays = db.kept.get(name)
    if arrays is not None:
        return arrays
    arrays = summary.load(segment.files, segment.summarised_as, key, reduction.narrow)
    if arrays is not None:
        reduction.check(arrays, tables, segment, key)
        if reduction.stays_in_memory:
            db.kept[name] = arrays
    return arrays
