"""Decide which models have hardly moved from their initialisation, by the number of layers that differ from noise.

Imports nothing slow, because a check uses it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.rules import Rules
from filterdb.numerics.modes import Mode
from filterdb.numerics.sphericity import smallest_filters
from filterdb.schema import KERNEL, Kernel

LEVEL = 0.001
"""So many rejections are allowed that an untouched model has more of them with at most this probability."""

BEYOND_DOUBT = 1e-6
"""A layer with a smaller p-value shows by itself that the model was trained."""

LEAST_LAYERS, LEAST_LARGE = 3, 2
"""A model needs this many tested layers, and this many with at least `Rules.smallest` filters, to be untrained."""

LEAST_SHARE = 0.5
"""Least share of the weights of the kernel shape among all convolution weights: others may have been trained."""

Bools = npt.NDArray[np.bool_]
Measures = Mapping[str, npt.NDArray[Any]]


def untrained(
    owner: npt.NDArray[np.int64],
    layers: Measures,
    shapes: Sequence[str],
    rules: Rules,
    mode: Mode,
    kernel: Kernel = KERNEL,
) -> Bools:
    """Return whether each model is untrained, (models,) bool.

    In `sound` mode its layers must not differ from isotropic noise, apart from as many as chance allows; in `paper`
    mode every layer of at least `rules.smallest` filters must be random and not sparse.

    Parameters
    ----------
    owner : ndarray (layers,) of int64
        Position of each layer's model in `shapes`.
    layers : mapping
        filters, p_value, sparsity and random of each layer, (layers,).
    shapes : sequence of str
        Filters by kernel shape of each model, as JSON.
    rules : Rules
        `smallest`, `random_p` and `untrained_sparsity`.
    mode : Mode
        The mode.
    kernel : tuple of int
        Shape of the layers' filters.
    """
    models = len(shapes)
    large = layers["filters"] >= max(rules.smallest, smallest_filters(kernel[0] * kernel[1]))
    if not mode.tests_randomness:
        fresh = layers["random"] & (layers["sparsity"] < rules.untrained_sparsity)
        by_entropy: Bools = (_count(owner, large & ~fresh, models) == 0) & (_count(owner, large, models) > 0)
        return by_entropy
    p = layers["p_value"]
    # A large layer without a p-value, such as a dead one, is no noise. A small one without is just not tested.
    moved = ((p < rules.random_p) & ~large) | (large & ~(p >= BEYOND_DOUBT))
    tested, rejected = _count(owner, large, models), _count(owner, large & (p < rules.random_p), models)
    enough = (tested >= LEAST_LARGE) & (_count(owner, np.isfinite(p), models) >= LEAST_LAYERS)
    listed: Bools = enough & (_count(owner, moved, models) == 0)
    stored = np.bincount(owner, layers["filters"], minlength=models)
    for i in listed.nonzero()[0].tolist():
        few = rejected[i] <= allowed_rejections(int(tested[i]), rules.random_p)
        listed[i] = few and share_of_weights(shapes[i], int(stored[i]), kernel) >= LEAST_SHARE
    return listed


def _count(owner: npt.NDArray[np.int64], which: Bools, models: int) -> npt.NDArray[np.int64]:
    """Return the number of layers of each model that `which` selects."""
    return np.bincount(owner[which], minlength=models)


@functools.cache
def allowed_rejections(tested: int, p: float) -> int:
    """Return the largest k with P(at least k of `tested` noise layers are rejected at `p`) ≥ LEVEL."""
    tail = 1.0
    for k in range(tested):
        tail -= math.comb(tested, k) * p**k * (1 - p) ** (tested - k)
        if tail < LEVEL:
            return k
    return tested


def share_of_weights(shapes: str, stored: int, kernel: Kernel = KERNEL) -> float:
    """Return the share of a kernel shape's weights among those of all convolutions; NaN if counts make no sense.

    `shapes` has the filters by kernel shape, as JSON; if this one is not among them, the model has `stored` such
    filters.
    """
    try:
        counts = {str(kernel): stored} | json.loads(shapes or "{}")
        weights = {
            shape: int(count) * math.prod(map(int, re.findall(r"\d+", shape))) for shape, count in counts.items()
        }
        return weights[str(kernel)] / sum(weights.values())
    except (ValueError, TypeError, ZeroDivisionError):  # the text comes from a file that may be hostile
        return math.nan
