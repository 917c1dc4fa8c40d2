"""Max-scaling of filters (P1 eq. 9)."""

from __future__ import annotations

import numpy as np


def scale(filters: np.ndarray) -> np.ndarray:
    """f / max|f| per filter, in float64; an all-zero filter stays zero. (n, 9) any float → (n, 9) float64.

    Source: P1 eq. 9. By division: a reciprocal would round twice.
    """
    values = np.asarray(filters, dtype=np.float64)
    peak = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scaled: np.ndarray = values / np.where(peak > 0, peak, 1.0)
    return scaled
