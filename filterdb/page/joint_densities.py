"""Compute the joint densities of every pair of components by group, for the bivariate figures (P1 fig. 4)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from filterdb.analysis.density import density
from filterdb.analysis.phenotypes import phenotypes
from filterdb.choices import COMPONENTS
from filterdb.numerics.histogram import BINS
from filterdb.numerics.modes import ModeName
from filterdb.numerics.shape import shape
from filterdb.reduce.joint_densities import MAX_COUNTS, Pair
from filterdb.schema import WEIGHTS
from filterdb.store.database import Database


def component_pairs(weights: int) -> tuple[Pair, ...]:
    """Return the pairs of the leading components of filters of K weights: 36 of nine components or more.

    The components behind hold little of the variance, and all 1,176 pairs of 7×7 filters would take 46 MB a group.
    """
    return tuple(itertools.combinations(range(min(weights, COMPONENTS)), 2))


COMPONENT_PAIRS = component_pairs(WEIGHTS)
"""The pairs for 3×3 filters."""

MAX_GROUPS = 40
"""Largest number of groups that the page shows. More would take megabytes, and a pass that keeps all in memory."""

AFFORDABLE_FILTERS = 50_000_000
"""Largest number of filters for which the pass runs by default."""

WHOLE = "all filters"
"""Label of all groups together."""


@dataclass(frozen=True)
class JointDensities:
    """Hold the `density` results of every pair and the `phenotypes` result of a grouping (None: of all filters)."""

    by: str | None
    densities: dict[Pair, xr.Dataset]
    phenotypes: xr.Dataset

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Return the edges of the bins."""
        edges: npt.NDArray[np.float64] = self.densities[self.pairs[0]]["bin_edges"].values
        return edges

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Return the pairs of components."""
        return tuple(self.densities)

    @property
    def labels(self) -> list[str]:
        """Return the label of all filters, then that of each group."""
        return [WHOLE, *([] if self.by is None else map(str, self.phenotypes["group"].values))]

    def counts(self, pair: Pair) -> npt.NDArray[np.int64]:
        """Return the counts of all filters, then of each group, (labels, bins, bins) int."""
        counts = self.densities[pair]["counts"].values
        whole = counts.sum(axis=0, keepdims=True)
        return whole if self.by is None else np.concatenate([whole, counts])

    def kinds(self) -> npt.NDArray[np.object_]:
        """Return the phenotype of every pair, (labels, pairs)."""
        kinds: npt.NDArray[np.object_] = self.phenotypes["pair_phenotype"].values.astype(object)
        if self.by is None:
            return kinds
        centre = self.phenotypes["centre"].values
        whole = [
            shape(self.counts(pair)[0], self.edges, centre[list(pair)].tolist()).phenotype() for pair in self.pairs
        ]
        return np.concatenate([np.array([whole], object), kinds])

    def table(self) -> pd.DataFrame:
        """Return a row with the phenotype of each group and pair."""
        rows = [
            {"group": label, "component": first, "other": second, "phenotype": kind}
            for label, kinds in zip(self.labels, self.kinds(), strict=True)
            for (first, second), kind in zip(self.pairs, kinds, strict=True)
        ]
        return pd.DataFrame(rows)

    def cells(self) -> pd.DataFrame:
        """Return a row with the count of all filters for each bin of each pair that is not empty."""
        parts = [self._nonzero(self.counts(pair)[0], {"component": pair[0], "other": pair[1]}) for pair in self.pairs]
        return pd.concat(parts, ignore_index=True)

    def groups(self, pair: Pair) -> pd.DataFrame:
        """Return a row with the count of each group in each bin of one pair that is not empty."""
        labels = (str(label) for label in self.densities[pair]["group"].values)
        counts = self.densities[pair]["counts"].values
        parts = [self._nonzero(part, {"group": label}) for label, part in zip(labels, counts, strict=True)]
        return pd.concat(parts, ignore_index=True)

    def _nonzero(self, counts: npt.NDArray[np.int64], labels: dict[str, object]) -> pd.DataFrame:
        """Return a row for each bin with filters, with the given labels as columns."""
        first, second = np.nonzero(counts)
        low = self.edges[:-1]
        return pd.DataFrame({**labels, "from": low[first], "other_from": low[second], "filters": counts[first, second]})


def joint_densities(db: Database, by: str | None, mode: ModeName) -> JointDensities:
    """Compute the densities of all pairs of leading components, in one pass unless its results are stored."""
    pairs = component_pairs(db.weights)
    kinds = phenotypes(db, by, pairs=pairs, mode=mode)
    return JointDensities(by, {pair: density(db, by, components=pair, mode=mode) for pair in pairs}, kinds)


def is_affordable(db: Database) -> bool:
    """Return whether the pass runs by default."""
    return int(db.layers["row_size"].sum()) <= AFFORDABLE_FILTERS


def fits(groups: int) -> bool:
    """Return whether the page can show this number of groups."""
    return groups <= MAX_GROUPS and groups * len(COMPONENT_PAIRS) * BINS**2 <= MAX_COUNTS
