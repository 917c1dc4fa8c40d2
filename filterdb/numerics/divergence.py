"""Compute divergences between groups, one block of rows and columns at a time, so that memory stays bounded.

The input is probabilities (groups, K, 70) and the weights â (K,) of the components. The output is a Block, a function
that returns any block of the symmetric matrix (groups, groups). `fill` assembles the whole matrix, with a diagonal of
exactly 0 and negative rounding errors clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Block = Callable[[slice, slice], Array]
"""Rows and columns → that block of the matrix, (rows, columns)."""

BLOCK = 2_048
"""Rows and columns of a block: about 100 MB, including temporary arrays."""

_ROWS = 256
"""Rows of a matrix that `largest_pairs` looks at at a time."""


def kl(p: Array, weights: Array) -> Block:
    """Return the block of Σᵢ âᵢ (KL(Pᵢ‖Qᵢ) + KL(Qᵢ‖Pᵢ)), natural logarithm, no ½ (P1 eq. 5 and 6).

    With C = (aP)(log P)ᵀ it is d_i + d_j − C_ij − C_ji: matrix products replace a double loop.
    """

    def parts(groups: slice) -> tuple[Array, Array, Array]:
        weighted = (p[groups] * weights[:, None]).reshape(len(p[groups]), -1)
        log_p = np.log(p[groups]).reshape(len(weighted), -1)
        return weighted, log_p, np.einsum("gx,gx->g", weighted, log_p)

    def block(rows: slice, columns: slice) -> Array:
        a, log_a, own_a = parts(rows)
        b, log_b, own_b = (a, log_a, own_a) if rows == columns else parts(columns)
        return own_a[:, None] + own_b[None, :] - a @ log_b.T - log_a @ b.T

    return block


def symmetric_kl(p: Array, q: Array) -> Array:
    """Return KL(P‖Q) + KL(Q‖P) of each pair of positive distributions (…, bins) → (…).

    It is summed term by term, so that equal distributions have exactly 0.
    """
    divergences: Array = ((p - q) * np.log(p / q)).sum(axis=-1)
    return divergences


def jensen_shannon(p: Array, q: Array) -> Array:
    """Return the Jensen–Shannon divergence of each pair of positive distributions (…, bins) → (…)."""
    middle = (p + q) / 2
    divergences: Array = ((p * np.log(p / middle)).sum(axis=-1) + (q * np.log(q / middle)).sum(axis=-1)) / 2
    return divergences


def of_roots(p: Array, q: Array) -> Array:
    """Return the Hellinger distance of each pair of square roots of distributions (…, bins) → (…)."""
    distances: Array = np.sqrt(((p - q) ** 2).sum(axis=-1) / 2)
    return distances


def of_sums(p: Array, q: Array) -> Array:
    """Return Σ|ΔCDF| of each pair of cumulative distributions (…, bins) → (…)."""
    distances: Array = np.abs(p - q).sum(axis=-1)
    return distances


def frechet(mean: Array, covariance: Array) -> Block:
    """Return the block of squared Fréchet distances of Gaussians: means (groups, K), covariances (groups, K, K).

    The distance is |m₁−m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½), unweighted (Dowson and Landau 1982).
    """
    roots = root(covariance)
    trace = np.trace(covariance, axis1=-2, axis2=-1)

    def block(rows: slice, columns: slice) -> Array:
        distances = np.empty((len(mean[rows]), len(mean[columns])))
        for i, (m, r, t) in enumerate(zip(mean[rows], roots[rows], trace[rows], strict=True)):
            # tr((C₁^½ C₂ C₁^½)^½) is the sum of the singular values of C₁^½ C₂^½, which loses no digits to a square.
            cross = np.linalg.svd(r @ roots[columns], compute_uv=False).sum(axis=-1)
            distances[i] = ((m - mean[columns]) ** 2).sum(axis=-1) + t + trace[columns] - 2 * cross
        return distances

    return block


def root(covariance: Array) -> Array:
    """Return the symmetric square root of covariances (…, K, K); tiny negative eigenvalues are clipped to 0."""
    values, vectors = np.linalg.eigh(covariance)
    roots: Array = (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return roots


def by_rows(p: Array, weights: Array, row: Callable[[Array, Array], Array]) -> Block:
    """Return the block of a divergence Σᵢ âᵢ row(Pᵢ, Qᵢ) of pairs of groups.

    It is computed one row at a time, so that temporary arrays have only columns × K × 70 elements.

    Parameters
    ----------
    p : ndarray (groups, components, bins) of float64
        What `row` compares: probabilities, or an array computed from them.
    weights : ndarray (components,) of float64
        The weights â.
    row : callable
        Maps two arrays (…, bins) to their divergences (…).
    """

    def block(rows: slice, columns: slice) -> Array:
        return np.stack([row(p[columns], group[None]) @ weights for group in p[rows]])

    return block


def fill(matrix: Any, groups: int, block: Block, size: int = BLOCK) -> Array:
    """Write the whole matrix to an array, or anything that accepts slices, and return its row means (groups,).

    Each block above the diagonal is computed once and mirrored below it, so the matrix is symmetric to the last bit.
    """
    total = np.zeros(groups)
    for i in range(0, groups, size):
        rows = slice(i, min(i + size, groups))
        for j in range(i, groups, size):
            columns = slice(j, min(j + size, groups))
            values = np.maximum(block(rows, columns), 0.0)
            if i == j:
                values = (values + values.T) / 2
                np.fill_diagonal(values, 0.0)
            else:
                matrix[columns, rows] = values.T
                total[columns] += values.sum(axis=0)
            matrix[rows, columns] = values
            total[rows] += values.sum(axis=1)
    return total / groups


def whole(groups: int, block: Block) -> Array:
    """Return the whole matrix in memory, (groups, groups)."""
    matrix = np.empty((groups, groups))
    fill(matrix, groups, block)
    return matrix


def upper(matrix: Array) -> Array:
    """Return the values above the diagonal of a matrix (groups, groups), row by row, (pairs,)."""
    return np.concatenate([row[i + 1 :] for i, row in enumerate(matrix)])


def reorder(matrix: Array, order: NDArray[np.int64]) -> None:
    """Put rows and columns of a matrix (groups, groups) into an order, in place."""
    for row in matrix:
        row[:] = row[order]
    is_moved = np.zeros(len(order), bool)
    for first in range(len(order)):
        held, place = matrix[first].copy(), first
        while not is_moved[place]:
            is_moved[place] = True
            source = int(order[place])
            matrix[place] = held if source == first else matrix[source]
            place = source


def largest_pairs(matrix: Array, number: int) -> list[tuple[int, int]]:
    """Return rows and columns of the largest values above the diagonal, the largest first, equal ones row by row."""
    groups = len(matrix)
    values, places = [np.empty(0)], [np.empty(0, np.int64)]
    for start in range(0, groups, _ROWS):
        rows = np.where(np.isnan(matrix[start : start + _ROWS]), -np.inf, matrix[start : start + _ROWS])
        is_upper = np.arange(groups) > start + np.arange(len(rows))[:, None]
        of_block = rows[is_upper]
        least = np.partition(of_block, -number)[-number] if len(of_block) > number else -np.inf
        chosen = np.flatnonzero(is_upper & (rows >= least))
        values.append(rows.reshape(-1)[chosen])
        places.append(chosen + start * groups)
    order = np.argsort(-np.concatenate(values), kind="stable")[:number]
    return [divmod(place, groups) for place in np.concatenate(places)[order].tolist()]
