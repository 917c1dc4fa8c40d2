"""Run passes: read stored summaries; compute missing ones on Dask and store them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched
from types import MappingProxyType

import numpy as np

from filterdb import cluster, schema
from filterdb.cluster import Memory, Work
from filterdb.engine import checkpoint, graph, joined
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


def stored(db: Database, reduction: LayerReduction) -> np.ndarray:
    """Return for which layers of the whole snapshot there is a stored summary, (layers,). Nothing is computed."""
    db = db.whole
    wanted = [Wanted(position, (reduction,)) for position in range(len(db.segments))]
    if _any_streamed(db, reduction):
        has = [
            (
                _streamed(db, segment, reduction)
                if _is_streamed(db, segment, entry.layers, reduction)
                else next(_lookups(db, [request], {}))
            )
            is not None
            for segment, entry, request in zip(db.segments, db.entries, wanted, strict=True)
        ]
    else:
        known, missing = joined.load(db, reduction)
        found = list(_lookups(db, wanted, known))
        joined.save(db, reduction, found, missing)
        has = [part is not None for part in found]
    of_layer = np.repeat(np.array(has, bool), [entry.layers for entry in db.entries])
    return _present(db, {"": of_layer})[""]


PART = 16_384
"""Most layers of which `in_parts` yields the arrays at a time, so that temporary arrays take tens of megabytes."""

PART_BYTES = 128 * 2**20
"""Most bytes of arrays that `in_parts` yields at a time: moments of K weights take 24·K² bytes a layer."""

STREAMED_BYTES = 64 * 2**20
"""Summaries from which this many bytes are not kept whole by `in_parts`."""


def in_parts(db: Database, reduction: LayerReduction) -> Iterator[tuple[slice, Arrays]]:
    """Yield what `summaries` returns for some layers at a time, with their range in the snapshot.

    Large summaries that are stored in a folder are read again each time, so that memory never holds one of them whole.
    """
    db = db.whole
    if not _any_streamed(db, reduction):
        (arrays,) = summaries(db, reduction)
        parts: Iterable[Arrays] = _cut(arrays, reduction)
    else:
        parts = (_present_part(db, first, arrays) for first, arrays in _stored_parts(db, reduction))
    start = 0
    for arrays in parts:
        stop = start + len(next(iter(arrays.values())))
        yield slice(start, stop), arrays
        start = stop


def view_parts(db: Database, reduction: LayerReduction) -> Iterator[tuple[slice, slice, Arrays]]:
    """Yield the arrays of some of the view's layers at a time, with their ranges in the snapshot and in the view."""
    start = 0
    for rows, arrays in in_parts(db, reduction):
        some = arrays if db.chosen is None else {name: array[db.chosen[rows]] for name, array in arrays.items()}
        stop = start + len(next(iter(some.values())))
        yield rows, slice(start, stop), some
        start = stop


def _stored_parts(db: Database, reduction: LayerReduction) -> Iterator[tuple[int, Arrays]]:
    """Yield the arrays of some layers of the segments at a time, with the position of the first one."""
    first = 0
    for position, (segment, tables) in enumerate(_segments(db)):
        for arrays in _parts_of_segment(db, position, segment, tables, reduction):
            yield first, arrays
            first += len(next(iter(arrays.values())))


def _parts_of_segment(
    db: Database, position: int, segment: Segment, tables: Arrays, reduction: LayerReduction
) -> Iterable[Arrays]:
    """Return the arrays of some of a segment's layers at a time."""
    if _is_streamed(db, segment, len(tables["row_size"]), reduction):
        parts = _streamed(db, segment, reduction)
        if parts is not None:
            return _checked(parts, tables, segment, reduction)
    ((_, _, arrays),) = compute(db, [Wanted(position, (reduction,))])
    return _cut(arrays, reduction)


def _any_streamed(db: Database, reduction: LayerReduction) -> bool:
    """Return whether the summary of any segment is read in parts."""
    segments = zip(db.segments, db.entries, strict=True)
    return any(_is_streamed(db, segment, entry.layers, reduction) for segment, entry in segments)


def _is_streamed(db: Database, segment: Segment, layers: int, reduction: LayerReduction) -> bool:
    """Return whether a segment's summary is read in parts, if there is one."""
    is_large = layers * reduction.row_bytes >= STREAMED_BYTES
    return is_large and not db.files.remote and (segment.summarised_as, reduction.key) not in db.kept


def _streamed(db: Database, segment: Segment, reduction: LayerReduction) -> Iterator[Arrays] | None:
    """Return an iterator over parts of a segment's stored summary, which is verified once; None if it is not stored."""
    verified = segment.summarised_as, replace(reduction.key, part="verified")
    parts = summary.load_rows(
        segment.files, segment.summarised_as, reduction.key, _layers(reduction), is_verified=verified in db.kept
    )
    if parts is not None:
        db.kept[verified] = {}
    return parts


def _segments(db: Database) -> Iterator[tuple[Segment, Arrays]]:
    """Yield each segment with its tables."""
    yield from zip(db.segments, db.tables, strict=True)


def _checked(parts: Iterator[Arrays], tables: Arrays, segment: Segment, reduction: LayerReduction) -> Iterator[Arrays]:
    """Yield the parts of a segment's summary, each after its check against the segment's tables."""
    start = 0
    for arrays in parts:
        stop = start + len(next(iter(arrays.values())))
        checked = {variable.name: tables[variable.name][start:stop] for variable in schema.LAYER_VARIABLES}
        reduction.check(arrays, checked, segment, reduction.key)
        yield arrays
        start = stop


def _layers(reduction: LayerReduction) -> int:
    """Return the number of layers in a part."""
    return max(1, min(PART, PART_BYTES // reduction.row_bytes))


def _cut(arrays: Arrays, reduction: LayerReduction) -> Iterator[Arrays]:
    """Yield the rows of arrays, a part of them at a time, and at least one part."""
    step = _layers(reduction)
    for start in range(0, max(len(next(iter(arrays.values()))), 1), step):
        yield {name: array[start : start + step] for name, array in arrays.items()}


def _present_part(db: Database, first: int, arrays: Arrays) -> Arrays:
    """Drop the layers of removed models from the arrays of some layers, of which `first` is the position of one."""
    if not db.state.without:
        return arrays
    is_present = db.present[first : first + len(next(iter(arrays.values())))]
    return {name: array[is_present] for name, array in arrays.items()}


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
    """Return a summary from memory or, after checking it, from the store; None if it is in neither.

    A segment without filters of another kernel shape has empty summaries, which need no object.
    """
    if segment.kernel != schema.KERNEL and not segment.rows:
        nothing = dict(zip(reduction.keys, reduction.split(reduction.empty(0)), strict=True))[key]
        return {**nothing, checkpoint.GROUP: np.arange(0)} if reduction.by_group else nothing
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
