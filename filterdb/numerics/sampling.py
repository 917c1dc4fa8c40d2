"""How much two samples of one distribution drift by the number of their filters alone: the sampling floor (method §4).

Both groups' histograms are multinomial draws, of their own sizes, from the pair's pooled histogram. For the symmetric
KL nothing has to be drawn: D is a sum over bins of (P−Q)(log P − log Q), whose mean needs, of one bin at a time, the
covariance of P and log P and the mean of log P. They follow from the Poisson law, times 1 − p for a multinomial. The
95 % quantile is that of a gamma distribution with D's mean and variance, where each bin's share counts as the square
of a normal variable (Satterthwaite 1946); the quantile is Wilson and Hilferty's (1931).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.histogram import PSEUDO_FILTERS, prior

Array = NDArray[np.float64]

_SUMMED = 64.0
"""Expected filters in a bin up to which the Poisson law is summed; beyond, a series is as good."""

_STEP = 0.02
"""Steps of the tables in log μ: their nearest entry is within 1 %, the sum over bins far nearer."""

_LOG_MU = np.arange(np.log(1e-4), np.log(1e11), _STEP)

_Z95 = 1.6448536269514722


class Floor(NamedTuple):
    """Mean and 95 % quantile of the drift that noise makes, of one shape."""

    mean: Array
    q95: Array


class SamplingFloor:
    """The sampling floor of the symmetric KL in one snapshot and basis."""

    def __init__(self, whole: np.ndarray, weights: Array) -> None:
        """`whole` (9, 70): counts of the snapshot, which π is made of; `weights` (9,)."""
        self._pseudo = PSEUDO_FILTERS * prior(whole).ravel()
        self._weights = np.repeat(weights, whole.shape[-1])
        # A column for each bin, whose pseudo-filters are always the same.
        covariance, log = _fluctuation(np.exp(_LOG_MU), self._pseudo)
        self._covariance, self._log = covariance.astype(np.float32), log.astype(np.float32)

    def between(self, one: np.ndarray, others: np.ndarray) -> Floor:
        """Between one group (9, 70) and each of others (groups, 9, 70), integer counts → (groups,) each."""
        together = np.concatenate([one[None], others])
        return self._rows(together, 0, self._used(together))

    def matrix(self, counts: np.ndarray) -> Floor:
        """Between all pairs of groups (groups, 9, 70) → (groups, groups) each, NaN on the diagonal."""
        groups = len(counts)
        mean, q95 = np.full((2, groups, groups), np.nan)
        used = self._used(counts)
        for i in range(groups - 1):
            found = self._rows(counts[i:], 0, used)
            mean[i, i + 1 :] = mean[i + 1 :, i] = found.mean
            q95[i, i + 1 :] = q95[i + 1 :, i] = found.q95
        return Floor(mean, q95)

    def _used(self, counts: np.ndarray) -> np.ndarray:
        return np.flatnonzero(counts.reshape(len(counts), -1).any(axis=0))

    def _rows(self, counts: np.ndarray, one: int, used: np.ndarray) -> Floor:
        """Between group `one` and those after it."""
        flat = counts.reshape(len(counts), -1)[:, used].astype(np.float32)
        number = np.maximum(counts[:, 0].sum(axis=-1), 1).astype(np.float64)
        n, m = number[one], number[one + 1 :]
        p = (flat[one] + flat[one + 1 :]) / (n + m)[:, None].astype(np.float32)
        weight = self._weights[used].astype(np.float32)
        spread, mean, log = self._shrunk(np.full((len(m), 1), n), p, used)
        spread_q, mean_q, log_q = self._shrunk(m[:, None], p, used)
        random = weight * (spread + spread_q)
        # Shrinking pulls a small group more than a large one: that part is there without any chance.
        fixed = weight * (mean - mean_q) * (np.log(mean / mean_q) + log - log_q)
        unused = np.ones(len(self._pseudo), bool)
        unused[used] = False
        n, m = n + PSEUDO_FILTERS, m + PSEUDO_FILTERS
        empty = (self._weights * self._pseudo)[unused].sum() * (1 / n - 1 / m) * np.log(m / n)
        total = random.sum(axis=1, dtype=np.float64) + fixed.sum(axis=1, dtype=np.float64) + empty
        variance = (2 * random**2 + 4 * random * np.maximum(fixed, 0)).sum(axis=1, dtype=np.float64)
        return Floor(total, _gamma_quantile(total, variance))

    def _shrunk(self, n: Array, p: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of P = (c + απ)/(n + α), c of n filters with probability p: Cov(P, log P), E P, E log P − log E P."""
        size, shrunk = n.astype(np.float32), (n + PSEUDO_FILTERS).astype(np.float32)
        mu = size * p
        held = np.maximum(mu, np.float32(np.exp(_LOG_MU[0])))
        entry = ((np.log(held) - np.float32(_LOG_MU[0])) / np.float32(_STEP) + np.float32(0.5)).astype(np.int32)
        place = entry * np.int32(len(self._pseudo)) + used.astype(np.int32)
        pseudo = self._pseudo[used].astype(np.float32)
        mean = mu + pseudo
        # Below the table everything is proportional to μ; in a bin without filters there is no chance at all.
        spread = self._covariance.ravel().take(place) * mu / (held + pseudo) * (1 - p)
        log = self._log.ravel().take(place) * (mu / held) * (1 - p)
        return spread / shrunk, mean / shrunk, log


def _fluctuation(mu: Array, s: Array) -> tuple[Array, Array]:
    """For c Poisson of mean μ (rows) and s (columns): Cov(c, log(c+s))·(μ+s)/μ, and E log(c+s) − log(μ+s)."""
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
    """The 95 % quantile of a gamma distribution (Wilson and Hilferty)."""
    ninth = variance / (9 * np.maximum(mean, np.finfo(np.float64).tiny) ** 2)
    found: Array = mean * (1 - ninth + _Z95 * np.sqrt(ninth)) ** 3
    return found
