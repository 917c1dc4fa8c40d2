"""Fit codes to filters by k-means, and to isotropic noise of the same size, which every codebook is compared with.

Filters are normalised first, so that all of them count the same: divided by their norm (`scale`, a filter and its
negative differ), or less their mean and then divided by their norm (`ax+b` with a > 0). A filter whose weights are all
zero or, with `ax+b`, all equal has no direction; it is counted apart, as *flat*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.choices import Normalisation
from filterdb.errors import UsageError
from filterdb.numerics import code_loops
from filterdb.numerics.code_loops import CONSTANT
from filterdb.numerics.compilation import read_only

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = NDArray[np.float32]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Correlations of a filter with its code from which on the code is said to cover it."""

SEEDING, FEWEST_SEEDING = 64, 8_192
"""Filters for each code, and fewest, among which the first codes are chosen, and to which they are fitted first."""

MOST_STARTS, MOST_CODES_TWICE = 8, 128
"""Most starts of a fit, and most codes with more than one. The fewer the codes, the more the local minima differ."""

TOLERANCE = 1e-4
"""Relative decrease of the inertia below which a fit in memory ends."""

MOST_STEPS = 100
"""Most of Lloyd's steps of a fit in memory."""

MOST_WEIGHTS = 2**23
"""Most weights of the filters that codes are fitted to in memory (34 MB), and SEEDING times the most of all codes."""

ROUNDING = 1e-12
"""Mean square of unit vectors about their mean that may be a rounding error."""

NOISE = 4
"""Noise filters that codes are fitted to, as a multiple of the sample. That changes the figures of 20 million by less
than 0.001, and they are corrected for it."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The settings of a fit."""

    k: int
    """Number of codes."""
    normalise: Normalisation
    """How filters are normalised."""
    seed: int = 0
    """Seed of all random choices."""
    passes: int = 1
    """Lloyd's steps on all filters after the fit to a sample; none if the sample has all filters."""

    @property
    def affine(self) -> bool:
        """Return whether a filter's mean is subtracted before it is divided by its norm."""
        return self.normalise == "ax+b"


class CodeSums(NamedTuple):
    """Sums over filters by their nearest code.

    `counts` (k,) int64 are filters, `flat` those without a direction, `sums` (k, weights) the sums of normalised
    filters, `inertia` the sum of the squared distances from the codes.
    """

    counts: Ints
    flat: int
    sums: Floats
    inertia: float

    def updated(self, codes: Floats) -> Floats:
        """Return the mean of each code's filters; a code without filters stays as it is."""
        filters = np.maximum(self.counts, 1)[:, None]
        means: Floats = np.where(self.counts[:, None] > 0, self.sums / filters, codes)
        return means


class Figures(NamedTuple):
    """How well codes describe filters: explained variance, and the share that they cover, by threshold."""

    explained_variance: float
    coverage: Floats
    deviation: float
    """Standard deviation of a filter's squared distance, as a share of the mean square about the mean."""
    filters: int
    """Filters that the figures are of, or that those of noise were computed from."""


@dataclass(frozen=True, slots=True)
class NoiseFigures:
    """The figures of codes fitted to noise, on the filters that they were fitted to and on as many new ones."""

    filters: int
    """Noise filters that the codes were fitted to."""
    fitted: Figures
    new: Figures

    def of_size(self, filters: int) -> Figures:
        """Return the figures for so many filters of noise, at least as many as the codes were fitted to.

        Codes describe the filters that they were fitted to better than others. Among more filters, these are a smaller
        share, and the others are described as new ones are.
        """
        share = self.filters / filters

        def mixed[T: (float, Floats)](fitted: T, new: T) -> T:
            return new + (fitted - new) * share

        return Figures(
            mixed(self.fitted.explained_variance, self.new.explained_variance),
            mixed(self.fitted.coverage, self.new.coverage),
            mixed(self.fitted.deviation, self.new.deviation),
            self.filters,
        )


def normalised(columns: Columns, *, affine: bool) -> Floats:
    """Return filters (weights, n) normalised, without those that have no direction, (weights, m) float64."""
    x = columns.astype(np.float64)
    limit = np.zeros(x.shape[1])
    if affine:
        limit = np.sqrt((x**2).sum(axis=0)) * CONSTANT
        x -= x.mean(axis=0)
    norm = np.sqrt((x**2).sum(axis=0))
    has_direction = norm > limit
    unit: Floats = np.ascontiguousarray(x[:, has_direction] / norm[has_direction])
    return unit


def sample_size(k: int, weights: int) -> int:
    """Return the number of filters that codes are fitted to in memory: 1,024 for each code, within 2²³ weights."""
    return max(min(max(65_536, 1_024 * k), MOST_WEIGHTS // weights), SEEDING * k, FEWEST_SEEDING)


def fit(columns: Columns, codes: Codes) -> Floats:
    """Fit codes to filters in memory, columns (weights, n) float32; return (k, weights) float64.

    Greedy k-means++ chooses the first codes among a part of the filters, and Lloyd's steps move them there. The best of
    several starts is then moved on all filters.
    """
    rng = np.random.default_rng([codes.seed, 2])
    size = max(SEEDING * codes.k, FEWEST_SEEDING)
    few = columns[:, np.sort(rng.permutation(columns.shape[1])[:size])]
    x = normalised(few, affine=codes.affine)
    starts = [_start(few, x, codes, rng) for _ in range(min(max(2 * MOST_CODES_TWICE // codes.k, 1), MOST_STARTS))]
    best, _ = min(starts, key=lambda start: start[1])
    return lloyd(columns, best, affine=codes.affine)[0] if few.shape[1] < columns.shape[1] else best


def _start(few: Columns, x: Floats, codes: Codes, rng: np.random.Generator) -> tuple[Floats, float]:
    """Return codes fitted to a part of the filters, normalised x (weights, n), and their inertia before the last step.

    Raises UsageError if fewer filters differ than there are codes.
    """
    draws = rng.random((codes.k, 2 + int(math.log(codes.k))))
    seeds = np.zeros(codes.k, np.int64)
    distinct = code_loops.choose_seeds(x, draws, seeds) if x.shape[1] else 0
    if distinct < codes.k:
        raise UsageError(
            f"codebook: expected filters of at least k = {codes.k:,} directions, got {distinct:,}; ask for fewer codes"
        )
    return lloyd(few, np.ascontiguousarray(x[:, seeds].T), affine=codes.affine)


def lloyd(columns: Columns, codes: Floats, *, affine: bool) -> tuple[Floats, float]:
    """Move codes (k, weights) by Lloyd's steps until their inertia on filters in memory no longer decreases.

    Return them with their inertia before the last step.
    """
    before = np.inf
    for _ in range(MOST_STEPS):
        sums = sums_of(columns, codes, affine=affine)
        codes = sums.updated(codes)
        if before - sums.inertia <= TOLERANCE * sums.inertia:
            break
        before = sums.inertia
    return codes, sums.inertia


def _as_stored(columns: Columns) -> Columns:
    """Return the columns laid out and read-only as those of a chunk, for which the loops are compiled."""
    return read_only(np.ascontiguousarray(columns))


def sums_of(columns: Columns, codes: Floats, *, affine: bool) -> CodeSums:
    """Return the sums over filters in memory by their nearest code."""
    columns, state = _as_stored(columns), empty_sums(1, *codes.shape)
    whole = np.array([0]), np.array([columns.shape[1]]), np.array([0])
    code_loops.add_to_codes(columns, *whole, affine, np.ascontiguousarray(codes), tuple(state.values()))
    counts, flat, sums, inertia = (array[0] for array in state.values())
    return CodeSums(counts, int(flat), sums, float(inertia))


def empty_sums(rows: int, k: int, weights: int) -> dict[str, NDArray[np.generic]]:
    """Return the state of `code_loops.add_to_codes` without filters."""
    return {
        "counts": np.zeros((rows, k), np.int64),
        "flat": np.zeros(rows, np.int64),
        "sums": np.zeros((rows, k, weights)),
        "inertia": np.zeros(rows),
    }


def empty_histograms(layers: int, k: int, weights: int) -> dict[str, NDArray[np.generic]]:
    """Return the state of `code_loops.add_to_layers` without filters."""
    return {
        "counts": np.zeros((layers, k), np.int64),
        "flat": np.zeros(layers, np.int64),
        "within": np.zeros((layers, len(THRESHOLDS)), np.int64),
        "sums": np.zeros((layers, weights)),
        "inertia": np.zeros(layers),
    }


def figures(columns: Columns, codes: Floats, *, affine: bool) -> Figures:
    """Return how well codes describe filters in memory, of which at least one must have a direction."""
    columns, codes, state = _as_stored(columns), np.ascontiguousarray(codes), empty_histograms(1, *codes.shape)
    whole = np.array([0]), np.array([columns.shape[1]])
    code_loops.add_to_layers(columns, *whole, affine, codes, np.array(THRESHOLDS), tuple(state.values()))
    counts, _, within, sums, inertia = (array[0] for array in state.values())
    index, distance = np.empty(columns.shape[1], np.int64), np.empty(columns.shape[1])
    code_loops.nearest_codes(columns, affine, codes, index, distance)
    filters = int(counts.sum())
    total = squares_about(np.array(filters), sums, sums / filters)
    deviation = float(distance[index >= 0].std()) / (float(total) / filters)
    return Figures(float(1 - inertia / total), within / filters, deviation, filters)


def squares_about(filters: Ints, sums: Floats, mean: Floats) -> Floats:
    """Return the sums of ‖x − mean‖² over groups of `filters` (…,) unit vectors with sums (…, weights).

    A sum that may be only a rounding error, as that of equal filters is, is 0.
    """
    squares = filters * (1 + mean @ mean) - 2 * (sums @ mean)
    kept: Floats = np.where(squares > ROUNDING * filters, squares, 0.0)
    return kept


def noise_figures(filters: int, weights: int, codes: Codes) -> NoiseFigures:
    """Fit codes to isotropic Gaussian filters, at most NOISE times a sample, as to stored ones; return their figures.

    As there, codes are fitted to a sample in memory first, and then take `passes` of Lloyd's steps on all filters.
    """
    rng = np.random.default_rng([codes.seed, 3])
    sample = sample_size(codes.k, weights)
    size = min(filters, NOISE * sample)
    columns = rng.standard_normal((weights, size), dtype=np.float32)
    fitted = fit(columns[:, :sample], codes)
    for _ in range(codes.passes if size > sample else 0):
        fitted = sums_of(columns, fitted, affine=codes.affine).updated(fitted)
    on_fitted = figures(columns, fitted, affine=codes.affine)
    rng.standard_normal(columns.shape, dtype=np.float32, out=columns)
    return NoiseFigures(size, on_fitted, figures(columns, fitted, affine=codes.affine))
