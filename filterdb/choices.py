"""The values that options of commands may have, apart from the code behind them, which takes long to import."""

from __future__ import annotations

from typing import Literal, get_args

ModeName = Literal["sound", "paper"]
MODE_NAMES: tuple[ModeName, ...] = get_args(ModeName)
"""The names of `numerics.modes.MODES`."""

MetricName = Literal["kl", "psi", "js", "hellinger", "wasserstein", "frechet"]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)
"""The names of `analysis.drift_metrics.METRICS`."""

Init = Literal["normal", "uniform", "kaiming", "orthogonal"]
"""How random layers are drawn."""

INIT_NAMES: tuple[Init, ...] = get_args(Init)
"""The names of `numerics.threshold.INITS`."""

Normalisation = Literal["scale", "ax+b"]
"""How filters are made comparable before codes are fitted to them."""

NORMALISATION_NAMES: tuple[Normalisation, ...] = get_args(Normalisation)

CODES = 256
"""Default number of codes."""

MOST_CODES = 4_096
"""Largest number of codes."""

MOST_PASSES = 100
"""Largest number of Lloyd's steps on all filters."""

BINS = 70
"""Bins of a histogram of coefficients."""

MOST_BINS = 1_024
"""Largest number of bins on either side of a joint histogram."""

DRAWS = 1_000
"""Default number of permutations of a pair, and of draws of models."""

MOST_DRAWS = 100_000
"""More draws would only take memory: the quantile is accurate to a tenth of a percent with fewer."""

ENOUGH_PERMUTATIONS = 20
"""With fewer permutations there is no 95 % quantile."""

THRESHOLD_DRAWS = 1_000
"""Random layers drawn of each size to fit the threshold of randomness."""

COMPONENTS = 9
"""Components that tables and figures show: all of 3×3 filters, the leading ones of larger filters."""

GRACE = 3600.0
"""Seconds after its last write during which an object is never collected."""
