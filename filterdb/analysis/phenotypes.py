"""Phenotypes of distributions of coefficients, of components and of pairs (P1 fig. 4): sun, spikes, symbols, point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import xarray as xr

from filterdb.analysis.density import check_pairs
from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.arguments import formerly_positional
from filterdb.numerics.histogram import BINS
from filterdb.numerics.modes import AnyMode
from filterdb.numerics.shape import Bounds, Shape, shape
from filterdb.reduce.joint_densities import Pair, densities
from filterdb.schema import WEIGHTS
from filterdb.store.database import AnyDatabase

PAIRS: tuple[Pair, ...] = ((0, 1), (2, 3), (4, 5), (6, 7))
"""Pairs of components that are looked at where none are named."""

MEASURES = {
    "spread": "standard deviation in bins, of a pair that of the wider side",
    "central": "share of the filters at the centre",
    "centre_excess": "share at the centre beyond what a normal distribution of the others has there",
    "hot": "share of the filters in local hot spots",
    "modes": "modes of the smoothed histogram, of a pair the most of either side",
    "departure": "Kolmogorov distance from the normal distribution, less what chance gives",
    "offset": "distance of the mean from the centre in standard deviations",
}


@formerly_positional("pairs")
def phenotypes(
    db: AnyDatabase,
    by: Key | None = None,
    *,
    pairs: Sequence[Pair] = PAIRS,
    mode: AnyMode = "sound",
    scaled: bool = True,
    bounds: Bounds | None = None,
) -> xr.Dataset:
    """Find the phenotype of each group of the view's layers: of every component, and of pairs of them.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        What layers are grouped by; None: one group of all.
    pairs : list of (int, int)
        Pairs of different components; none: no pass over the filters.
    mode : {"sound", "paper"}
        Which basis and range: as in `drift`.
    scaled : bool
        False: raw filters, without layers whose scale is unknown.
    bounds : Bounds, optional
        Where phenotypes begin, in place of the rule's own bounds.

    Returns
    -------
    xarray.Dataset
        With dims group, component, pair:

        - phenotype (group, component) and pair_phenotype (group, pair): "sun", "spikes", "symbols", "point", or "few"
          for groups under 1,000 filters.
        - What the rule looked at, as MEASURES describes it: NAME (group, component) and pair_NAME (group, pair).
        - count (group): filters.
        - Coordinates pair ("0,1"), its components first and second (pair), and centre (component), the coefficients
          of an all-zero filter. The bounds are in the attributes.

    Raises
    ------
    UsageError
        For pairs that do not exist or too many groups.

    Notes
    -----
    The rule is that of numerics.shape. Components need the histograms only; pairs need a pass over the filters, all in
    one reading, once per grouping.
    """
    check_pairs(pairs)
    bounds = bounds or Bounds()
    question = Question.in_basis(db, by, mode, scaled=scaled)
    edges = question.edges
    joint = np.zeros((0, question.groups, BINS, BINS), np.int64)
    if pairs:
        joint, _ = densities(question.db, question.projection, question.grouping.index, question.groups, pairs, BINS)
    mean, components = question.projection.axes.arrays
    zero = (-components @ mean).tolist()
    of_components = [
        [shape(counts, edges, [centre]) for counts, centre in zip(group, zero, strict=True)]
        for group in question.counts
    ]
    of_pairs = [
        [shape(counts, edges, [zero[k] for k in pair]) for counts, pair in zip(group, pairs, strict=True)]
        for group in np.moveaxis(joint, 0, 1)
    ]
    return xr.Dataset(
        {
            "count": ("group", question.filters, {"long_name": "filters"}),
            **_variables("", "component", of_components, bounds),
            **_variables("pair_", "pair", of_pairs, bounds),
        },
        coords={
            **question.coords(),
            "component": np.arange(WEIGHTS),
            "centre": ("component", np.array(zero)),
            "pair": np.array([f"{first},{second}" for first, second in pairs], dtype=object),
            "first": ("pair", np.array([first for first, _ in pairs], np.int64)),
            "second": ("pair", np.array([second for _, second in pairs], np.int64)),
        },
        attrs=question.provenance(
            bounds=json.dumps(asdict(bounds)),
            formula="our rule for P1 fig. 4: few, point, spikes, symbols, else sun",
        ),
    )


def _variables(prefix: str, dim: str, shapes: list[list[Shape]], bounds: Bounds) -> dict[str, tuple[object, ...]]:
    """The phenotypes and all that the rule looked at, (group, dim) each."""
    dims = ("group", dim)
    names = np.array([[one.phenotype(bounds) for one in row] for row in shapes], dtype=object)
    size = (len(shapes), len(shapes[0]))
    found: dict[str, tuple[object, ...]] = {f"{prefix}phenotype": (dims, names.reshape(size))}
    for name, doc in MEASURES.items():
        values = [[getattr(one, name) for one in row] for row in shapes]
        dtype = np.int64 if name == "modes" else np.float64
        found[f"{prefix}{name}"] = (dims, np.array(values, dtype).reshape(size), {"long_name": doc})
    return found
