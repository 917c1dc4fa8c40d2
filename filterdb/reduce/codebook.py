"""Fit codes to the filters of a database by k-means, and count filters by code and layer.

Codes are fitted to a sample in memory first. Each of Lloyd's steps on all filters is a pass that adds up the filters by
their nearest code; its summaries are kept until the fit is stored, so that a stopped run goes on where it was. The last
pass counts filters by code and layer; any grouping is a sum of these counts. What belongs to several segments is stored
with the summaries of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np

from filterdb import cluster, plan
from filterdb.cluster import Work
from filterdb.engine.partition import GROUP_OF_LAYER
from filterdb.engine.reduction import Block, LayerReduction, Reduction
from filterdb.engine.run import Wanted, compute
from filterdb.errors import DamageError, StoreError
from filterdb.numerics import code_loops
from filterdb.numerics.codebook import (
    NOISE,
    THRESHOLDS,
    Codes,
    CodeSums,
    Figures,
    NoiseFigures,
    empty_histograms,
    empty_sums,
    fit,
    noise_figures,
    sample_size,
)
from filterdb.reduce.joint_densities import digest_of_groups, groups_by_segment
from filterdb.store import summary
from filterdb.store.canonical import canonical, digest
from filterdb.store.database import Database
from filterdb.store.segment import Segment
from filterdb.store.summary import Arrays, Key
from filterdb.wording import counted

_CODEBOOK = "codebook"
"""The kind of the summary that has fitted codes; all others of a fit are removed once it is stored."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FixedCodes:
    """Fitted codes as part of every task: their bytes (k, weights) float64, and whether filters lose their mean."""

    data: bytes
    weights: int
    affine: bool

    @classmethod
    def of(cls, codes: np.ndarray, *, affine: bool) -> FixedCodes:
        """Return these codes (k, weights)."""
        return cls(np.ascontiguousarray(codes, "<f8").tobytes(), codes.shape[1], affine)

    @property
    def array(self) -> np.ndarray:
        """Return the codes, (k, weights) float64."""
        return (
            np.frombuffer(self.data, "<f8").reshape(-1, self.weights).copy()
        )  # Numba compiles anew for a read-only one

    @property
    def content(self) -> dict[str, object]:
        """Return the part of a summary's name that depends on the codes."""
        return {"codes": digest(self.data), "weights": self.weights, "affine": self.affine}


@dataclass(frozen=True, slots=True)
class CodeSumsReduction(Reduction):
    """Add up the filters of one group of layers by their nearest code: `code_loops.add_to_codes`."""

    by_group: ClassVar[bool] = True
    stays_in_memory: ClassVar[bool] = False

    codes: FixedCodes
    grouping: str

    @property
    def keys(self) -> tuple[Key, ...]:
        content = {**self.codes.content, "grouping": self.grouping}
        return (Key("code-sums", 1, canonical(content).decode(), is_temporary=True),)

    def empty(self, rows: int) -> Arrays:
        return empty_sums(rows, *self.codes.array.shape)

    def add(self, arrays: Arrays, block: Block) -> None:
        state = tuple(arrays[name] for name in self.empty(0))
        runs = block.starts, block.stops, block.rows
        code_loops.add_to_codes(block.columns, *runs, self.codes.affine, self.codes.array, state)

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def check(self, arrays: Arrays, tables: Arrays, segment: Segment, key: Key) -> None:
        """Raise DamageError if the group has another number of filters than its layers in the segment's tables."""
        expected = int(tables["row_size"][tables[GROUP_OF_LAYER] >= 0].sum())
        got = int(arrays["counts"].sum() + arrays["flat"].sum())
        if got != expected:
            where = segment.files.url(summary.name_of(segment.summarised_as, key))
            raise DamageError(
                f"{where}: expected {counted(expected, 'filter')}, got {got}; delete it, it is computed again"
            )


@dataclass(frozen=True, slots=True)
class CodeHistograms(LayerReduction):
    """Count, by layer, filters by their nearest code, and what tells how well the codes describe them.

    counts (layers, k); flat: filters without a direction; within (layers, thresholds): filters that their code covers;
    sums (layers, weights): of the normalised filters; inertia: the sum of the squared distances from the codes.
    """

    narrow: ClassVar[tuple[str, ...]] = ("counts", "within")

    codes: FixedCodes

    @property
    def key(self) -> Key:
        content = {**self.codes.content, "thresholds": THRESHOLDS}
        return Key("code-histograms", 1, canonical(content).decode())

    def empty(self, layers: int) -> Arrays:
        return empty_histograms(layers, *self.codes.array.shape)

    def add(self, arrays: Arrays, block: Block) -> None:
        state = tuple(arrays[name] for name in self.empty(0))
        runs = block.starts, block.stops
        thresholds = np.array(THRESHOLDS)
        code_loops.add_to_layers(block.columns, *runs, self.codes.affine, self.codes.array, thresholds, state)

    def merge(self, a: Arrays, b: Arrays) -> Arrays:
        return {name: a[name] + b[name] for name in a}

    def count(self, arrays: Arrays) -> np.ndarray:
        total: np.ndarray = arrays["counts"].sum(axis=1) + arrays["flat"]
        return total


@dataclass(frozen=True)
class CodebookFit:
    """The fit of codes to the filters of a view."""

    db: Database
    codes: Codes

    @cached_property
    def _groups(self) -> list[tuple[int, np.ndarray]]:
        """Return the position of each segment with layers of the view, and for its layers 0, or −1 if not in it."""
        index = np.zeros(self.db.layer_columns.sizes["layer"], np.int64)
        return [(i, groups) for i, groups in enumerate(groups_by_segment(self.db, index)) if (groups >= 0).any()]

    @cached_property
    def filters(self) -> int:
        """Return the number of filters of the view."""
        return int(self.db.layer_columns["row_size"].values.sum())

    @cached_property
    def sample(self) -> int:
        """Return the number of filters of the sample."""
        return min(self.filters, sample_size(self.codes.k, self.db.weights))

    @property
    def passes(self) -> int:
        """Return the number of Lloyd's steps on all filters."""
        return self.codes.passes if self.sample < self.filters else 0

    def _key(self, kind: str, passes: int) -> Key:
        segments = self.db.segments
        layers = [[segments[i].summarised_as, digest_of_groups(groups)] for i, groups in self._groups]
        content = {"k": self.codes.k, "normalise": self.codes.normalise, "seed": self.codes.seed, "passes": passes}
        made_from = canonical({**content, "sample": self.sample, "layers": layers}).decode()
        return Key(kind, 1, made_from, is_temporary=kind != _CODEBOOK)

    @property
    def _place(self) -> Segment:
        """Return the segment with whose summaries the codes are stored."""
        return self.db.segments[self._groups[0][0]]

    def fixed(self) -> FixedCodes:
        """Return the codes, from the store or fitted and then stored."""
        key, start = self._key(_CODEBOOK, self.passes), self._key("codebook-start", 0)
        arrays = _stored(self.db, self._place, key)
        if arrays is None:
            begun = _stored(self.db, self._place, start)
            if begun is None:
                begun = _store(self.db, self._place, start, {"codes": self._fit_sample()})
            codes, steps = begun["codes"], []
            for _ in range(self.passes):
                codes, names = self._step(codes)
                steps += names
            arrays = _store(self.db, self._place, key, {"codes": codes})
            _remove(self.db, [summary.name_of(self._place.summarised_as, start), *steps])
        return FixedCodes.of(arrays["codes"], affine=self.codes.affine)

    def noise(self, filters: int) -> Figures:
        """Return the figures of codes fitted to so many filters of isotropic noise in the same way."""
        weights = self.db.weights
        size = min(filters, NOISE * sample_size(self.codes.k, weights))
        content = {"filters": size, "weights": weights, "k": self.codes.k, "normalise": self.codes.normalise}
        more = {"seed": self.codes.seed, "passes": self.codes.passes, "thresholds": THRESHOLDS}
        key = Key("codebook-noise", 1, canonical({**content, **more}).decode())
        arrays = _stored(self.db, self._place, key)
        if arrays is None:
            task = cluster.task(f"noise-{_token(key)}", partial(noise_figures, size, weights, self.codes))
            (drawn,) = cluster.run([task], "noise", work=Work(0, self.db.files.remote))
            values = {name: np.array(value) for name, value in _flat(drawn).items()}
            arrays = _store(self.db, self._place, key, values)
        return _noise_of(size, arrays).of_size(filters)

    def _step(self, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Return the codes after one of Lloyd's steps on all filters, and the names of its summaries."""
        fixed = FixedCodes.of(codes, affine=self.codes.affine)
        wanted = [
            Wanted(position, (CodeSumsReduction(fixed, digest_of_groups(groups)),), groups)
            for position, groups in self._groups
        ]
        parts = {request.position: (key, arrays) for request, key, arrays in compute(self.db, wanted)}
        total = {name: array[0] for name, array in empty_sums(1, *codes.shape).items()}
        names = []
        for position in sorted(parts):
            key, arrays = parts[position]
            total = {name: value + arrays[name].sum(axis=0) for name, value in total.items()}
            names.append(summary.name_of(self.db.segments[position].summarised_as, key))
        sums = CodeSums(total["counts"], int(total["flat"]), total["sums"], float(total["inertia"]))
        return sums.updated(codes), names

    def _fit_sample(self) -> np.ndarray:
        """Return codes fitted to a sample of the view's filters, which workers read and one of them fits."""
        reads, nbytes = self._reads()
        token = _token(self._key("codebook-start", 0))
        tasks = [cluster.task(f"sample-{token}-{i}", partial(_read, *read)) for i, read in enumerate(reads)]
        work = cluster.task(f"codebook-{token}", partial(_fit, self.codes), tasks)
        (codes,) = cluster.run([work], "codebook", work=Work(nbytes, self.db.files.remote))
        return np.asarray(codes)

    def _reads(self) -> tuple[list[tuple[Segment, dict[int, np.ndarray]]], int]:
        """Return what each task reads of the sample: a segment, and by chunk the rows; and the bytes of all chunks."""
        rows = self._sampled_rows()
        first, reads, nbytes = 0, [], 0
        for segment in self.db.segments:
            own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + segment.rows)] - first
            first += segment.rows
            for chunks in plan.partitions(segment.chunks, segment.chunk_rows) if own.size else ():
                start, stop = segment.bounds(chunks[0])[0], segment.bounds(chunks[-1])[1]
                part = own[np.searchsorted(own, start) : np.searchsorted(own, stop)]
                of_chunk = {
                    int(chunk): part[part // segment.chunk_rows == chunk] - segment.bounds(int(chunk))[0]
                    for chunk in np.unique(part // segment.chunk_rows)
                }
                if of_chunk:
                    reads.append((segment, of_chunk))
                    nbytes += len(of_chunk) * segment.chunk_bytes
        return reads, nbytes

    def _sampled_rows(self) -> np.ndarray:
        """Return the rows of the sample among all rows of the segments, ascending."""
        layers = self.db.layer_columns
        bounds = plan.offsets(layers["row_size"].values)
        if self.sample == self.filters:
            chosen = np.arange(self.filters)
        else:
            rng = np.random.default_rng([self.codes.seed, 1])
            chosen = np.sort(rng.choice(self.filters, self.sample, replace=False, shuffle=False))
        layer = np.searchsorted(bounds, chosen, side="right") - 1
        rows: np.ndarray = layers["first_row"].values[layer] + chosen - bounds[layer]
        return rows


def _read(segment: Segment, rows_of_chunk: dict[int, np.ndarray]) -> np.ndarray:
    """Return some rows of some chunks as columns, (weights, n) float32. This is the work of a task."""
    return np.concatenate([segment.read_columns(chunk)[:, rows] for chunk, rows in rows_of_chunk.items()], axis=1)


def _fit(codes: Codes, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return codes fitted to the filters of all parts. This is the work of a task."""
    return fit(np.concatenate(parts, axis=1), codes)


def _token(key: Key) -> str:
    return digest(key.made_from.encode())[:12]


def _flat(figures: NoiseFigures) -> dict[str, object]:
    """Return the figures as arrays to store."""
    parts = {"fitted": figures.fitted, "new": figures.new}
    return {f"{name}_{field}": value for name, part in parts.items() for field, value in part._asdict().items()}


def _noise_of(filters: int, arrays: Arrays) -> NoiseFigures:
    """Return the figures that `_flat` stored."""

    def part(name: str) -> Figures:
        one = {field: arrays[f"{name}_{field}"] for field in Figures._fields}
        return Figures(float(one["explained_variance"]), one["coverage"], float(one["deviation"]), int(one["filters"]))

    return NoiseFigures(filters, part("fitted"), part("new"))


def _stored(db: Database, segment: Segment, key: Key) -> Arrays | None:
    """Return arrays that `_store` stored; None if they are missing."""
    kept = db.kept.get((segment.summarised_as, key))
    if kept is not None:
        return kept
    return summary.load(segment.files, segment.summarised_as, key)


def _store(db: Database, segment: Segment, key: Key, arrays: Arrays) -> Arrays:
    """Store arrays and return them, or those of another writer that was first; keep them in memory if that fails."""
    try:
        return summary.save(segment.files, segment.summarised_as, key, arrays)
    except DamageError:
        raise
    except StoreError as error:
        log.warning("summary kept in memory only: %s", error)
        db.kept[segment.summarised_as, key] = arrays
        return arrays


def _remove(db: Database, names: list[str]) -> None:
    """Remove what only an unfinished fit needs."""
    try:
        db.files.remove(names)
    except StoreError as error:
        log.debug("summaries of a complete fit were not removed: %s", error)
