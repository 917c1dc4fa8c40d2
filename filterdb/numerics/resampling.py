"""Drift of resampled groups, computed from states that add up: models are permuted between groups, or drawn again.

A *cell* is the filters of one model in one group. Its state is a row whose first column is the number of filters. The
state of a set of cells is the sum of their rows, so that a thousand ways to form a group are one matrix product.
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
    """A drift metric that takes sums of states."""

    states: Array
    """The states of the cells, (cells, columns) float64."""

    is_square: bool
    """Whether the metric grows with the square of a difference of distributions, as KL does, or is a distance."""

    def pairs(self, left: np.ndarray, right: np.ndarray, spare: np.ndarray | None = None) -> np.ndarray:
        """Return the drift (rows,) between the sums (rows, columns) of both sides.

        The sums may be overwritten, and so may `spare`, an array of their shape that saves memory from being allocated.
        """
        ...

    def matrices(self, sums: Array) -> Array:
        """Return the drift (draws, groups, groups) between the groups of each draw; sums: (draws, groups, columns)."""
        ...


class SymmetricKL:
    """Σᵢ âᵢ KL_sym of shrunk probabilities, on the bins in which any cell has filters.

    In all other bins p = απ/(n + α). Together they are one term, which depends on the numbers of filters alone.
    """

    is_square = True

    def __init__(self, counts: np.ndarray, whole: np.ndarray, weights: Array) -> None:
        """Take counts (cells, K, 70), the counts of the `whole` snapshot (K, 70), and weights (K,)."""
        flat = counts.reshape(len(counts), -1)
        used = flat.any(axis=0)
        number = counts.sum(axis=-1)[:, :1]
        self.states: Array = np.concatenate([number, flat[:, used]], axis=1).astype(np.float64)
        pseudo = PSEUDO_FILTERS * prior(whole).ravel()
        weight = np.repeat(weights, counts.shape[-1])
        self.pseudo, self.weights = pseudo[used], weight[used]
        self._rest = float((weight * pseudo)[~used].sum())

    def _empty(self, left: Array, right: Array) -> Array:
        """Return the term of the bins without filters, from the shrunk numbers of filters n + α of both sides."""
        term: Array = self._rest * (1 / left - 1 / right) * np.log(right / left)
        return term

    def pairs(self, left: np.ndarray, right: np.ndarray, spare: np.ndarray | None = None) -> np.ndarray:
        """Return the drift (rows,) in the precision of the sums. Single is enough: P − Q comes before the product.

        With the numbers of filters n and m of both sides, D is Σ a (nP − (n/m)·mQ) log(nP / ((n/m)·mQ)) / n, so that
        only one side is divided. The column of numbers takes part with weight 0, because NumPy needs several times as
        long for rows that are not contiguous.
        """
        n, m = left[:, :1] + PSEUDO_FILTERS, right[:, :1] + PSEUDO_FILTERS
        pseudo = np.concatenate([[PSEUDO_FILTERS], self.pseudo]).astype(left.dtype)
        weights = np.concatenate([[0.0], self.weights]).astype(left.dtype)
        left += pseudo
        right += pseudo
        right *= n / m
        ratio = np.divide(left, right, out=spare)
        np.log(ratio, out=ratio)
        left -= right
        left *= ratio
        drift: Array = left @ weights / n[:, 0] + self._empty(n[:, 0], m[:, 0])
        return np.maximum(drift, 0.0)

    def matrices(self, sums: Array) -> Array:
        """Return d_i + d_j − C_ij − C_ji with C = (aP)(log P)ᵀ, (draws, groups, groups), as divergence.kl does."""
        n = sums[..., :1] + PSEUDO_FILTERS
        p = (sums[..., 1:] + self.pseudo) / n
        log_p = np.log(p)
        p *= self.weights
        own = np.einsum("dgx,dgx->dg", p, log_p)
        cross = p @ np.swapaxes(log_p, 1, 2)
        drift: Array = own[:, :, None] + own[:, None, :] - cross - np.swapaxes(cross, 1, 2)
        drift += self._empty(n, np.swapaxes(n, 1, 2))
        return np.maximum(drift, 0.0)


class _PairwiseStatistic(ABC):
    """A statistic whose matrices are computed pair by pair."""

    @abstractmethod
    def pairs(self, left: np.ndarray, right: np.ndarray, spare: np.ndarray | None = None) -> np.ndarray:
        """Return the drift (rows,) between the sums (rows, columns) of both sides."""

    def matrices(self, sums: Array) -> Array:
        draws, groups, _ = sums.shape
        drift = np.zeros((draws, groups, groups))
        for i in range(groups):
            for j in range(i + 1, groups):
                drift[:, i, j] = drift[:, j, i] = self.pairs(sums[:, i], sums[:, j])
        return drift


class HistogramDivergence(_PairwiseStatistic):
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
        """Take counts (cells, K, 70), the counts of the `whole` snapshot (K, 70), weights (K,), and a function.

        The function takes the probabilities (…, 70) of both sides and returns the divergence (…) of each component.
        """
        self.is_square = is_square
        number = counts.sum(axis=-1)[:, :1]
        self.states: Array = np.concatenate([number, counts.reshape(len(counts), -1)], axis=1).astype(np.float64)
        self._shape, self._pseudo = counts.shape[1:], PSEUDO_FILTERS * prior(whole)
        self._weights, self._function = weights, function

    def _probabilities(self, sums: np.ndarray) -> Array:
        counts = sums[:, 1:].reshape(-1, *self._shape).astype(np.float64)
        probabilities: Array = (counts + self._pseudo) / (sums[:, :1, None] + PSEUDO_FILTERS)
        return probabilities

    def pairs(self, left: np.ndarray, right: np.ndarray, spare: np.ndarray | None = None) -> np.ndarray:
        drift: Array = self._function(self._probabilities(left), self._probabilities(right)) @ self._weights
        return drift


class FrechetDistance(_PairwiseStatistic):
    """The squared Fréchet distance of the filters' Gaussians, from number, sum and sum of products of filters."""

    is_square = True

    def __init__(self, cells: Moments) -> None:
        """Take the moments of the cells. Sums are about their common mean, so that no digits are lost."""
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

    def pairs(self, left: np.ndarray, right: np.ndarray, spare: np.ndarray | None = None) -> np.ndarray:
        (mean, covariance), (mean_q, covariance_q) = self._gaussians(left), self._gaussians(right)
        cross = np.linalg.svd(divergence.root(covariance) @ divergence.root(covariance_q), compute_uv=False)
        trace = np.trace(covariance + covariance_q, axis1=-2, axis2=-1)
        distance: Array = ((mean - mean_q) ** 2).sum(axis=-1) + trace - 2 * cross.sum(axis=-1)
        return np.maximum(distance, 0.0)
