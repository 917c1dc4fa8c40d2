"""The eigendecomposition of a covariance: equal to the full-rank SVD of the centred filters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments

SIGN_TIE = 1e-9
"""Entries of a component this close in magnitude (relative) count as equal; the lowest index decides the sign."""

EIGENVALUE_TIE = 1e-9
"""Eigenvalues this close, relative to the largest, count as equal: their eigenvectors would depend on rounding."""


class Basis(NamedTuple):
    """PCA of states of any leading shape, with scikit-learn's names.

    components (…, K, K) has one component in each row, by decreasing variance. explained_variance,
    explained_variance_ratio and singular_values have shape (…, K).
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]
    singular_values: NDArray[np.float64]


def decompose(states: Moments) -> Basis:
    """Return the PCA of moments: eigenvectors of the covariance; σᵢ = √(λᵢ (n−1)). Raises numpy.linalg.LinAlgError.

    Tiny negative eigenvalues are clipped to 0. Without variance (n < 2, or equal filters) all ratios are 0. For equal
    eigenvalues see `fix_ties`. The entry of largest magnitude of a component is positive, as in current versions of
    scikit-learn; in a tie the lowest index decides.
    """
    values, vectors = np.linalg.eigh(states.covariance)
    values = np.maximum(values[..., ::-1], 0.0)
    components = fix_signs(fix_ties(values, np.swapaxes(vectors, -1, -2)[..., ::-1, :]))
    ratio = _ratio(values)
    singular = np.sqrt(values * np.maximum(states.count - 1, 0)[..., None])
    return Basis(states.mean, components, values, ratio, singular)


def variance_ratio(states: Moments) -> NDArray[np.float64]:
    """Return `explained_variance_ratio` of `decompose`, with the same bits."""
    values, _ = np.linalg.eigh(states.covariance)
    return _ratio(np.maximum(values[..., ::-1], 0.0))


def _ratio(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each variance (…, K) in their sum, 0 where that is 0."""
    total = values.sum(axis=-1, keepdims=True)
    ratio: NDArray[np.float64] = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    return ratio


def fix_ties(values: NDArray[np.float64], components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the components with those of equal eigenvalues replaced by a basis that does not depend on rounding.

    Equal eigenvalues determine the space of their components, but not a basis of it. The first component is the column
    of the space's projection matrix with the largest diagonal entry (in a tie the lowest index); the next ones follow
    from the remainder (pivoted Cholesky decomposition).

    Parameters
    ----------
    values
        Eigenvalues (…, K), in decreasing order.
    components
        Eigenvectors (…, K, K), one in each row.
    """
    tied = values[..., :-1] - values[..., 1:] <= EIGENVALUE_TIE * values[..., :1]
    affected = tied.any(axis=-1)
    if not affected.any():
        return components
    old = components[affected]
    space = np.concatenate([np.zeros((len(old), 1), np.int64), np.cumsum(~tied[affected], axis=-1)], axis=-1)
    new = old.copy()
    rest = np.zeros_like(old)
    for i in range(old.shape[-1]):
        together = space == space[:, i : i + 1]
        rows = np.flatnonzero(together.sum(axis=-1) > 1)
        begin = rows[space[rows, i] != space[rows, i - 1]] if i else rows
        if len(begin):
            rest[begin] = np.einsum("nj,nja,njb->nab", together[begin], old[begin], old[begin])
        own = rest[rows]
        diagonal = np.diagonal(own, axis1=-2, axis2=-1)
        pivot = (diagonal >= diagonal.max(axis=-1, keepdims=True) * (1 - EIGENVALUE_TIE)).argmax(axis=-1)
        number = np.arange(len(rows))
        row = own[number, pivot] / np.sqrt(diagonal[number, pivot])[:, None]
        rest[rows] = own - row[:, :, None] * row[:, None, :]
        new[rows, i] = row
    result = components.copy()
    result[affected] = new
    return result


def fix_signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows (…, K) with the sign that makes the entry of largest magnitude positive; ties to the lowest index."""
    size = np.abs(components)
    close = size >= size.max(axis=-1, keepdims=True) * (1 - SIGN_TIE)
    leader = np.take_along_axis(components, close.argmax(axis=-1)[..., None], axis=-1)
    signed: NDArray[np.float64] = np.where(leader < 0, -components, components)
    return signed


DIMENSIONS = 16
"""Largest dimension of the subspaces between which angles are computed: more take seconds, and vary with noise."""


def principal_angles(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest principal angle between the leading k-dimensional subspaces in radians, (…, K−1).

    k is 1 … K−1, at most DIMENSIONS. `a` and `b` (…, K, K) have orthonormal rows. After Björck and Golub 1973; the sine
    is exact for small angles too.
    """
    angles = []
    for k in range(1, min(a.shape[-2], DIMENSIONS + 1)):
        first, second = a[..., :k, :], b[..., :k, :]
        cosines = second @ np.swapaxes(first, -1, -2)
        sine = np.linalg.svd(second - cosines @ first, compute_uv=False)[..., 0]
        cosine = np.linalg.svd(cosines, compute_uv=False)[..., -1]
        angles.append(np.arctan2(sine, cosine))
    return np.stack(angles, axis=-1)


def covariance_angle(a: Basis, b: Basis) -> float:
    """Return the angle between two covariances, in radians: arccos of tr(AB) / (‖A‖‖B‖). It does not depend on scale.

    Unlike principal angles it counts a rotation by the variance that it moves: nothing within equal eigenvalues. It
    also counts changes of the ratios. Source: the correlation matrix distance of Herdin et al. 2005, as an angle.
    """
    first, second = (
        basis.components.T @ (basis.explained_variance_ratio[:, None] * basis.components) for basis in (a, b)
    )
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if not all(norms):
        return 0.0 if norms[0] == norms[1] else np.pi / 2
    # From the chord, because arccos loses the digits of small angles.
    return 2 * float(np.arcsin(min(np.linalg.norm(first / norms[0] - second / norms[1]) / 2, 1.0)))
