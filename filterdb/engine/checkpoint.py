"""Stored parts: checkpoints of an unfinished pass, from which the next pass resumes, and complete summaries."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from filterdb import logs
from filterdb.engine.partition import GROUP_OF_LAYER, Partition
from filterdb.engine.parts import Part, join, kinds, reduce_partition
from filterdb.engine.reduction import Reduction
from filterdb.errors import DamageError, StoreError
from filterdb.store import summary
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key

MIN_PARTITIONS_TO_CHECKPOINT = 64
"""A pass over fewer partitions stores no checkpoints, because it only takes a second or two."""

FIRST, GROUP = "first", "group"
"""Names of a part's index in the store: its first layer (a complete summary has all layers), or its groups."""

log = logging.getLogger(__name__)


def has_checkpoint(stored: Collection[str], group: Sequence[Partition], reductions: Sequence[Reduction]) -> bool:
    """Return whether the `stored` names include the parts of all summaries for these consecutive partitions."""
    place = group[0].segment.summarised_as
    names = (summary.name_of(place, key) for reduction in reductions for key in _checkpoint_keys(reduction, group))
    return all(name in stored for name in names)


def _checkpoint_keys(reduction: Reduction, group: Sequence[Partition]) -> list[Key]:
    """Return the names of the parts of consecutive partitions, one for each summary."""
    chunks = f"{group[0].chunks[0]:08d}-{group[-1].chunks[-1]:08d}"
    return [replace(key, part=chunks) for key in reduction.keys]


def join_and_checkpoint(
    group: Sequence[Partition], reductions: Sequence[Reduction], parts: Sequence[Sequence[Part]]
) -> list[Part]:
    """Join the parts of consecutive partitions and store the result, so that a stopped pass can resume from it."""
    segment = group[0].segment
    joined = join(parts, reductions)
    for reduction, part in zip(reductions, joined, strict=True):
        index = {GROUP: part.index} if reduction.by_group else {FIRST: np.array(int(part.index[0]))}
        for key, arrays in zip(_checkpoint_keys(reduction, group), reduction.split(part.arrays), strict=True):
            try:
                summary.save(segment.files, segment.summarised_as, key, {**arrays, **index})
            except DamageError:
                raise
            except StoreError as error:
                log.debug("checkpoint not stored: %s", error)
    return joined


def resume(group: Sequence[Partition], reductions: Sequence[Reduction]) -> list[Part]:
    """Load what `join_and_checkpoint` stored, or compute it again if a checkpoint is damaged or missing."""
    parts = []
    for reduction in reductions:
        part = _load(group, reduction)
        if part is None:
            return join([reduce_partition(partition, reductions) for partition in group], reductions)
        parts.append(part)
    return parts


def _load(group: Sequence[Partition], reduction: Reduction) -> Part | None:
    """Return a reduction's stored part of consecutive partitions, or None if one of its summaries is not usable."""
    segment, summaries = group[0].segment, []
    for key in _checkpoint_keys(reduction, group):
        try:
            arrays = summary.load(segment.files, segment.summarised_as, key)
        except DamageError as error:
            log.warning("%s", error)
            arrays = None
        if arrays is None:
            return None
        index = arrays.pop(GROUP if reduction.by_group else FIRST)
        summaries.append(arrays)
    united = reduction.unite(summaries)
    if not reduction.by_group:
        index = int(index) + np.arange(len(next(iter(united.values()))))
    return Part(index, united)


def store(
    segment: Segment, tables: Arrays, reduction: Reduction, part: Part, *, checkpoints: bool = False
) -> list[tuple[Arrays, bool]]:
    """Check and store the complete part of a reduction.

    Return the arrays of each summary and whether they are stored. If another writer was first, these are its arrays; if
    the store cannot be written, they are not stored. With `checkpoints`, remove those that the pass has stored.
    """
    index = {GROUP: part.index} if reduction.by_group else {}
    results: list[tuple[Arrays, bool]] = [({**arrays, **index}, False) for arrays in reduction.split(part.arrays)]
    for key, (arrays, _) in zip(reduction.keys, results, strict=True):
        reduction.check(arrays, tables, segment, key)
    try:
        for i, key in enumerate(reduction.keys):
            results[i] = summary.save(segment.files, segment.summarised_as, key, results[i][0]), True
        used = tables[GROUP_OF_LAYER] >= 0 if reduction.by_group else slice(None)
        filters = int(tables["row_size"][used].sum())
        logs.event(log, "reduced", segment=segment.id, summary=kinds([reduction]), filters=filters)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("summary kept in memory only: %s", error)
        return results
    if checkpoints:
        _remove_checkpoints(segment, reduction)
    return results


def _remove_checkpoints(segment: Segment, reduction: Reduction) -> None:
    try:
        for key in reduction.keys:
            summary.remove_parts(segment.files, segment.summarised_as, key)
    except StoreError as error:
        log.warning("parts of a complete summary were not removed: %s", error)
