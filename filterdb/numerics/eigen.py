"""The eigendecomposition of a covariance: equal to the full-rank SVD of the centred filters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from filterdb.numerics.moments import Moments

SIGN_TIE = 1e-9
"""Entries of a component this close in magnitude (relative) count as equal; the lowest index decides the sign."""


class Basis(NamedTuple):
    """PCA of states of any leading shape. Names are scikit-learn's.

    components (…, 9, 9): one in each row, by falling variance; explained_variance, explained_variance_ratio and
    singular_values (…, 9).
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray
    singular_values: np.ndarray


def decompose(states: Moments) -> Basis:
    """PCA from moments: eigenvectors of the covariance; σᵢ = √(λᵢ (n−1)). Raises numpy.linalg.LinAlgError.

    Tiny negative eigenvalues are clipped to 0. Without variance (n < 2, or equal filters) all ratios are 0. Sign: the
    entry of largest magnitude of a component is positive (as in today's scikit-learn), ties to the lowest index.
    """
    values, vectors = np.linalg.eigh(states.covariance)
    values = np.maximum(values[..., ::-1], 0.0)
    components = fix_signs(np.swapaxes(vectors, -1, -2)[..., ::-1, :])
    total = values.sum(axis=-1, keepdims=True)
    ratio = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    singular = np.sqrt(values * np.maximum(states.count - 1, 0)[..., None])
    return Basis(states.mean, components, values, ratio, singular)


def fix_signs(components: np.ndarray) -> np.ndarray:
    """Rows (…, 9) with the sign that makes the entry of largest magnitude positive; ties to the lowest index."""
    size = np.abs(components)
    close = size >= size.max(axis=-1, keepdims=True) * (1 - SIGN_TIE)
    leader = np.take_along_axis(components, close.argmax(axis=-1)[..., None], axis=-1)
    signed: np.ndarray = np.where(leader < 0, -components, components)
    return signed


def principal_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest principal angle between the leading k-dimensional subspaces, k = 1 … 8, in radians (…, 8).

    `a`, `b` (…, 9, 9): orthonormal rows. Björck and Golub 1973; the sine keeps the digits of small angles.
    """
    angles = []
    for k in range(1, a.shape[-2]):
        mine, other = a[..., :k, :], b[..., :k, :]
        both = other @ np.swapaxes(mine, -1, -2)
        sine = np.linalg.svd(other - both @ mine, compute_uv=False)[..., 0]
        cosine = np.linalg.svd(both, compute_uv=False)[..., -1]
        angles.append(np.arctan2(sine, cosine))
    return np.stack(angles, axis=-1)
