"""Fit the randomness threshold: P1's experiment, and the same for other initialisations."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from filterdb.analysis.returning import returns_result
from filterdb.arguments import formerly_positional
from filterdb.choices import THRESHOLD_DRAWS as DEFAULT_DRAWS
from filterdb.choices import Init as Init  # noqa: PLC0414 - also imported from here
from filterdb.errors import UsageError
from filterdb.numerics.quality import Sigmoid, paper_threshold
from filterdb.numerics.quality import randomness_threshold as threshold_of
from filterdb.numerics.threshold import INITS, fit, shift, smallest_entropy
from filterdb.schema import KERNEL, Kernel, as_kernel, kernel_name
from filterdb.version import __version__
from filterdb.wording import counted

SIZES = {"normal": 65_536, "kaiming": 65_536, "uniform": 4_096, "orthogonal": 1_024}
"""3×3 filters of the largest layer drawn by default. Sizes are the powers of two, evenly spaced on the axis of the fit.

Drawing a normal layer takes the same time at any size. The others take time in proportion to their weights, so they end
where the curve is flat. For larger kernels, whose curves lie further to the right, all sizes are multiplied by a power
of two: about K/9 for K weights.
"""

LARGEST_BY_WEIGHT = {"uniform": 2**13, "orthogonal": 2**12}
"""Filters of the largest layer drawn by default of kernels of any shape, where drawing takes time by the weight."""

MAX_FILTERS = 2**22
"""Largest size of a layer: 300 MB."""


@formerly_positional("sizes", "draws", "repeats", "seed")
@returns_result
def randomness_threshold(
    init: Init = "normal",
    *,
    sizes: Sequence[int] | None = None,
    draws: int = DEFAULT_DRAWS,
    repeats: int = 5,
    seed: int = 0,
    kernel: Kernel | str = KERNEL,
    threads: int = 1,
) -> xr.Dataset:
    """Fit the randomness threshold to the smallest variance entropy of random layers of each size.

    Needs no database. `degeneration` accepts the result as its threshold.

    Parameters
    ----------
    init : {"normal", "uniform", "kaiming", "orthogonal"}
        How layers are drawn. Kaiming equals normal, because the scale does not matter. Default: "normal".
    sizes : list of int, optional
        Filters of a layer, at least four sizes. Default: powers of two, up to 65,536 for normal layers, 4,096 for
        uniform and 1,024 for orthogonal ones; larger ones for larger kernels.
    draws : int
        Layers drawn of each size. Default: 1,000.
    repeats : int
        Repetitions of the experiment. Default: 5.
    seed : int
        Seed of the random numbers; the same seed returns the same result. Default: 0.
    kernel : tuple of int or str
        Shape of the filters, such as (5, 5) or "5x5". Only the number of their weights matters. Default: (3, 3).
    threads : int
        Threads that draw layers; the result does not depend on their number. Default: 1.

    Returns
    -------
    xarray.Dataset
        With dims repeat, size, constant (span, rate, centre, offset), float64:

        - smallest (repeat, size): the smallest entropy of the layers drawn.
        - fitted (repeat, constant): the constants fitted to each repetition.
        - value (constant): the constants fitted to the mean of the repetitions.
        - scatter (constant): the standard deviation of `fitted` over repetitions; NaN for one repetition.
        - paper (constant): P1's constants; NaN for filters of other than nine weights, for which P1 has none.
        - threshold and paper_threshold (size): T_H with `value` and with `paper`.

    Raises
    ------
    UsageError
        For an unknown `init` or kernel, for sizes that cannot be fitted, or without draws or repetitions.

    Notes
    -----
    T_H(n) = span / (1 + exp(−rate (log₂ n − centre))) + offset. Source: P1 eq. 8.

    Examples
    --------
    >>> result = fdb.randomness_threshold(sizes=[16, 64, 256, 1024], draws=200, repeats=2)
    >>> result["threshold"].values.round(1)
    array([0.7, 0.9, 0.9, 1. ])
    >>> result["paper_threshold"].values.round(1)
    array([0.7, 0.9, 0.9, 0.9])
    """
    if init not in INITS:
        raise UsageError(f"init: expected one of {', '.join(INITS)}, got {init!r}")
    kernel = as_kernel(kernel)
    weights = kernel[0] * kernel[1]
    if sizes is None:
        sizes = default_sizes(init, weights)
    listed = sorted(set(sizes))
    if len(listed) < 4 or not 2 <= listed[0] <= listed[-1] <= MAX_FILTERS:
        got = ", ".join(map(str, sizes))
        raise UsageError(f"sizes: expected at least four different ones of 2 to {MAX_FILTERS:,} filters, got {got}")
    if min(draws, repeats, threads) < 1:
        raise UsageError(f"draws, repeats, threads: expected at least 1 of each, got {draws}, {repeats} and {threads}")
    # A random stream for each size of each repetition, so that no result depends on the other sizes.
    streams = [np.random.default_rng([seed, repeat, size]) for repeat in range(repeats) for size in listed]
    with ThreadPoolExecutor(threads) as pool:
        drawn = pool.map(lambda rng, size: smallest_entropy(init, size, draws, rng, weights), streams, listed * repeats)
        smallest = np.array([*drawn]).reshape(repeats, -1)
    fitted = np.array([fit(listed, entropies, weights) for entropies in smallest])
    constants = fit(listed, smallest.mean(axis=0), weights)
    paper = paper_threshold(weights)
    return xr.Dataset(
        {
            "smallest": (("repeat", "size"), smallest, {"long_name": f"smallest H of {counted(draws, 'layer')}"}),
            "fitted": (("repeat", "constant"), fitted),
            "value": ("constant", np.array(constants)),
            "scatter": ("constant", fitted.std(axis=0, ddof=1) if repeats > 1 else np.full(4, np.nan)),
            "paper": ("constant", np.array(paper)),
            "threshold": ("size", threshold_of(np.array(listed), constants)),
            "paper_threshold": ("size", threshold_of(np.array(listed), paper)),
        },
        coords={"size": listed, "constant": list(Sigmoid._fields), "repeat": np.arange(repeats)},
        attrs={
            "init": init,
            "kernel": kernel_name(kernel),
            "draws": draws,
            "seed": seed,
            "filterdb_version": __version__,
            "formula": "P1 eq. 8, least squares over sizes",
        },
    )


def default_sizes(init: Init, weights: int) -> list[int]:
    """Return the sizes drawn by default of filters of K weights."""
    factor = max(round(shift(weights)), 0)
    largest = min(SIZES[init] << factor, max(SIZES[init], LARGEST_BY_WEIGHT.get(init, MAX_FILTERS)))
    return [2**i for i in range(1 + factor, largest.bit_length())]


def sigmoid(result: xr.Dataset) -> Sigmoid:
    """Return the fitted constants of a result."""
    return Sigmoid(*result["value"].values.tolist())
