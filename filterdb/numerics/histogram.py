"""Bins and probabilities of coefficient histograms (method §3, §4)."""

from __future__ import annotations

import numpy as np

BINS = 70
PSEUDO_FILTERS = 35
"""α of the shrinkage toward the whole snapshot; ½ in each of the 70 bins."""

FLOAT32_EPS = 1.1920929e-07
"""What an empty bin's density becomes in `paper` mode."""


EDGE_TOLERANCE = 1e-9
"""How near to the edge of a bin a coefficient is on it, in bin widths.

Coefficients that lie on an edge in exact arithmetic (all-zero filters where the range is symmetric about them) are off
by rounding, which depends on the order of the filters. All of them count in the bin above, at either end of the range
in the outermost bin. Rounding moves coefficients by 1e-13 of a bin; nothing but a tie comes this near.
"""


def bin_edges(low: float, high: float, bins: int = BINS) -> np.ndarray:
    """Edges (bins + 1,) of the uniform bins over [low, high], as numpy.histogram makes them.

    A range without width becomes [low − ½, high + ½], as there.
    """
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def edge_slack(edges: np.ndarray) -> float:
    """Return EDGE_TOLERANCE in the unit of the edges (bins + 1,)."""
    return EDGE_TOLERANCE * float(edges[-1] - edges[0]) / (len(edges) - 1)


def paper_probabilities(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (…, 70) → probabilities: density, zeros replaced by float32's epsilon, renormalised (P1's code)."""
    width = np.diff(edges)
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    density = counts / total / width
    density = np.where(density == 0, FLOAT32_EPS, density)
    probabilities: np.ndarray = density / density.sum(axis=-1, keepdims=True)
    return probabilities


def prior(whole: np.ndarray) -> np.ndarray:
    """π = (C + ½)/(N + 35) of the whole snapshot's counts (9, 70)."""
    found: np.ndarray = (whole + PSEUDO_FILTERS / BINS) / (whole.sum(axis=-1, keepdims=True) + PSEUDO_FILTERS)
    return found


def sound_probabilities(counts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Counts (…, 9, 70) shrunk toward the whole snapshot's (9, 70): (c + α·π)/(n + α)."""
    probabilities: np.ndarray = counts + PSEUDO_FILTERS * prior(whole)
    # In place: of all layers of the published data this is 108 MB.
    probabilities /= counts.sum(axis=-1, keepdims=True) + PSEUDO_FILTERS
    return probabilities
