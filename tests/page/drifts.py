"""Results of drift with any verdicts, for the tests of what the page says of them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.verdicts import INDISTINGUISHABLE


def drifts_of(verdicts: dict[tuple[int, int], tuple[float, str, float]], groups: int, by: str = "task") -> xr.Dataset:
    """A drift of groups a, b, …: D, verdict and p_value_max of pairs; all others drift by 0.1, like noise."""
    drift, largest = (np.full((groups, groups), value) for value in (0.1, 1.0))
    codes = np.full((groups, groups), INDISTINGUISHABLE, object)
    np.fill_diagonal(drift, 0.0)
    for (i, j), (value, code, chance) in verdicts.items():
        for pair in ((i, j), (j, i)):
            drift[pair], codes[pair], largest[pair] = value, code, chance
    square = ("group", "other")
    names = list("abcdefghijklmnop"[:groups])
    return xr.Dataset(
        {
            "drift": (square, drift),
            "verdict": (square, codes),
            "p_value_max": (square, largest),
            "judged_by": (square, np.full((groups, groups), "model", object)),
            "few": ("group", np.zeros(groups, bool)),
            "models": ("group", np.arange(2, groups + 2)),
            "units": ("group", np.minimum(np.arange(2, groups + 2), 2)),
            "model_floor_q95": (square, np.full((groups, groups), 1.5)),
            "weights": ("component", [0.5, 0.5]),
            "probabilities": (("group", "component", "bin"), np.full((groups, 2, 4), 0.25)),
        },
        coords={"group": names, "other": names},
        attrs={"by": by},
    )
