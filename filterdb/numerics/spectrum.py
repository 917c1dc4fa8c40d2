"""Compute the energy of filters by frequency from their moments: by DCT term, and beyond what a stride keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments
from filterdb.schema import KERNEL

SIDE = KERNEL[0]


def _dct_terms() -> NDArray[np.float64]:
    """Return the orthonormal two-dimensional DCT-II terms of 3×3 filters, (9, 9): one flattened term in each row."""
    index = np.arange(SIDE)
    terms = np.sqrt(2 / SIDE) * np.cos(np.pi * index[:, None] * (2 * index + 1) / (2 * SIDE))
    terms[0] /= np.sqrt(2)
    return np.kron(terms, terms)


DCT_TERMS = _dct_terms()
"""Row 3u + v has the term with vertical frequency u and horizontal frequency v."""


def second_moments(states: Moments) -> NDArray[np.float64]:
    """Return the mean of f·fᵀ over the filters, Σ + μμᵀ with Σ = m2 / n, (…, 9, 9); zero without filters."""
    count = np.maximum(states.count, 1)[..., None, None]
    mean = np.where((states.count > 0)[..., None], states.mean, 0.0)
    second: NDArray[np.float64] = states.m2 / count + mean[..., :, None] * mean[..., None, :]
    return second


def dct_energies(states: Moments) -> NDArray[np.float64]:
    """Return the mean squared coefficient of each DCT term, dᵀ(Σ + μμᵀ)d, (…, 9)."""
    count = np.maximum(states.count, 1)[..., None]
    mean = np.where((states.count > 0)[..., None], states.mean, 0.0)
    # Two squares are added instead of expanding Σ + μμᵀ, which loses digits where the mean is large.
    spread = np.einsum("ti,...ij,tj->...t", DCT_TERMS, states.m2, DCT_TERMS) / count
    energies: NDArray[np.float64] = np.maximum(spread, 0.0) + (mean @ DCT_TERMS.T) ** 2
    return energies


def kept_energies(states: Moments, strides: Sequence[int], dilations: Sequence[int]) -> NDArray[np.float64]:
    """Return the mean energy of the filters at frequencies that sampling with `strides` keeps, (…,).

    A stride s keeps |ω| ≤ π/s. By Parseval's theorem the energy of a filter there is fᵀBf with
    B = B_vertical ⊗ B_horizontal, B[i, j] = sin(πd(i−j)/s) / (πd(i−j)), d the dilation, and 1/s on the diagonal.
    """
    index = np.arange(SIDE)
    distance = index[:, None] - index
    vertical, horizontal = (
        np.sinc(dilation * distance / stride) / stride for stride, dilation in zip(strides, dilations, strict=True)
    )
    energies: NDArray[np.float64] = np.einsum("ij,...ij->...", np.kron(vertical, horizontal), second_moments(states))
    return np.maximum(energies, 0.0)
