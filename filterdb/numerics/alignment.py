"""Sum over aligned layers what pairs of models have in common: the compiled loop behind `analysis.kinship`.

A pair of models needs some numbers for each place at which both have a layer. NumPy would pass over the matrix of all
pairs two dozen times for each place; one loop over the pairs computes the same bits in one pass.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.compilation import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

COSINE, ISOTROPIC, WEIGHT, COMPARED, SQUARES, NORMS, OTHER_NORMS = range(7)
"""The sums of a pair: weighted cosines, the part of them that one initialisation explains, weights, number of layers,
‖W − W′‖², ‖W‖² and ‖W′‖²."""

OF_COSINES, ALL = 3, 7
"""How many of these sums `add_pairs` computes: the first three, or all."""


class Side(NamedTuple):
    """Hold the layers of some models at one place, (layers,) each.

    `position` is the row or column of the layer's model, `square` and `length` are those of its sketch, `isotropic` is
    the share of its variance that an initialisation can be, and `content` is equal for layers with the same filters.
    """

    position: Ints
    square: Floats
    length: Floats
    isotropic: Floats
    content: Ints


@njit(nogil=True, error_model="numpy")
def add_pairs(sums: Floats, products: Floats, left: Side, right: Side, weight: float) -> None:
    """Add one place to the sums (3 or 7, rows, columns) of all pairs of models, in place.

    `products` (left, right) are those of the sketches; the cosine of layers with the same filters is 1. `weight` is
    that of the place in the sums of cosines.
    """
    for i in range(left.position.size):
        row = left.position[i]
        for j in range(right.position.size):
            column = right.position[j]
            cosine = 1.0
            if left.content[i] != right.content[j]:
                cosine = products[i, j] / (left.length[i] * right.length[j])
            sums[COSINE, row, column] += weight * cosine
            sums[ISOTROPIC, row, column] += weight * sqrt(left.isotropic[i] * right.isotropic[j])
            sums[WEIGHT, row, column] += weight
            if sums.shape[0] == ALL:
                sums[COMPARED, row, column] += 1
                square = left.square[i] + right.square[j] - 2 * products[i, j]
                sums[SQUARES, row, column] += 0.0 if square < 0 else square
                sums[NORMS, row, column] += left.square[i]
                sums[OTHER_NORMS, row, column] += right.square[j]


@njit(nogil=True, error_model="numpy")
def add_cosines(
    sums: Singles, cosines: Singles, common: Singles, rows: Ints, columns: Ints, weight: np.float32
) -> None:
    """Add places of one weight to the sums (2, rows, columns) of weighted cosines and of weights of pairs, in place.

    `cosines` (left, right) are the sums of those of the sketches, and `common` (left, right) the numbers of places that
    both models have. `rows` (left,) and `columns` (right,) are the places of the models in the sums.
    """
    for i in range(rows.size):
        for j in range(columns.size):
            sums[0, rows[i], columns[j]] += weight * cosines[i, j]
            sums[1, rows[i], columns[j]] += weight * common[i, j]
