"""Assign normalised depths to deciles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DECILE_EDGES = np.arange(0, 1.1, 0.1)
DECILES = ["[0.0, 0.1]", *(f"({low / 10:.1f}, {(low + 1) / 10:.1f}]" for low in range(1, 10))]
"""The labels of `pandas.cut(x, numpy.arange(0, 1.1, 0.1), include_lowest=True)`, which P1 uses."""


NO_DEPTH = -1
"""The `conv_depth` and `graph_depth` of a layer whose file has no graph and no order."""

NO_DECILE = -1
"""The decile of an unknown depth."""


def depth_decile(conv_depth_norm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the decile 0 … 9 of normalised depths in [0, 1], as pandas.cut does; NO_DECILE for NaN."""
    depth = np.asarray(conv_depth_norm, np.float64)
    decile = np.clip(np.searchsorted(DECILE_EDGES, np.nan_to_num(depth)) - 1, 0, len(DECILES) - 1)
    return np.where(np.isnan(depth), NO_DECILE, decile).astype(np.int64)
