"""Test whether the weights of a 1×1 convolution can be told from isotropic noise, by its output channels.

A 1×1 filter is one number, so the test of `sphericity` has nothing to compare within it. It can compare the weights of
an output channel: the input channels are cut into runs of equal length, and each run of an output channel counts as a
filter. Initialisations draw all weights alike, so these filters are isotropic noise; training makes input channels
matter more or less, and together. Only models are judged by it (`analysis.untrained`), never single layers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.layer import filter_peaks, moments
from filterdb.numerics.sphericity import p_value, smallest_filters

LONGEST = 32
"""Most input channels in a run; with longer ones, layers of few output channels could not be tested."""


def run_length(in_channels: Any) -> Any:
    """Return the input channels in a run (int, or array of int): as many as fit equally often, at most LONGEST."""
    return in_channels // np.maximum(number_of_runs(in_channels), 1)


def number_of_runs(in_channels: Any) -> Any:
    """Return the number of runs of input channels (int, or array of int)."""
    return -(-in_channels // LONGEST)


def channel_p_value(filters: NDArray[np.float32], out_channels: int) -> float:
    """Return the p-value of the test of a 1×1 weight (n, 1) float32; NaN for other weights, and too few filters.

    NaN also for weights that are not finite or all zero. Channels left over by the runs are not tested.
    """
    if filters.shape[1] != 1 or len(filters) < 2 * out_channels:
        return math.nan
    rows = filters.reshape(out_channels, -1)
    length, runs = int(run_length(rows.shape[1])), int(number_of_runs(rows.shape[1]))
    if out_channels * runs < smallest_filters(length):  # the usual case in a file of very many layers
        return math.nan
    runs_of_channels = np.ascontiguousarray(rows[:, : length * runs].reshape(-1, length))
    if not np.isfinite(runs_of_channels).all():
        return math.nan
    return float(p_value(moments(runs_of_channels, filter_peaks(runs_of_channels))))
