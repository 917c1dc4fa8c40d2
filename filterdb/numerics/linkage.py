"""Hierarchical clusters of groups by the distances between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Linkage(NamedTuple):
    """The steps of a hierarchical clustering of n items, in ascending order of their distance.

    Step k joins the clusters `left[k]` and `right[k]` into cluster n + k; the items are clusters 0 to n − 1. This is
    SciPy's numbering. The cluster whose items come first on average is the left one.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]


def average_linkage(distances: npt.NDArray[np.floating]) -> Linkage:
    """Return the clusters of items by average linkage (UPGMA), from nearest-neighbour chains in O(n²).

    Parameters
    ----------
    distances : (n, n) float
        Symmetric distances. Those that are not finite count as the largest. The diagonal is ignored.

    Returns
    -------
    Linkage
        The n − 1 steps.

    Notes
    -----
    F. Murtagh, "A survey of recent advances in hierarchical clustering algorithms", The Computer Journal 26 (1983).
    Average linkage is reducible, so joining reciprocal nearest neighbours in any order gives the same clusters.
    """
    n = len(distances)
    work = np.array(distances, np.float64)
    finite = np.isfinite(work)
    work[~finite] = work[finite].max(initial=0.0)
    np.fill_diagonal(work, np.inf)
    sizes, pairs = np.ones(n), []
    chain: list[int] = []
    for _ in range(n - 1):
        a, b, distance = _reciprocal_neighbours(work, chain, sizes)
        pairs.append((distance, a, b))
        work[b] = (sizes[a] * work[a] + sizes[b] * work[b]) / (sizes[a] + sizes[b])
        work[:, b], work[b, b] = work[b], np.inf
        work[a], work[:, a] = np.inf, np.inf
        sizes[b], sizes[a] = sizes[a] + sizes[b], 0
    return _numbered(n, sorted(pairs, key=lambda pair: pair[0]))


def _reciprocal_neighbours(
    work: npt.NDArray[np.float64], chain: list[int], sizes: npt.NDArray[np.float64]
) -> tuple[int, int, float]:
    """Add to the chain until its last two clusters are nearest to each other; remove both and return them."""
    if not chain:
        chain.append(int(np.argmax(sizes > 0)))
    while True:
        row = work[chain[-1]]
        nearest = int(np.argmin(row))
        if len(chain) > 1 and row[chain[-2]] <= row[nearest]:
            a, b = chain.pop(), chain.pop()
            return a, b, float(work[a, b])
        chain.append(nearest)


def _numbered(n: int, pairs: list[tuple[float, int, int]]) -> Linkage:
    """Return the steps that join the clusters of the given items, in the order of their distance."""
    number = list(range(n))  # of the cluster whose representative is an item
    parent = list(range(n))
    size, place = np.ones(n), np.arange(n, dtype=np.float64)

    def representative(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    steps = []
    for step, (distance, a, b) in enumerate(pairs):
        first, second = sorted((representative(a), representative(b)), key=lambda item: (place[item], item))
        steps.append((number[first], number[second], distance))
        parent[second] = first
        place[first] = (size[first] * place[first] + size[second] * place[second]) / (size[first] + size[second])
        size[first] += size[second]
        number[first] = n + step
    columns = np.array(steps, np.float64).reshape(-1, 3).T
    return Linkage(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2])
