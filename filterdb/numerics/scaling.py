"""Max-scaling of filters (P1 eq. 9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def scale(filters: np.ndarray) -> NDArray[np.float64]:
    """Return f / max|f| for each filter (n, K) of any float dtype, (n, K) float64; an all-zero filter stays zero.

    Source: P1 eq. 9. Divides, because multiplication with a reciprocal would round twice.
    """
    values = np.asarray(filters, dtype=np.float64)
    peak = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scaled: NDArray[np.float64] = values / np.where(peak > 0, peak, 1.0)
    return scaled
