"""Compute the energy of filters by frequency from their moments: by DCT term, and beyond what a stride keeps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments
from filterdb.schema import KERNEL, Kernel


@cache
def dct_terms(kernel: Kernel = KERNEL) -> NDArray[np.float64]:
    """Return the orthonormal two-dimensional DCT-II terms of a×b filters, (a·b, a·b): one flattened term in each row.

    Row b·u + v has the term with vertical frequency u and horizontal frequency v.
    """
    vertical, horizontal = (_cosines(side) for side in kernel)
    return np.asarray(np.kron(vertical, horizontal), np.float64)


def _cosines(side: int) -> NDArray[np.float64]:
    index = np.arange(side)
    terms: NDArray[np.float64] = np.cos(np.pi * index[:, None] * (2 * index + 1) / (2 * side))
    terms *= np.sqrt(2 / side)
    terms[0] /= np.sqrt(2)
    return terms


DCT_TERMS = dct_terms()
"""The terms of 3×3 filters."""


def second_moments(states: Moments) -> NDArray[np.float64]:
    """Return the mean of f·fᵀ over the filters, Σ + μμᵀ with Σ = m2 / n, (…, weights, weights); 0 without filters."""
    count = np.maximum(states.count, 1)[..., None, None]
    mean = np.where((states.count > 0)[..., None], states.mean, 0.0)
    second: NDArray[np.float64] = states.m2 / count + mean[..., :, None] * mean[..., None, :]
    return second


def dct_energies(states: Moments, kernel: Kernel = KERNEL) -> NDArray[np.float64]:
    """Return the mean squared coefficient of each DCT term, dᵀ(Σ + μμᵀ)d, (…, a·b)."""
    terms = dct_terms(kernel)
    count = np.maximum(states.count, 1)[..., None]
    mean = np.where((states.count > 0)[..., None], states.mean, 0.0)
    # Two squares are added instead of expanding Σ + μμᵀ, which loses digits where the mean is large.
    spread = np.einsum("ti,...ij,tj->...t", terms, states.m2, terms) / count
    energies: NDArray[np.float64] = np.maximum(spread, 0.0) + (mean @ terms.T) ** 2
    return energies


def kept_energies(
    states: Moments, strides: Sequence[int], dilations: Sequence[int], kernel: Kernel = KERNEL
) -> NDArray[np.float64]:
    """Return the mean energy of the filters at frequencies that sampling with `strides` keeps, (…,).

    A stride s keeps |ω| ≤ π/s. By Parseval's theorem the energy of a filter there is fᵀBf with
    B = B_vertical ⊗ B_horizontal, B[i, j] = sin(πd(i−j)/s) / (πd(i−j)), d the dilation, and 1/s on the diagonal.
    """
    vertical, horizontal = (
        np.sinc(dilation * np.subtract.outer(np.arange(side), np.arange(side)) / stride) / stride
        for side, stride, dilation in zip(kernel, strides, dilations, strict=True)
    )
    energies: NDArray[np.float64] = np.einsum("ij,...ij->...", np.kron(vertical, horizontal), second_moments(states))
    return np.maximum(energies, 0.0)
