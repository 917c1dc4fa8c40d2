"""The loops of `compiled`, `sketch` and `code_loops` in NumPy, for an installation without Numba: ten times as slow.

Coefficients, bins, sketches and codes have the same bytes, because every number is rounded in the same order. Moments
are sums in another order: they agree to about 1e-15 of the spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.alignment import (
    ALL,
    COMPARED,
    COSINE,
    ISOTROPIC,
    NORMS,
    OTHER_NORMS,
    SQUARES,
    WEIGHT,
    Side,
)
from filterdb.numerics.code_loops import CONSTANT
from filterdb.numerics.sketch import BITS, BUCKETS, FILTERS, HASHED, SEED

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = NDArray[np.float32]

BLOCK = 65_536
"""Filters in double precision at a time (5 MB)."""

CODED = 2_048
"""Filters whose distances from all codes are in memory at a time."""


def _blocks(columns: Columns, start: int, stop: int) -> Iterator[Columns]:
    """Yield the filters of a run, (weights, n) each."""
    for first in range(start, stop, BLOCK):
        yield columns[:, first : min(first + BLOCK, stop)]


def _loaded(block: Columns, scaled: bool) -> Floats:
    """Return filters in double precision, divided by their largest |w| if `scaled`; an all-zero one stays zero."""
    filters = block.astype(np.float64)
    if scaled:
        peaks = np.abs(block).max(axis=0).astype(np.float64)
        filters /= np.where(peaks > 0, peaks, 1.0)
    return filters


def _accumulate(filters: Floats, count: int, mean: Floats, m2: Floats) -> int:
    """Merge filters (weights, m) into the moments of `count` filters, in place, and return m (see `compiled`)."""
    m: int = filters.shape[1]
    if m:
        origin = filters[:, 0].copy() if count == 0 else mean.copy()
        differences = filters - origin[:, None]
        total = differences.sum(axis=1)
        mean[:] = origin + total / (count + m)
        shift = total / m
        m2 += differences @ differences.T - m * (m / (count + m)) * np.outer(shift, shift)
    return m


def moments(  # noqa: PLR0913 - the arguments of the compiled loop
    columns: Columns, starts: Ints, stops: Ints, thresholds: Floats, counts: Ints, means: Floats, m2: Floats,
    peaks: Floats, spans: Floats,
) -> None:  # fmt: skip
    """Add each run to its moments, as `compiled.moments`."""
    for r in range(starts.size):
        for block in _blocks(columns, starts[r], stops[r]):
            total = int(counts[r].sum())
            low, high = block.min(axis=0), block.max(axis=0)
            largest = np.maximum(high, -low).astype(np.float64)
            peaks[r] = max(peaks[r], largest.max())
            spans[r] += (high.astype(np.float64) - low).sum()
            raw, sparse = block.astype(np.float64), largest < thresholds[r]
            counts[r, 0] += _accumulate(raw[:, ~sparse], counts[r, 0], means[r, 0], m2[r, 0])
            counts[r, 1] += _accumulate(raw[:, sparse], counts[r, 1], means[r, 1], m2[r, 1])
            _accumulate(_loaded(block, True), total, means[r, 2], m2[r, 2])


def _project(filters: Floats, mean: Floats, component: Floats) -> Floats:
    """Return the coefficients (m,) of filters (weights, m) on one component. Keep this order of roundings."""
    total: Floats = (filters[0] - mean[0]) * component[0]
    for j in range(1, len(filters)):
        total += (filters[j] - mean[j]) * component[j]
    return total


def extremes(
    columns: Columns, starts: Ints, stops: Ints, mean: Floats, components: Floats, scaled: bool, smallest: Floats,
    largest: Floats,
) -> None:  # fmt: skip
    """Update the extremes of each run's coefficients, as `compiled.extremes`."""
    for r in range(starts.size):
        for block in _blocks(columns, starts[r], stops[r]):
            filters = _loaded(block, scaled)
            for k in range(len(filters)):
                values = _project(filters, mean, components[k])
                smallest[r, k] = min(smallest[r, k], values.min())
                largest[r, k] = max(largest[r, k], values.max())


def _bins(values: Floats, edges: Floats, slack: float) -> Ints:
    """Return the bin of each coefficient, −1 below the edges, the number of bins above, as `binning.bin_of`."""
    bins = edges.size - 1
    position = (values - edges[0]) / (edges[bins] - edges[0]) * bins
    b: Ints = np.clip(np.trunc(position), 0, bins - 1).astype(np.int64)
    down = (b > 0) & (values < edges[b] - slack)
    up = ~down & (b != bins - 1) & (values >= edges[b + 1] - slack)
    b += up.astype(np.int64) - down
    b[~(values <= edges[bins] + slack)] = bins
    b[~(values >= edges[0] - slack)] = -1
    return b


def histograms(  # noqa: PLR0913 - the arguments of the compiled loop
    columns: Columns, starts: Ints, stops: Ints, mean: Floats, components: Floats, scaled: bool, edges: Floats,
    slack: float, counts: Ints, underflow: Ints, overflow: Ints, on_edge: Ints,
) -> None:  # fmt: skip
    """Count the coefficients of each run in uniform bins, as `compiled.histograms`."""
    bins = edges.size - 1
    for r in range(starts.size):
        for block in _blocks(columns, starts[r], stops[r]):
            filters = _loaded(block, scaled)
            for k in range(len(filters)):
                values = _project(filters, mean, components[k])
                index = _bins(values, edges, slack)
                below, *inside, above = np.bincount(index + 1, minlength=bins + 2).tolist()
                underflow[r, k] += below
                overflow[r, k] += above
                counts[r, k] += inside
                on_edge[r, k] += int(((index > 0) & (index < bins) & (values <= edges[index] + slack)).sum())


def reduce_together(
    columns: Columns,
    starts: Ints,
    stops: Ints,
    axes: tuple[Floats, Floats, bool] | None = None,
    **states: tuple[Any, ...],
) -> None:
    """Add each run to several states, as `compiled.reduce_together`."""
    for name, state in states.items():
        if name == "moments":
            moments(columns, starts, stops, *state)
        elif axes is not None:
            add = extremes if name == "extremes" else histograms
            add(columns, starts, stops, *axes, *state)


def densities(  # noqa: PLR0913 - the arguments of the compiled loop
    columns: Columns, starts: Ints, stops: Ints, groups: Ints, mean: Floats, components: Floats, scaled: bool,
    edges: Floats, slack: float, pairs: Ints, counts: Ints, outside: Ints,
) -> None:  # fmt: skip
    """Count pairs of coefficients of each run in a square of uniform bins, by group, as `compiled.densities`."""
    bins = edges.size - 1
    for r in np.flatnonzero(groups >= 0).tolist():
        for block in _blocks(columns, starts[r], stops[r]):
            filters = _loaded(block, scaled)
            index = {k: _bins(_project(filters, mean, components[k]), edges, slack) for k in np.unique(pairs).tolist()}
            for p, (i, j) in enumerate(pairs.tolist()):
                first, second = index[i], index[j]
                inside = (first >= 0) & (first < bins) & (second >= 0) & (second < bins)
                square = np.bincount(first[inside] * bins + second[inside], minlength=bins * bins)
                counts[p, groups[r]] += square.reshape(bins, bins)
                outside[p, groups[r]] += int((~inside).sum())


def _hash(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64 of numbers."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _tally(columns: Columns, first: int) -> Floats:
    """Return the sketch of each weight of filters, (weights, 128); the first filter is number `first` of its layer."""
    weights = len(columns)
    hashes = -(-weights // HASHED)
    filters = np.arange(first, first + columns.shape[1], dtype=np.uint64)
    sums = np.empty((weights, 2 * BUCKETS))
    for j in range(weights):
        if j % HASHED == 0:
            numbers = (filters * np.uint64(hashes) + np.uint64(j // HASHED)) * np.uint64(2)
            buckets, signs = _hash(numbers), _hash(numbers + np.uint64(1))
        place = (buckets & np.uint64(BUCKETS - 1)) | ((signs & np.uint64(1)) << np.uint64(BITS))
        sums[j] = np.bincount(place.astype(np.int64), columns[j], 2 * BUCKETS)
        buckets, signs = buckets >> np.uint64(BITS), signs >> np.uint64(1)
    tally: Floats = sums[:, :BUCKETS] - sums[:, BUCKETS:]
    return tally


def add_nine(sketches: Floats, columns: Columns, starts: Ints, stops: Ints, firsts: Ints) -> None:
    """Add each run of filters to the sketch of its layer, as `sketch.add`."""
    for r in range(starts.size):
        for start in range(starts[r], stops[r], FILTERS):
            tally = _tally(columns[:, start : min(start + FILTERS, stops[r])], int(firsts[r] + start - starts[r]))
            for row in tally:
                sketches[r] += row


add_any = add_nine


def add_signs(signs: Floats, columns: Columns, first: int) -> None:
    """Add the sums for filters whose weights are all 1, as `sketch.add_signs`."""
    signs += _tally(columns, first)


def add_rows(sums: NDArray[Any], states: NDArray[Any], rows: Ints, bounds: Ints) -> None:
    """Store the sum of the rows of each set, as `row_sums.add_rows`."""
    for i, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        sums[i] = states[rows[start:stop]].sum(axis=0)


def add_pairs(sums: Floats, products: Floats, left: Side, right: Side, weight: float) -> None:
    """Add one place to the sums of all pairs of models, as `alignment.add_pairs`."""
    pairs = np.ix_(left.position, right.position)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = products / (left.length[:, None] * right.length)
    cosine[left.content[:, None] == right.content] = 1.0
    sums[COSINE][pairs] += weight * cosine
    sums[ISOTROPIC][pairs] += weight * np.sqrt(left.isotropic[:, None] * right.isotropic)
    sums[WEIGHT][pairs] += weight
    if len(sums) == ALL:
        sums[COMPARED][pairs] += 1
        sums[SQUARES][pairs] += np.maximum(left.square[:, None] + right.square - 2 * products, 0.0)
        sums[NORMS][pairs] += left.square[:, None]
        sums[OTHER_NORMS][pairs] += right.square


def add_cosines(
    sums: Columns, cosines: Columns, common: Columns, rows: Ints, columns: Ints, weight: np.float32
) -> None:
    """Add places to the sums of cosines and weights, as `alignment.add_cosines`."""
    pairs = np.ix_(rows, columns)
    sums[0][pairs] += weight * cosines
    sums[1][pairs] += weight * common


def _normalised(columns: Columns, affine: bool) -> tuple[Floats, Floats]:
    """Return filters (weights, n) normalised, and their norms, 0 without a direction, as `code_loops._normalise`."""
    x = columns.astype(np.float64)
    norm, limit = _squares(x), np.zeros(x.shape[1])
    if affine:
        x -= sum(x, np.zeros(x.shape[1])) / len(x)
        limit = norm * (CONSTANT * CONSTANT)
        norm = _squares(x)
    norm = np.sqrt(np.where(norm > limit, norm, 0.0))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0), norm


def _squares(x: Floats) -> Floats:
    """Return the sum of the squares of each filter (weights, n), added in the order of the weights."""
    total = np.zeros(x.shape[1])
    for row in x:
        total += row * row
    return total


def _nearest(x: Floats, codes: Floats) -> tuple[Ints, Floats]:
    """Return the nearest code of normalised filters (weights, n), and the squared distance from it."""
    distances = np.zeros((x.shape[1], len(codes)))
    for row, weights in zip(x, codes.T, strict=True):
        distances += (row[:, None] - weights) ** 2
    index = distances.argmin(axis=1)
    return index, distances[np.arange(len(index)), index]


def nearest_codes(columns: Columns, affine: bool, codes: Floats, index: Ints, distance: Floats) -> None:
    """Store the nearest code of each filter, as `code_loops.nearest_codes`."""
    for start in range(0, columns.shape[1], CODED):
        part = slice(start, start + CODED)
        x, norm = _normalised(columns[:, part], affine)
        found, squares = _nearest(x, codes)
        index[part], distance[part] = np.where(norm > 0, found, -1), np.where(norm > 0, squares, 0.0)


def _coded(columns: Columns, start: int, stop: int, affine: bool, codes: Floats) -> Iterator[tuple[Any, ...]]:
    """Yield the filters with a direction of parts of a run, normalised, codes, distances, and the number of others."""
    for first in range(start, stop, CODED):
        x, norm = _normalised(columns[:, first : min(first + CODED, stop)], affine)
        x = x[:, norm > 0]
        yield x, *_nearest(x, codes), int((norm == 0).sum())


def add_to_codes(
    columns: Columns, starts: Ints, stops: Ints, rows: Ints, affine: bool, codes: Floats, state: Any
) -> None:
    """Add the filters of each run to its row's sums by code, as `code_loops.add_to_codes`."""
    counts, flat, sums, inertia = state
    for start, stop, row in zip(starts, stops, rows, strict=True):
        for x, index, distance, without in _coded(columns, start, stop, affine, codes) if row >= 0 else ():
            counts[row] += np.bincount(index, minlength=len(codes))
            np.add.at(sums[row], index, x.T)
            np.add.at(inertia, np.full(len(distance), row), distance)  # in the order of the filters
            flat[row] += without


def add_to_layers(
    columns: Columns, starts: Ints, stops: Ints, affine: bool, codes: Floats, thresholds: Floats, state: Any
) -> None:
    """Add the filters of each run to the code histogram of its layer, as `code_loops.add_to_layers`."""
    counts, flat, within, sums, inertia = state
    size = np.sqrt(_squares(codes.T))
    for r, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for x, index, distance, without in _coded(columns, start, stop, affine, codes):
            counts[r] += np.bincount(index, minlength=len(codes))
            product = np.zeros(len(index))
            for row, weights in zip(x, codes.T, strict=True):
                product += row * weights[index]
            own = size[index][:, None]
            within[r] += ((own > 0) & (product[:, None] >= thresholds * own)).sum(axis=0)
            np.add.at(sums, np.full(len(index), r), x.T)
            np.add.at(inertia, np.full(len(index), r), distance)
            flat[r] += without


def choose_seeds(x: Floats, draws: Floats, seeds: Ints) -> int:
    """Choose filters as first codes, as `code_loops.choose_seeds`."""
    n, inertia = x.shape[1], np.inf
    nearest = np.full(n, np.inf)
    for c in range(len(seeds)):
        if inertia <= 0.0:
            return c
        least = np.inf
        for draw in draws[c].tolist():
            if c == 0:
                pick = int(draw * n)
            else:
                left = np.add.accumulate(np.concatenate([[draw * inertia], -nearest]))[1:]
                below = np.flatnonzero((left < 0) & (nearest > 0))
                pick = int(below[0] if below.size else np.flatnonzero(nearest > 0)[-1])
            trial = np.minimum(_squares(x - x[:, pick, None]), nearest)
            total = float(np.add.accumulate(trial)[-1])
            if total < least:
                least, best, seeds[c] = total, trial, pick
        nearest, inertia = best, least
    return len(seeds)
