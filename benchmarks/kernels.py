"""The compiled loops alone: one core, one strip of filters that stays in the cache, ns per filter."""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from rounds import Contender, interleave, table

from filterdb.numerics import compiled
from filterdb.numerics.histogram import bin_edges, edge_slack
from filterdb.numerics.scaling import scale

N, TIMES = 16_384, 50


def numpy_moments(filters: np.ndarray) -> None:
    """The twin in NumPy: scaled, centred, products; raw the same."""
    for values in (scale(filters), filters.astype(np.float64)):
        centred = values - values.mean(axis=0)
        _ = centred.T @ centred


def numpy_histograms(filters: np.ndarray, mean: np.ndarray, components: np.ndarray, edges: np.ndarray) -> None:
    """The twin in NumPy: nine calls of histogram."""
    coefficients = (scale(filters) - mean) @ components.T
    for k in range(9):
        np.histogram(coefficients[:, k], bins=70, range=(edges[0], edges[-1]))


def main() -> None:
    """Print a row per loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((9, N)).astype(np.float32)
    columns.flags.writeable = False
    rows = np.ascontiguousarray(columns.T)
    run = np.array([0]), np.array([N])
    components, mean = np.linalg.qr(rng.standard_normal((9, 9)))[0], np.full(9, 0.01)
    edges = bin_edges(-3.2, 3.2)
    moments = [np.zeros((1, 2), np.int64), np.zeros((1, 3, 9)), np.zeros((1, 3, 9, 9)), np.zeros(1), np.zeros(1)]
    far = np.full((1, 9), np.finfo(np.float64).max)
    bins = edges, edge_slack(edges)
    counts = [np.zeros((1, 9, 70), np.int64), *np.zeros((3, 1, 9), np.int64)]
    loops = {
        "moments, no sparse filter": partial(compiled.moments, columns, *run, np.array([0.0]), *moments),
        "moments, a fifth sparse": partial(compiled.moments, columns, *run, np.array([1.2]), *moments),
        "extremes, scaled": partial(compiled.extremes, columns, *run, mean, components, True, far, -far),
        "extremes, raw": partial(compiled.extremes, columns, *run, mean, components, False, far.copy(), -far),
        "histograms, scaled": partial(compiled.histograms, columns, *run, mean, components, True, *bins, *counts),
        "histograms, raw": partial(compiled.histograms, columns, *run, mean, components, False, *bins, *counts),
        "NumPy: raw and scaled moments": partial(numpy_moments, rows),
        "NumPy: projection and nine histograms": partial(numpy_histograms, rows, mean, components, edges),
    }

    def repeated(loop: partial[None]) -> None:
        for _ in range(TIMES):
            loop()

    contenders = [Contender(name, N * TIMES, partial(repeated, loop)) for name, loop in loops.items()]
    print(table(interleave(contenders, options.rounds), "moments, no sparse filter", ratio="÷ moments", inverse=True))


if __name__ == "__main__":
    main()
