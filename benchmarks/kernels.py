"""The compiled loops alone: one core, one strip of filters that stays in the cache, ns per filter.

For filters of other shapes, a row has BLAS's symmetric product of the same blocks in double precision: moments take two
such products, of raw and of scaled filters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from rounds import Contender, interleave, table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from filterdb.numerics import compiled
from filterdb.numerics.histogram import bin_edges, edge_slack
from filterdb.numerics.scaling import scale

WEIGHTS, TIMES = 147_456, 50
"""Weights of the strip, and how often each loop reads it."""

BLOCK = 2_048
"""Filters in a product by BLAS."""


def numpy_moments(filters: np.ndarray) -> None:
    """The twin in NumPy: scaled, centred, products; raw the same."""
    for values in (scale(filters), filters.astype(np.float64)):
        centred = values - values.mean(axis=0)
        _ = centred.T @ centred


def numpy_histograms(filters: np.ndarray, mean: np.ndarray, components: np.ndarray, edges: np.ndarray) -> None:
    """The twin in NumPy: a call of histogram for each component."""
    coefficients = (scale(filters) - mean) @ components.T
    for k in range(len(mean)):
        np.histogram(coefficients[:, k], bins=70, range=(edges[0], edges[-1]))


def products(columns: np.ndarray) -> None:
    """BLAS's product of each block with itself."""
    for start in range(0, columns.shape[1], BLOCK):
        block = columns[:, start : start + BLOCK]
        _ = block @ block.T


def loops_over(weights: int) -> tuple[dict[str, Callable[[], None]], int]:
    """The loops by name, and the filters of the strip."""
    rng = np.random.default_rng(0)
    n = WEIGHTS // weights
    columns = rng.standard_normal((weights, n)).astype(np.float32)
    columns.flags.writeable = False
    rows, double = np.ascontiguousarray(columns.T), columns.astype(np.float64)
    run = np.array([0]), np.array([n])
    components, mean = np.linalg.qr(rng.standard_normal((weights, weights)))[0], np.full(weights, 0.01)
    edges = bin_edges(-(weights**0.5) - 0.2, weights**0.5 + 0.2)
    shapes = (1, 3, weights), (1, 3, weights, weights), (1,), (1,)
    moments = [np.zeros((1, 2), np.int64), *map(np.zeros, shapes)]
    far = np.full((1, weights), np.finfo(np.float64).max)
    bins = edges, edge_slack(edges)
    counts = [np.zeros((1, weights, 70), np.int64), *np.zeros((3, 1, weights), np.int64)]
    loops: dict[str, Callable[[], None]] = {
        "moments": partial(compiled.moments, columns, *run, np.array([0.0]), *moments),
        "moments, a fifth sparse": partial(compiled.moments, columns, *run, np.array([1.2]), *moments),
        "extremes, scaled": partial(compiled.extremes, columns, *run, mean, components, True, far, -far),
        "extremes, raw": partial(compiled.extremes, columns, *run, mean, components, False, far.copy(), -far),
        "histograms, scaled": partial(compiled.histograms, columns, *run, mean, components, True, *bins, *counts),
        "histograms, raw": partial(compiled.histograms, columns, *run, mean, components, False, *bins, *counts),
        "all three, scaled": partial(
            compiled.reduce_together,
            columns,
            *run,
            (mean, components, True),
            moments=(np.array([0.0]), *moments),
            extremes=(far.copy(), -far),
            histograms=(*bins, *counts),
        ),
        "NumPy: raw and scaled moments": partial(numpy_moments, rows),
        "NumPy: projection and histograms": partial(numpy_histograms, rows, mean, components, edges),
        "BLAS: one product of double precision": partial(products, double),
    }
    return loops, n


def main() -> None:
    """Print a table for each number of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--weights", type=int, nargs="+", default=[9], help="of a filter, such as 9 25 49")
    options = parser.parse_args()

    def repeated(loop: Callable[[], None]) -> None:
        for _ in range(TIMES):
            loop()

    for weights in options.weights:
        loops, n = loops_over(weights)
        contenders = [Contender(name, n * TIMES, partial(repeated, loop)) for name, loop in loops.items()]
        with threadpool_limits(1):
            times = interleave(contenders, options.rounds)
        print(f"\n{n:,} filters of {weights} weights\n")
        print(table(times, "moments", ratio="÷ moments", inverse=True), flush=True)


if __name__ == "__main__":
    main()
