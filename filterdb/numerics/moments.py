"""Count, mean and centred second moments of filters: a state that merges.

States merge by Chan's pairwise update (Chan, Golub, LeVeque 1979). It is centred, so no digits are lost where the mean
is large compared with the spread. The state of any group of layers is a merge of the states of its layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POOLED = 8_192
"""States that `pool` merges at a time, so that temporary arrays take few megabytes."""


@dataclass(frozen=True, slots=True)
class Moments:
    """States of any leading shape: count (…) int64, mean (…, K), m2 = Σ(f−mean)(f−mean)ᵀ (…, K, K) float64."""

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    def pick(self, index: Any) -> Moments:
        """Return the states at `index` of the leading axes."""
        return Moments(self.count[index], self.mean[index], self.m2[index])

    @property
    def covariance(self) -> NDArray[np.float64]:
        """m2 / (n − 1), (…, K, K); zero where n < 2."""
        freedom = np.maximum(self.count - 1, 1)
        covariance: NDArray[np.float64] = self.m2 / freedom[..., None, None]
        return covariance


def merge(a: Moments, b: Moments) -> Moments:
    """Return the states of a's and b's filters together, element by element of the leading shape."""
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    delta = b.mean - a.mean
    # The mean of an empty state is meaningless and must not have any effect.
    mean = np.where((a.count == 0)[..., None], b.mean, a.mean + delta * share[..., None])
    weight = (a.count * share)[..., None, None]
    m2 = a.m2 + b.m2 + weight * delta[..., :, None] * delta[..., None, :]
    return Moments(count, mean, m2)


def pool(states: Moments, group: NDArray[np.int64], groups: int) -> Moments:
    """Merge states (n,) by group index (n,) into states (groups,), in the order of the states.

    This is the same centred update for many states at once: m2 = Σ m2ᵢ + Σ nᵢ (meanᵢ − mean)(meanᵢ − mean)ᵀ.
    """
    parts = (states.m2[start : start + _POOLED] for start in range(0, len(group), _POOLED))
    return pool_parts(states.count, states.mean, parts, group, groups)


def pool_parts(
    counts: NDArray[np.int64],
    means: NDArray[np.float64],
    m2_parts: Iterable[NDArray[np.float64]],
    group: NDArray[np.int64],
    groups: int,
) -> Moments:
    """Merge states as `pool` does, with the same bits, from counts (n,), means (n, K), and m2 in parts (some, K, K)."""
    count = np.zeros(groups, np.int64)
    np.add.at(count, group, counts)
    size = np.maximum(count, 1)
    # Subtract the mean of each group's first state, so that equal means stay exactly equal.
    origin = np.zeros((groups, means.shape[-1]))
    filled = np.flatnonzero(counts > 0)
    first_groups, first = np.unique(group[filled], return_index=True)
    origin[first_groups] = means[filled[first]]
    away = np.where((counts > 0)[:, None], means - origin[group], 0.0)
    total = np.zeros_like(origin)
    np.add.at(total, group, counts[:, None] * away)
    shift = total / size[:, None]
    rest = np.where((counts > 0)[:, None], away - shift[group], 0.0)
    m2 = np.zeros((groups, *means.shape[-1:] * 2))
    start = 0
    for part in m2_parts:
        of_part = slice(start, start + len(part))
        beside = counts[of_part, None, None] * rest[of_part, :, None] * rest[of_part, None, :]
        np.add.at(m2, group[of_part], part + beside)
        start = of_part.stop
    return Moments(count, origin + shift, m2)
