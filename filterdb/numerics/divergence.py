"""Divergences between groups, all pairs at once.

Input: probabilities (groups, 9, 70) and the weights â (9,) of the components. Output: (groups, groups), symmetric,
the diagonal exactly 0, negative rounding clipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kl(p: Array, weights: Array) -> Array:
    """Σᵢ âᵢ (KL(Pᵢ‖Qᵢ) + KL(Qᵢ‖Pᵢ)), natural logarithm, no ½ (P1 eq. 5 and 6).

    d_i + d_j − C_ij − C_ji with C = (aP)(log P)ᵀ: one matrix product instead of a double loop.
    """
    groups = len(p)
    log_p = np.log(p).reshape(groups, -1)
    weighted = (p * weights[:, None]).reshape(groups, -1)
    cross = weighted @ log_p.T
    own = np.einsum("gx,gx->g", weighted, log_p)
    return _clean(own[:, None] + own[None, :] - cross - cross.T)


def js(p: Array, weights: Array) -> Array:
    """Jensen–Shannon divergence in nats, weighted over components."""

    def row(mixture: Array, one: Array) -> Array:
        middle = (mixture + one) / 2
        left = (mixture * np.log(mixture / middle)).sum(axis=-1)
        right = (one * np.log(one / middle)).sum(axis=-1)
        return (left + right) / 2

    return _pairwise(p, weights, row)


def hellinger(p: Array, weights: Array) -> Array:
    """√(½ Σ(√P − √Q)²), weighted over components."""
    root = np.sqrt(p)
    return _pairwise(root, weights, lambda a, b: np.sqrt(((a - b) ** 2).sum(axis=-1) / 2))


def wasserstein(p: Array, weights: Array, width: float) -> Array:
    """1-Wasserstein distance on the bins: bin width · Σ|ΔCDF|, weighted over components."""
    cumulative = np.cumsum(p, axis=-1)
    return _pairwise(cumulative, weights, lambda a, b: width * np.abs(a - b).sum(axis=-1))


def frechet(mean: Array, covariance: Array) -> Array:
    """Squared Fréchet distance of 9-D Gaussians, means (groups, 9), covariances (groups, 9, 9); unweighted.

    |m₁−m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½) (Dowson and Landau 1982).
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))[:, None, :]) @ np.swapaxes(vectors, -1, -2)
    trace = np.trace(covariance, axis1=-2, axis2=-1)
    result = np.zeros((len(mean), len(mean)))
    for i in range(len(mean)):
        # tr((C₁^½ C₂ C₁^½)^½) as the sum of singular values of C₁^½ C₂^½: no digits lost to a square.
        cross = np.linalg.svd(root[i] @ root, compute_uv=False).sum(axis=-1)
        result[i] = ((mean[i] - mean) ** 2).sum(axis=-1) + trace[i] + trace - 2 * cross
    return _clean(result)


def _pairwise(p: Array, weights: Array, row: Callable[[Array, Array], Array]) -> Array:
    """One row of the matrix at a time: memory stays at groups × 9 × 70."""
    return _clean(np.stack([row(p, one[None]) @ weights for one in p]))


def _clean(matrix: Array) -> Array:
    matrix = np.maximum((matrix + matrix.T) / 2, 0.0)
    np.fill_diagonal(matrix, 0.0)
    return matrix
