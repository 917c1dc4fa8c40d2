"""The eigendecomposition of a covariance: equal to the full-rank SVD of the centred filters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from filterdb.numerics.moments import Moments

SIGN_TIE = 1e-9
"""Entries of a component this close in magnitude (relative) count as equal; the lowest index decides the sign."""

EIGENVALUE_TIE = 1e-9
"""Eigenvalues this close, relative to the largest, count as equal: rounding alone would choose their eigenvectors."""


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
    """Return the PCA of moments: eigenvectors of the covariance; σᵢ = √(λᵢ (n−1)). Raises numpy.linalg.LinAlgError.

    Tiny negative eigenvalues are clipped to 0. Without variance (n < 2, or equal filters) all ratios are 0. Equal
    eigenvalues: see `fix_ties`. Sign: the entry of largest magnitude of a component is positive (as in today's
    scikit-learn), ties to the lowest index.
    """
    values, vectors = np.linalg.eigh(states.covariance)
    values = np.maximum(values[..., ::-1], 0.0)
    components = fix_signs(fix_ties(values, np.swapaxes(vectors, -1, -2)[..., ::-1, :]))
    total = values.sum(axis=-1, keepdims=True)
    ratio = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    singular = np.sqrt(values * np.maximum(states.count - 1, 0)[..., None])
    return Basis(states.mean, components, values, ratio, singular)


def fix_ties(values: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return the components with those of equal eigenvalues replaced by a basis that does not depend on rounding.

    Their space is known, its basis is not. Of the space's projection matrix, the column with the largest diagonal entry
    (ties to the lowest index) becomes the first component; the next ones follow from what is left (pivoted Cholesky).

    Parameters
    ----------
    values
        Eigenvalues (…, 9), falling.
    components
        Eigenvectors (…, 9, 9), one in each row.
    """
    tied = values[..., :-1] - values[..., 1:] <= EIGENVALUE_TIE * values[..., :1]
    affected = tied.any(axis=-1)
    if not affected.any():
        return components
    old = components[affected]
    space = np.concatenate([np.zeros((len(old), 1), np.int64), np.cumsum(~tied[affected], axis=-1)], axis=-1)
    new = old.copy()
    rows = np.arange(len(old))
    rest = np.zeros_like(old)
    for i in range(old.shape[-1]):
        together = space == space[:, i : i + 1]
        begins = np.full(len(old), True) if i == 0 else space[:, i] != space[:, i - 1]
        whole = np.einsum("nj,nja,njb->nab", together, old, old)
        rest = np.where(begins[:, None, None], whole, rest)
        diagonal = np.diagonal(rest, axis1=-2, axis2=-1)
        pivot = (diagonal >= diagonal.max(axis=-1, keepdims=True) * (1 - EIGENVALUE_TIE)).argmax(axis=-1)
        row = rest[rows, pivot] / np.sqrt(diagonal[rows, pivot])[:, None]
        rest = rest - row[:, :, None] * row[:, None, :]
        new[:, i] = np.where(together.sum(axis=-1, keepdims=True) > 1, row, old[:, i])
    result = components.copy()
    result[affected] = new
    return result


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


def covariance_angle(a: Basis, b: Basis) -> float:
    """Return the angle between two covariances, in radians, arccos of tr(AB) / (‖A‖‖B‖), whatever their scale.

    Unlike principal angles it counts a rotation by what it moves: within equal eigenvalues nothing. It counts changed
    ratios as well. Source: the correlation matrix distance of Herdin et al. 2005, as an angle.
    """
    one, other = (basis.components.T @ (basis.explained_variance_ratio[:, None] * basis.components) for basis in (a, b))
    norms = np.linalg.norm(one), np.linalg.norm(other)
    if not all(norms):
        return 0.0 if norms[0] == norms[1] else np.pi / 2
    # The chord keeps the digits of small angles.
    return 2 * float(np.arcsin(min(np.linalg.norm(one / norms[0] - other / norms[1]) / 2, 1.0)))
