"""Assign normalised depths to deciles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DECILE_EDGES = np.arange(0, 1.1, 0.1)
DECILES = ["[0.0, 0.1]", *(f"({low / 10:.1f}, {(low + 1) / 10:.1f}]" for low in range(1, 10))]
"""The labels of `pandas.cut(x, numpy.arange(0, 1.1, 0.1), include_lowest=True)`, which P1 uses."""


def depth_decile(conv_depth_norm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the decile 0 … 9 of normalised depths in [0, 1], as pandas.cut does; NaN counts as 0."""
    depth = np.nan_to_num(np.asarray(conv_depth_norm, np.float64))
    decile: NDArray[np.int64] = np.clip(np.searchsorted(DECILE_EDGES, depth) - 1, 0, len(DECILES) - 1)
    return decile.astype(np.int64)
