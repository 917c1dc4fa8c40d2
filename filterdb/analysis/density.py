"""Compute bivariate densities: the joint distribution of two coefficients, by group (P1 fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.arguments import formerly_positional
from filterdb.choices import MOST_BINS
from filterdb.errors import UsageError
from filterdb.numerics.histogram import BINS, bin_edges
from filterdb.numerics.modes import AnyMode
from filterdb.reduce.joint_densities import Pair, densities
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database


@formerly_positional("components", "bins")
@returns_result
def density(
    db: AnyDatabase,
    by: Key | None = None,
    *,
    components: Pair = (0, 1),
    bins: int = BINS,
    mode: AnyMode = "sound",
    scaled: bool = True,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Compute the joint histogram of two coefficients, for each group of the view's layers.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped. Default: one group of all layers.
    components : (int, int)
        Two different components, 0 to 8. Default: (0, 1).
    bins : int
        Bins on either side, 1 to 1,024. Default: 70.
    mode : {"sound", "paper"}
        The basis and range, as in `drift`. Default: "sound".
    scaled : bool
        False: raw filters, without layers whose scale is unknown. Default: True.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, bin (of the first component), other_bin (of the second), edge:

        - counts (group, bin, other_bin), int64: filters in each bin, with the bins of numpy.histogram.
        - density (group, bin, other_bin), float64: counts / (filters · bin area). Its integral is 1 less the share of
          filters outside the range.
        - count (group), int64: filters.
        - outside (group), int64: filters with a coefficient outside the range.
        - Coordinate bin_edges (edge), float64.

    Raises
    ------
    UsageError
        For components or bins that do not exist, or for more counts than fit into memory.

    Notes
    -----
    Basis and range are the snapshot's, so with 70 bins the sums along either side are the histograms of `drift`. The
    first call for a grouping and pair reads the filters once; the result is stored.

    Examples
    --------
    >>> result = fdb.density(db, "task", components=(0, 1))
    >>> result["counts"].shape, result["counts"].sum(["bin", "other_bin"]).values
    ((2, 70, 70), array([11264, 11264]))
    """
    db = as_database(db, kernel=kernel)
    check_pairs([components], db.weights)
    if not 1 <= bins <= MOST_BINS:
        raise UsageError(f"bins: expected 1 to {MOST_BINS:,}, got {bins}")
    question = Question.in_basis(db, by, mode, scaled=scaled)
    projection, number = question.projection, question.filters
    (counts,), (outside,) = densities(
        question.db, projection, question.grouping.index, question.groups, [components], bins
    )
    edges = bin_edges(projection.low, projection.high, bins)
    area = np.diff(edges)[:, None] * np.diff(edges)
    return xr.Dataset(
        {
            "count": ("group", number, {"long_name": "filters"}),
            "outside": ("group", outside, {"long_name": "filters with a coefficient outside the range"}),
            "counts": (("group", "bin", "other_bin"), counts),
            "density": (("group", "bin", "other_bin"), counts / number[:, None, None] / area),
        },
        coords={**question.coords(), "bin_edges": ("edge", edges)},
        attrs=question.provenance(
            components=list(components), formula="counts of (c_i, c_j) over uniform bins (P1 fig. 4)"
        ),
    )


def check_pairs(pairs: Sequence[Sequence[int]], weights: int) -> None:
    """Raise UsageError where a pair is not two different components of filters of K weights."""
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= component < weights for component in pair):
            got = ", ".join(map(str, pair))
            raise UsageError(f"components: expected two different ones of 0 … {weights - 1}, got {got}")
