"""Compute percentiles of layers among layers of similar size and depth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.depth import DECILES, NO_DECILE, depth_decile

Floats = NDArray[np.float64]

FEWEST_PEERS = 5
"""Fewest layers among which `nearby_percentiles` ranks a layer, where there are as many of its size."""

SIZES = 16
"""Number of size classes; the last holds 16¹⁵ filters and more."""


ANY_DEPTH = len(DECILES)
"""Stands for the decile of layers whose depth is unknown."""


def percentiles(values: Floats, among: Floats) -> Floats:
    """Return the percentage of `among` (m,) below each value; ties count half. NaN for NaN values, or if m = 0."""
    ordered = np.sort(among)
    rank = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return np.where(np.isnan(values) | (len(among) == 0), np.nan, 100 * rank / max(len(among), 1))


def layer_classes(filters: NDArray[np.int64], conv_depth_norm: Floats) -> NDArray[np.int64]:
    """Return the class of each layer, 16 · depth decile + size class ⌊log₁₆ n⌋, (layers,) int64.

    A layer of unknown depth has ANY_DEPTH as its decile.
    """
    size = (np.log2(np.maximum(filters, 1)) // 4).astype(np.int64)
    decile = depth_decile(conv_depth_norm)
    return SIZES * np.where(decile == NO_DECILE, ANY_DEPTH, decile) + np.minimum(size, SIZES - 1)


def counts(classes: NDArray[np.int64]) -> dict[int, int]:
    """Return the number of layers of each class."""
    kinds, numbers = np.unique(classes, return_counts=True)
    return dict(zip(kinds.tolist(), numbers.tolist(), strict=True))


def by_class(values: Floats, classes: NDArray[np.int64]) -> dict[int, Floats]:
    """Return the finite values of each class, sorted."""
    kinds = np.unique(classes)
    return {int(kind): np.sort(values[(classes == kind) & np.isfinite(values)]) for kind in kinds}


def nearby_percentiles(
    values: Floats, classes: NDArray[np.int64], among: Mapping[int, Floats], layers: Mapping[int, int]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the percentile of each value among layers of its size and similar depth, and the number of these layers.

    They are those of its own decile of the depth or, while these are fewer than FEWEST_PEERS, of one decile more on
    either side. A layer of unknown depth is ranked among the layers of all depths. `among` has the sorted values of
    each class, or quantiles of them, `layers` the number of its layers.
    """
    placed, peers = np.full(len(values), np.nan), np.zeros(len(values), np.int64)
    for kind in np.unique(classes[classes >= 0]).tolist():
        decile, size = divmod(kind, SIZES)
        like = [other for other in layers if other % SIZES == size]
        near = like if decile == ANY_DEPTH else [other for other in like if other // SIZES != ANY_DEPTH]
        for width in range(len(DECILES) + 1):
            chosen = [other for other in near if decile == ANY_DEPTH or abs(other // SIZES - decile) <= width]
            if sum(layers[other] for other in chosen) >= FEWEST_PEERS:
                break
        here, chosen = classes == kind, [other for other in chosen if len(among[other])]
        peers[here] = sum(layers[other] for other in chosen)
        if chosen:
            ranks = [percentiles(values[here], among[other]) for other in chosen]
            placed[here] = np.average(ranks, axis=0, weights=[layers[other] for other in chosen])
    return placed, peers


def class_percentiles(values: Floats, classes: NDArray[np.int64], among: Mapping[int, Floats]) -> Floats:
    """Return the percentile of each value (layers,) among the values of its class; NaN without such values."""
    placed = np.full(len(values), np.nan)
    for kind in np.unique(classes):
        here = classes == kind
        placed[here] = percentiles(values[here], among.get(int(kind), np.zeros(0)))
    return placed
