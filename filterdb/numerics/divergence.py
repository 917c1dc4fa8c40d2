"""Divergences between groups: a block of rows and columns at a time, so that memory does not grow with the matrix.

Input: probabilities (groups, 9, 70) and the weights â (9,) of the components. Output: a Block, which gives any part of
the symmetric (groups, groups) matrix; `fill` puts a whole one together, the diagonal exactly 0, negative rounding
clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Block = Callable[[slice, slice], Array]
"""Rows and columns → that part of the matrix, (rows, columns)."""

BLOCK = 2_048
"""Rows and columns of a block: about 100 MB with what it takes to compute it."""


def kl(p: Array, weights: Array) -> Block:
    """Σᵢ âᵢ (KL(Pᵢ‖Qᵢ) + KL(Qᵢ‖Pᵢ)), natural logarithm, no ½ (P1 eq. 5 and 6).

    d_i + d_j − C_ij − C_ji with C = (aP)(log P)ᵀ: matrix products instead of a double loop.
    """

    def parts(of: slice) -> tuple[Array, Array, Array]:
        weighted = (p[of] * weights[:, None]).reshape(len(p[of]), -1)
        log_p = np.log(p[of]).reshape(len(weighted), -1)
        return weighted, log_p, np.einsum("gx,gx->g", weighted, log_p)

    def block(rows: slice, columns: slice) -> Array:
        a, log_a, own_a = parts(rows)
        b, log_b, own_b = (a, log_a, own_a) if rows == columns else parts(columns)
        return own_a[:, None] + own_b[None, :] - a @ log_b.T - log_a @ b.T

    return block


def symmetric_kl(p: Array, q: Array) -> Array:
    """KL(P‖Q) + KL(Q‖P) of each pair of positive distributions (…, bins) → (…); term by term, so equal ones give 0."""
    found: Array = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def jensen_shannon(p: Array, q: Array) -> Array:
    """Of each pair of distributions (…, bins) → (…)."""
    middle = (p + q) / 2
    found: Array = ((p * np.log(p / middle)).sum(axis=-1) + (q * np.log(q / middle)).sum(axis=-1)) / 2
    return found


def of_roots(p: Array, q: Array) -> Array:
    """Hellinger distance of each pair of roots of distributions (…, bins) → (…)."""
    found: Array = np.sqrt(((p - q) ** 2).sum(axis=-1) / 2)
    return found


def of_sums(p: Array, q: Array) -> Array:
    """Σ|ΔCDF| of each pair of cumulative distributions (…, bins) → (…)."""
    found: Array = np.abs(p - q).sum(axis=-1)
    return found


def frechet(mean: Array, covariance: Array) -> Block:
    """Squared Fréchet distance of 9-D Gaussians, means (groups, 9), covariances (groups, 9, 9); unweighted.

    |m₁−m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½) (Dowson and Landau 1982).
    """
    roots = root(covariance)
    trace = np.trace(covariance, axis1=-2, axis2=-1)

    def block(rows: slice, columns: slice) -> Array:
        found = np.empty((len(mean[rows]), len(mean[columns])))
        for i, (m, r, t) in enumerate(zip(mean[rows], roots[rows], trace[rows], strict=True)):
            # tr((C₁^½ C₂ C₁^½)^½) as the sum of singular values of C₁^½ C₂^½: no digits lost to a square.
            cross = np.linalg.svd(r @ roots[columns], compute_uv=False).sum(axis=-1)
            found[i] = ((m - mean[columns]) ** 2).sum(axis=-1) + t + trace[columns] - 2 * cross
        return found

    return block


def root(covariance: Array) -> Array:
    """The symmetric square root of covariances (…, 9, 9); tiny negative eigenvalues are clipped to 0."""
    values, vectors = np.linalg.eigh(covariance)
    found: Array = (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


def by_rows(p: Array, weights: Array, row: Callable[[Array, Array], Array]) -> Block:
    """Return the block of a divergence of pairs of groups, Σᵢ âᵢ row(Pᵢ, Qᵢ).

    It is computed a row at a time: what is elementwise takes columns × 9 × 70.

    Parameters
    ----------
    p : ndarray (groups, components, bins) of float64
        What `row` takes of each group: probabilities, or something made of them.
    weights : ndarray (components,) of float64
        The weights â.
    row : callable
        Two arrays (…, bins) → their divergences (…).
    """

    def block(rows: slice, columns: slice) -> Array:
        return np.stack([row(p[columns], one[None]) @ weights for one in p[rows]])

    return block


def fill(matrix: Any, groups: int, block: Block, size: int = BLOCK) -> Array:
    """Put the whole matrix (an array, or anything that takes slices) together; gives its row means (groups,).

    Each block above the diagonal is computed once and stands below it too: symmetric to the last bit.
    """
    total = np.zeros(groups)
    for i in range(0, groups, size):
        rows = slice(i, min(i + size, groups))
        for j in range(i, groups, size):
            columns = slice(j, min(j + size, groups))
            found = np.maximum(block(rows, columns), 0.0)
            if i == j:
                found = (found + found.T) / 2
                np.fill_diagonal(found, 0.0)
            else:
                matrix[columns, rows] = found.T
                total[columns] += found.sum(axis=0)
            matrix[rows, columns] = found
            total[rows] += found.sum(axis=1)
    return total / groups


def whole(groups: int, block: Block) -> Array:
    """The matrix in memory, (groups, groups)."""
    matrix = np.empty((groups, groups))
    fill(matrix, groups, block)
    return matrix
