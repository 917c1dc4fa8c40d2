"""Drift from sums that add: what noise of drift is computed with, where models move between groups or are drawn anew.

A *cell* is what one model has in one group. Its state is a row whose first column is its number of filters; the state
of any set of cells is the sum of their rows, so that a thousand ways to make up a group are one matrix product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics import divergence
from filterdb.numerics.histogram import PSEUDO_FILTERS, prior
from filterdb.numerics.moments import Moments

Array = NDArray[np.float64]


class Statistic(Protocol):
    """A drift of sums of states."""

    states: Array
    """Of the cells, (cells, columns) float64."""

    is_square: bool
    """Whether it grows with the square of a difference of distributions, as KL does, or as a distance."""

    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Drift of each row's two sums, (rows, columns) each → (rows,). The sums may be overwritten."""
        ...

    def matrices(self, sums: Array) -> Array:
        """Drift of all groups of each draw, (draws, groups, columns) → (draws, groups, groups)."""
        ...


class SymmetricKL:
    """Σᵢ âᵢ KL_sym of shrunk probabilities (method §4), on the bins that any cell has filters in.

    In a bin that none has, p = απ/(n + α): those bins together are one term of the numbers of filters alone.
    """

    is_square = True

    def __init__(self, counts: np.ndarray, whole: np.ndarray, weights: Array) -> None:
        """`counts` (cells, 9, 70), `whole` (9, 70) of the snapshot, `weights` (9,)."""
        flat = counts.reshape(len(counts), -1)
        used = flat.any(axis=0)
        number = counts.sum(axis=-1)[:, :1]
        self.states: Array = np.concatenate([number, flat[:, used]], axis=1).astype(np.float64)
        pseudo = PSEUDO_FILTERS * prior(whole).ravel()
        weight = np.repeat(weights, counts.shape[-1])
        self.pseudo, self.weights = pseudo[used], weight[used]
        self._rest = float((weight * pseudo)[~used].sum())

    def _empty(self, left: Array, right: Array) -> Array:
        """What the bins without filters add, from the shrunk numbers of filters n + α."""
        found: Array = self._rest * (1 / left - 1 / right) * np.log(right / left)
        return found

    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """In the precision of the sums: single is enough, since P − Q keeps its digits before the product."""
        n, m = left[:, :1] + PSEUDO_FILTERS, right[:, :1] + PSEUDO_FILTERS
        pseudo = self.pseudo.astype(left.dtype)
        p, q = left[:, 1:], right[:, 1:]
        p += pseudo
        q += pseudo
        p /= n
        q /= m
        ratio = p / q
        np.log(ratio, out=ratio)
        p -= q
        p *= ratio
        found: Array = p @ self.weights.astype(left.dtype) + self._empty(n[:, 0], m[:, 0])
        return np.maximum(found, 0.0)

    def matrices(self, sums: Array) -> Array:
        """d_i + d_j − C_ij − C_ji with C = (aP)(log P)ᵀ, as divergence.kl."""
        n = sums[..., :1] + PSEUDO_FILTERS
        p = (sums[..., 1:] + self.pseudo) / n
        log_p = np.log(p)
        p *= self.weights
        own = np.einsum("dgx,dgx->dg", p, log_p)
        cross = p @ np.swapaxes(log_p, 1, 2)
        found: Array = own[:, :, None] + own[:, None, :] - cross - np.swapaxes(cross, 1, 2)
        found += self._empty(n, np.swapaxes(n, 1, 2))
        return np.maximum(found, 0.0)


class _ByPairs(ABC):
    """The matrices of a statistic whose pairs have to be taken one by one."""

    @abstractmethod
    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Sums of states (…, columns) of both sides → drift (…)."""

    def matrices(self, sums: Array) -> Array:
        draws, groups, _ = sums.shape
        found = np.zeros((draws, groups, groups))
        for i in range(groups):
            for j in range(i + 1, groups):
                found[:, i, j] = found[:, j, i] = self.pairs(sums[:, i], sums[:, j])
        return found


class OfHistograms(_ByPairs):
    """A divergence of shrunk probabilities, weighted over components: Jensen–Shannon, Hellinger, 1-Wasserstein."""

    def __init__(
        self,
        counts: np.ndarray,
        whole: np.ndarray,
        weights: Array,
        function: Callable[[Array, Array], Array],
        *,
        is_square: bool,
    ) -> None:
        """`function`: probabilities (…, 70) of both → divergence (…) of one component."""
        self.is_square = is_square
        number = counts.sum(axis=-1)[:, :1]
        self.states: Array = np.concatenate([number, counts.reshape(len(counts), -1)], axis=1).astype(np.float64)
        self._shape, self._pseudo = counts.shape[1:], PSEUDO_FILTERS * prior(whole)
        self._weights, self._function = weights, function

    def _probabilities(self, sums: np.ndarray) -> Array:
        counts = sums[:, 1:].reshape(-1, *self._shape).astype(np.float64)
        found: Array = (counts + self._pseudo) / (sums[:, :1, None] + PSEUDO_FILTERS)
        return found

    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        found: Array = self._function(self._probabilities(left), self._probabilities(right)) @ self._weights
        return found


class OfMoments(_ByPairs):
    """The squared Fréchet distance of the filters' Gaussians, from number, sum and sum of products of filters."""

    is_square = True

    def __init__(self, cells: Moments) -> None:
        """Sums are taken about the cells' common mean, so that they keep their digits."""
        number = cells.count.astype(np.float64)[:, None]
        mean = cells.mean - (number * cells.mean).sum(axis=0) / number.sum()
        products = cells.m2 + number[:, :, None] * mean[:, :, None] * mean[:, None, :]
        self.states: Array = np.concatenate([number, number * mean, products.reshape(len(mean), -1)], axis=1)
        self._size = mean.shape[1]

    def _gaussians(self, sums: np.ndarray) -> tuple[Array, Array]:
        wide = sums.astype(np.float64)
        number = np.maximum(wide[:, :1], 1)
        mean = wide[:, 1 : 1 + self._size] / number
        products = wide[:, 1 + self._size :].reshape(-1, self._size, self._size)
        centred = products - number[:, :, None] * mean[:, :, None] * mean[:, None, :]
        return mean, centred / np.maximum(number - 1, 1)[:, :, None]

    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        (mean, covariance), (mean_q, covariance_q) = self._gaussians(left), self._gaussians(right)
        cross = np.linalg.svd(divergence.root(covariance) @ divergence.root(covariance_q), compute_uv=False)
        trace = np.trace(covariance + covariance_q, axis1=-2, axis2=-1)
        found: Array = ((mean - mean_q) ** 2).sum(axis=-1) + trace - 2 * cross.sum(axis=-1)
        return np.maximum(found, 0.0)
