"""Say of the layers of a check how many weights their filters have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.schema import MAX_WEIGHTS, parse_shape

Ints = npt.NDArray[np.int64]


def weights_of(kernels: npt.NDArray[Any]) -> Ints:
    """Return the number of weights of a filter, given names of kernel shapes (layers,); 0 for an empty name.

    A layer that could not be read has an empty name.
    """
    names, index = np.unique(kernels.astype(object), return_inverse=True)
    return np.array([math.prod(parse_shape(name)) if name else 0 for name in names.tolist()], np.int64)[index]


def are_stored(weights: Ints) -> npt.NDArray[np.bool_]:
    """Return which filters of so many weights are measured in full, (layers,): neither 1×1 nor very large ones."""
    stored: npt.NDArray[np.bool_] = (weights >= 2) & (weights <= MAX_WEIGHTS)
    return stored
