"""The randomness threshold fitted anew: P1's experiment, and the same for other initialisations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.numerics.quality import P1, Sigmoid
from filterdb.numerics.quality import randomness_threshold as threshold_of
from filterdb.numerics.threshold import INITS, fit, smallest_entropy
from filterdb.version import __version__

SIZES = {"normal": 65_536, "kaiming": 65_536, "uniform": 4_096, "orthogonal": 1_024}
"""Filters of the largest layer that is drawn: powers of two from 2 on, evenly over the axis of the fit.

Normal layers of any size take no time; the others take that of their weights, and where they end the curve is flat.
"""

DRAWS = 1_000
"""Layers of each size."""

LARGEST = 2**22
"""A single layer of this many filters is 300 MB."""


@formerly_positional("sizes", "draws", "repeats", "seed")
def randomness_threshold(
    init: str = "normal",
    *,
    sizes: Sequence[int] | None = None,
    draws: int = DRAWS,
    repeats: int = 5,
    seed: int = 0,
) -> xr.Dataset:
    """The smallest variance entropy of `draws` random layers of each size, and the sigmoid fitted to it.

    Dims: repeat, size, constant. Variables, float64: smallest (repeat, size), the entropies; fitted (repeat,
    constant), each repetition's span, rate, centre and offset of T_H(n) = span/(1 + exp(−rate(log₂ n − centre))) +
    offset; value (constant), the fit to the mean of the repetitions; scatter (constant), the standard deviation of
    `fitted` over them (NaN for one); paper (constant), P1's; threshold and paper_threshold (size). `init`: "normal",
    "uniform", "kaiming" (the same as normal: scale does not matter) or "orthogonal". `sizes`: filters of a layer, by
    default the powers of two up to SIZES. The same `seed` gives the same numbers. No database is involved;
    `degeneration` takes the result as its threshold. Source: P1 eq. 8.

    Raises UsageError for an unknown `init`, and for sizes that cannot be fitted.
    """
    if init not in INITS:
        raise UsageError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
    if sizes is None:
        sizes = [2**i for i in range(1, SIZES[init].bit_length())]
    listed = sorted(set(sizes))
    if len(listed) < 4 or not 2 <= listed[0] <= listed[-1] <= LARGEST:
        got = ", ".join(map(str, sizes))
        raise UsageError(f"sizes: expected at least four different ones of 2 to {LARGEST:,} filters, got {got}")
    if draws < 1 or repeats < 1:
        raise UsageError(f"draws, repeats: expected at least 1 of each, got {draws} and {repeats}")
    # A stream for each size of each repetition: what one draws does not depend on the others.
    streams = [np.random.default_rng([seed, repeat, size]) for repeat in range(repeats) for size in listed]
    pairs = zip(streams, listed * repeats, strict=True)
    smallest = np.array([smallest_entropy(init, size, draws, rng) for rng, size in pairs]).reshape(repeats, -1)
    fitted = np.array([fit(listed, entropies) for entropies in smallest])
    found = fit(listed, smallest.mean(axis=0))
    return xr.Dataset(
        {
            "smallest": (("repeat", "size"), smallest, {"long_name": f"smallest H of {draws} layers"}),
            "fitted": (("repeat", "constant"), fitted),
            "value": ("constant", np.array(found)),
            "scatter": ("constant", fitted.std(axis=0, ddof=1) if repeats > 1 else np.full(4, np.nan)),
            "paper": ("constant", np.array(P1)),
            "threshold": ("size", threshold_of(np.array(listed), found)),
            "paper_threshold": ("size", threshold_of(np.array(listed))),
        },
        coords={"size": listed, "constant": list(Sigmoid._fields), "repeat": np.arange(repeats)},
        attrs={
            "init": init,
            "draws": draws,
            "seed": seed,
            "filterdb_version": __version__,
            "formula": "P1 eq. 8, least squares over sizes",
        },
    )


def sigmoid(result: xr.Dataset) -> Sigmoid:
    """The fitted constants of a result."""
    return Sigmoid(*result["value"].values.tolist())
