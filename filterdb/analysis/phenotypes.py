"""Classify distributions of components and of pairs by phenotype: sun, spikes, symbols or point (P1 fig. 4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import xarray as xr

from filterdb.analysis.density import check_pairs
from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.arguments import formerly_positional
from filterdb.numerics.histogram import BINS
from filterdb.numerics.modes import AnyMode
from filterdb.numerics.shape import Bounds, Shape, shape
from filterdb.reduce.joint_densities import Pair, densities
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database

DEFAULT_PAIRS: tuple[Pair, ...] = ((0, 1), (2, 3), (4, 5), (6, 7))
"""Pairs of components that are classified by default."""

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
@returns_result
def phenotypes(
    db: AnyDatabase,
    by: Key | None = None,
    *,
    pairs: Sequence[Pair] = DEFAULT_PAIRS,
    mode: AnyMode = "sound",
    scaled: bool = True,
    bounds: Bounds | None = None,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Assign a phenotype to every component, and to pairs of components, in each group of the view's layers.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped. Default: one group of all layers.
    pairs : list of (int, int)
        Pairs of different components. An empty list avoids a pass over the filters. Default: those of (0, 1), (2, 3),
        (4, 5) and (6, 7) that the filters have.
    mode : {"sound", "paper"}
        The basis and range, as in `drift`. Default: "sound".
    scaled : bool
        False: raw filters, without layers whose scale is unknown. Default: True.
    bounds : Bounds, optional
        The bounds of the phenotypes. Default: `Bounds()`.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, component, pair:

        - phenotype (group, component) and pair_phenotype (group, pair), str: "sun", "spikes", "symbols", "point", or
          "few" for groups with fewer than 1,000 filters.
        - spread, central, centre_excess, hot, departure, offset (group, component), float64, and modes (group,
          component), int64: the measures that the rule uses; the attribute `long_name` describes each.
        - pair_spread and so on (group, pair): the same for pairs.
        - count (group), int64: filters.
        - Coordinates pair ("0,1"), its components first and second (pair), and centre (component): the coefficients
          of an all-zero filter. The attribute `bounds` has the bounds.

    Raises
    ------
    UsageError
        For pairs that do not exist, or for too many groups.

    Notes
    -----
    docs/explanation/phenotypes.md describes the rule. Components need only the histograms. Pairs need one pass over
    the filters for each grouping; its result is stored.

    Examples
    --------
    >>> result = fdb.phenotypes(db, "task", pairs=[])
    >>> result["phenotype"].sel(group="classification").values.tolist()
    ['symbols', 'sun', 'sun', 'sun', 'sun', 'sun', 'sun', 'point', 'point']
    """
    db = as_database(db, kernel=kernel)
    if pairs is DEFAULT_PAIRS:
        pairs = [pair for pair in DEFAULT_PAIRS if max(pair) < db.weights]
    check_pairs(pairs, db.weights)
    bounds = bounds or Bounds()
    question = Question.in_basis(db, by, mode, scaled=scaled)
    edges = question.edges
    joint = np.zeros((0, question.groups, BINS, BINS), np.int64)
    if pairs:
        joint, _ = densities(question.db, question.projection, question.grouping.index, question.groups, pairs, BINS)
    mean, components = question.projection.axes.arrays
    zero = (-components @ mean).tolist()
    component_shapes = [
        [shape(counts, edges, [centre]) for counts, centre in zip(group, zero, strict=True)]
        for group in question.counts
    ]
    pair_shapes = [
        [shape(counts, edges, [zero[k] for k in pair]) for counts, pair in zip(group, pairs, strict=True)]
        for group in np.moveaxis(joint, 0, 1)
    ]
    return xr.Dataset(
        {
            "count": ("group", question.filters, {"long_name": "filters"}),
            **_variables("", "component", component_shapes, bounds),
            **_variables("pair_", "pair", pair_shapes, bounds),
        },
        coords={
            **question.coords(),
            "component": np.arange(len(zero)),
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
    """Return the phenotypes and the measures that the rule uses, (group, dim) each."""
    dims = ("group", dim)
    names = np.array([[shape.phenotype(bounds) for shape in row] for row in shapes], dtype=object)
    size = (len(shapes), len(shapes[0]))
    variables: dict[str, tuple[object, ...]] = {f"{prefix}phenotype": (dims, names.reshape(size))}
    for name, doc in MEASURES.items():
        values = [[getattr(shape, name) for shape in row] for row in shapes]
        dtype = np.int64 if name == "modes" else np.float64
        variables[f"{prefix}{name}"] = (dims, np.array(values, dtype).reshape(size), {"long_name": doc})
    return variables
