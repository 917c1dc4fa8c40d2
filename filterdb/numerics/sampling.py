"""The sampling floor: the drift of two samples of one distribution that their numbers of filters explain.

Both groups' histograms are taken as multinomial draws, each of its own size, from the pair's pooled histogram. The
symmetric KL needs no random draws: D is a sum over bins of (P−Q)(log P − log Q), and its mean follows from the
covariance of P and log P and from the mean of log P in each bin. Both are computed for a Poisson distribution and
multiplied by 1 − p for a multinomial. The 95 % quantile is that of a gamma distribution with D's mean and variance,
where the term of each bin counts as the square of a normal variable (Satterthwaite 1946); the quantile is approximated
after Wilson and Hilferty (1931).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.histogram import PSEUDO_FILTERS, prior

Array = NDArray[np.float64]
Singles = NDArray[np.float32]
Indices = NDArray[np.int64]

_SUMMED = 64.0
"""Expected filters in a bin below which the Poisson distribution is summed; above it, a series is as exact."""

_STEP = 0.02
"""Step of the tables in log μ. The nearest entry is within 1 %; the errors of a sum over bins largely cancel."""

_LOG_MU = np.arange(np.log(1e-4), np.log(1e11), _STEP)

_Z95 = 1.6448536269514722

Z_RELATED = -3.090232306167813
"""0.1 % quantile of the normal distribution; groups that drift by less than this quantile of the floor are related."""


class Floor(NamedTuple):
    """Mean and 95 % quantile of the drift that noise causes, two arrays of one shape."""

    mean: Array
    q95: Array

    def quantile(self, z: float) -> Array:
        """Return another quantile of the gamma distribution that has this mean and 95 % quantile.

        `z` is the quantile of the standard normal distribution. In a floor of independent draws few pairs drift less
        than a low quantile; filters that were copied, or moved a little, do.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.cbrt(self.q95 / self.mean)
        # Wilson and Hilferty with t = √ninth: 1 − t² + t·z₉₅ is the cube root of q95 / mean.
        t = (_Z95 - np.sqrt(np.maximum(_Z95**2 - 4 * (root - 1), 0))) / 2
        quantile: Array = self.mean * np.maximum(1 - t**2 + t * z, 0) ** 3
        return quantile


class SamplingFloor:
    """The sampling floor of the symmetric KL in one snapshot and basis."""

    def __init__(self, whole: np.ndarray, weights: Array) -> None:
        """Prepare the tables for the counts of the `whole` snapshot (K, 70), which give π, and `weights` (K,)."""
        self._pseudo = PSEUDO_FILTERS * prior(whole).ravel()
        self._weights = np.repeat(weights, whole.shape[-1])
        # One column for each bin: a bin's number of pseudo-filters never changes.
        covariance, log = _fluctuation(np.exp(_LOG_MU), self._pseudo)
        self._covariance, self._log = covariance.astype(np.float32), log.astype(np.float32)

    def between(self, group: np.ndarray, others: np.ndarray) -> Floor:
        """Return the floors (groups,) between a group (K, 70) and each of others (groups, K, 70), integer counts."""
        counts = np.concatenate([group[None], others])
        return self._rows(counts, self._used(counts))

    def matrix(self, counts: np.ndarray) -> Floor:
        """Return the floors (groups, groups) of all pairs of groups (groups, K, 70), with NaN on the diagonal."""
        groups = len(counts)
        mean, q95 = np.full((2, groups, groups), np.nan)
        used = self._used(counts)
        for i in range(groups - 1):
            row = self._rows(counts[i:], used)
            mean[i, i + 1 :] = mean[i + 1 :, i] = row.mean
            q95[i, i + 1 :] = q95[i + 1 :, i] = row.q95
        return Floor(mean, q95)

    def _used(self, counts: np.ndarray) -> Indices:
        """Return the flat indices of the bins in which any group has filters."""
        return np.flatnonzero(counts.reshape(len(counts), -1).any(axis=0))

    def _rows(self, counts: np.ndarray, used: Indices) -> Floor:
        """Return the floors between the first group and each of the others."""
        flat = counts.reshape(len(counts), -1)[:, used].astype(np.float32)
        number = np.maximum(counts[:, 0].sum(axis=-1), 1).astype(np.float64)
        n, m = number[0], number[1:]
        p = (flat[0] + flat[1:]) / (n + m)[:, None].astype(np.float32)
        weight = self._weights[used].astype(np.float32)
        spread, mean, log = self._shrunk(np.full((len(m), 1), n), p, used)
        spread_q, mean_q, log_q = self._shrunk(m[:, None], p, used)
        random = weight * (spread + spread_q)
        # Shrinkage pulls a small group more than a large one: this part of the drift is not random.
        fixed = weight * (mean - mean_q) * (np.log(mean / mean_q) + log - log_q)
        unused = np.ones(len(self._pseudo), bool)
        unused[used] = False
        n, m = n + PSEUDO_FILTERS, m + PSEUDO_FILTERS
        empty = (self._weights * self._pseudo)[unused].sum() * (1 / n - 1 / m) * np.log(m / n)
        total = random.sum(axis=1, dtype=np.float64) + fixed.sum(axis=1, dtype=np.float64) + empty
        variance = (2 * random**2 + 4 * random * np.maximum(fixed, 0)).sum(axis=1, dtype=np.float64)
        return Floor(total, _gamma_quantile(total, variance))

    def _shrunk(self, n: Array, p: Singles, used: Indices) -> tuple[Singles, Singles, Singles]:
        """Return Cov(P, log P), E P and E log P − log E P.

        P = (c + απ)/(n + α) is the shrunk probability of a bin with c of n filters, each with probability p.
        """
        size, shrunk = n.astype(np.float32), (n + PSEUDO_FILTERS).astype(np.float32)
        mu = size * p
        held = np.maximum(mu, np.float32(np.exp(_LOG_MU[0])))
        row = ((np.log(held) - np.float32(_LOG_MU[0])) / np.float32(_STEP) + np.float32(0.5)).astype(np.int32)
        entry = row * np.int32(len(self._pseudo)) + used.astype(np.int32)
        pseudo = self._pseudo[used].astype(np.float32)
        mean = mu + pseudo
        # Below the table both are proportional to μ; a bin without filters has no randomness.
        spread = self._covariance.ravel().take(entry) * mu / (held + pseudo) * (1 - p)
        log = self._log.ravel().take(entry) * (mu / held) * (1 - p)
        return spread / shrunk, mean / shrunk, log


def _fluctuation(mu: Array, s: Array) -> tuple[Array, Array]:
    """Return Cov(c, log(c+s))·(μ+s)/μ and E log(c+s) − log(μ+s), c being Poisson with mean μ (rows); s: columns."""
    few = mu < _SUMMED
    c = np.arange(4 * _SUMMED)
    mu = mu[:, None]
    m = mu + s
    third, fourth = mu / m**3, (3 * mu**2 + mu) / m**4
    covariance = 1 - 1 / (2 * m) + (3 * mu + 1) / (3 * m**2) - (10 * mu + 1) / (4 * m**3)
    log = -mu / (2 * m**2) + third / 3 - fourth / 4
    logs = np.log(c[:, None] + s)
    law = np.exp(c * np.log(mu[few]) - mu[few] - np.concatenate([[0.0], np.cumsum(np.log(c[1:]))]))
    covariance[few] = (law * (c - mu[few])) @ logs * m[few] / mu[few]
    log[few] = law @ logs - np.log(m[few])
    return covariance, log


def _gamma_quantile(mean: Array, variance: Array) -> Array:
    """Return the 95 % quantile of a gamma distribution (Wilson and Hilferty); 0 where the mean is 0."""
    square = np.square(mean)
    ninth = np.divide(variance, 9 * square, out=np.zeros_like(square), where=square > 0)
    quantile: Array = mean * (1 - ninth + _Z95 * np.sqrt(ninth)) ** 3
    return quantile
