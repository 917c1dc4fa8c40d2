"""Bivariate densities: how two coefficients are distributed together, by group (P1 fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import Key, group, provenance, with_scale
from filterdb.errors import UsageError
from filterdb.numerics.histogram import BINS, bin_edges
from filterdb.numerics.modes import AnyMode, as_mode
from filterdb.reduce.basis import basis_attributes, projection
from filterdb.reduce.joint_densities import Pair, densities
from filterdb.schema import WEIGHTS
from filterdb.store.database import AnyDatabase, as_database

MOST_BINS = 1_024


def density(
    db: AnyDatabase,
    by: Key | None = None,
    components: Pair = (0, 1),
    bins: int = BINS,
    *,
    mode: AnyMode = "sound",
    scaled: bool = True,
) -> xr.Dataset:
    """Joint histogram of two coefficients, for each group of the view's layers.

    Dims: group, bin (of the first component), other_bin (of the second), edge. Variables: counts (group, bin,
    other_bin) int64, numpy.histogram's bins; density = counts / (filters · bin area), float64, whose integral is 1
    less what lies outside; count and outside (group) int64: filters, and those of which either coefficient lies
    outside the range. Coordinates: bin_edges (edge). Basis and range are the snapshot's, so that with 70 bins the sums
    along either side are the histograms of `drift`. A pass over the filters, once per grouping and pair, then kept.

    Raises UsageError for components or bins that do not exist, and for more counts than fit into memory.
    """
    db, mode = as_database(db), as_mode(mode)
    check_pairs([components])
    if not 1 <= bins <= MOST_BINS:
        raise UsageError(f"bins: expected 1 to {MOST_BINS:,}, got {bins}")
    db, found = projection(db, mode, scaled=scaled)
    db = with_scale(db, scaled=scaled)
    grouping = group(db, by, mode)
    labels = grouping.labels
    (counts,), (outside,) = densities(db, found, grouping.index, len(labels), [components], bins)
    number = grouping.sums(db.layers["row_size"].values)
    edges = bin_edges(found.low, found.high, bins)
    area = np.diff(edges)[:, None] * np.diff(edges)
    return xr.Dataset(
        {
            "count": ("group", number, {"long_name": "filters"}),
            "outside": ("group", outside, {"long_name": "filters with a coefficient outside the range"}),
            "counts": (("group", "bin", "other_bin"), counts),
            "density": (("group", "bin", "other_bin"), counts / number[:, None, None] / area),
        },
        coords={
            "group": labels,
            **{key: ("group", part) for key, part in grouping.parts.items()},
            "bin_edges": ("edge", edges),
        },
        attrs=provenance(
            db,
            by=grouping.by,
            mode=mode.name,
            scaled=int(scaled),
            components=list(components),
            range=edges[[0, -1]].tolist(),
            **basis_attributes(db, found),
            formula="counts of (c_i, c_j) over uniform bins (P1 fig. 4)",
        ),
    )


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Raise UsageError where a pair is not two different components."""
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= one < WEIGHTS for one in pair):
            got = ", ".join(map(str, pair))
            raise UsageError(f"components: expected two different ones of 0 … {WEIGHTS - 1}, got {got}")
