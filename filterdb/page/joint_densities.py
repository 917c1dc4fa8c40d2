"""Every pair of components, for every group of one grouping: what the bivariate figures are made from (P1 fig. 4)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from filterdb.analysis.density import density
from filterdb.analysis.phenotypes import phenotypes
from filterdb.numerics.histogram import BINS
from filterdb.numerics.shape import shape
from filterdb.reduce.densities import CELLS, Pair
from filterdb.schema import WEIGHTS
from filterdb.store.database import Database

PAIRS: tuple[Pair, ...] = tuple(itertools.combinations(range(WEIGHTS), 2))

GROUPS = 40
"""Groups that the page shows at most: more would be megabytes and a pass that holds them all."""

AFFORDABLE = 50_000_000
"""Filters up to which the pass is made without being asked for."""

WHOLE = "all filters"


@dataclass(frozen=True)
class Planes:
    """The `density` result of every pair, and the `phenotypes` result, of one grouping (None: of all filters)."""

    by: str | None
    densities: dict[Pair, xr.Dataset]
    phenotypes: xr.Dataset

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins."""
        found: np.ndarray = self.densities[PAIRS[0]]["bin_edges"].values
        return found

    @property
    def labels(self) -> list[str]:
        """All filters, then each group."""
        return [WHOLE, *([] if self.by is None else map(str, self.phenotypes["group"].values))]

    def counts(self, pair: Pair) -> np.ndarray:
        """Of all filters, then of each group, (labels, bins, bins)."""
        found = self.densities[pair]["counts"].values
        whole = found.sum(axis=0, keepdims=True)
        return whole if self.by is None else np.concatenate([whole, found])

    def kinds(self) -> np.ndarray:
        """Phenotype of every pair, (labels, pairs)."""
        of_pairs = self.phenotypes["pair_phenotype"].values.astype(object)
        if self.by is None:
            return of_pairs
        centre = self.phenotypes["centre"].values
        whole = [shape(self.counts(pair)[0], self.edges, centre[list(pair)].tolist()).phenotype() for pair in PAIRS]
        return np.concatenate([np.array([whole], object), of_pairs])

    def table(self) -> pd.DataFrame:
        """A row for each group and pair or single component: its phenotype."""
        rows = [
            {"group": label, "component": first, "other": second, "phenotype": kind}
            for label, kinds in zip(self.labels, self.kinds(), strict=True)
            for (first, second), kind in zip(PAIRS, kinds, strict=True)
        ]
        return pd.DataFrame(rows)

    def cells(self) -> pd.DataFrame:
        """The counts of all filters that are not zero: a row for each bin of each pair."""
        parts = [self._nonzero(self.counts(pair)[0], {"component": pair[0], "other": pair[1]}) for pair in PAIRS]
        return pd.concat(parts, ignore_index=True)

    def groups(self, pair: Pair) -> pd.DataFrame:
        """The counts of each group for one pair: a row for each bin that has any."""
        labels = (str(label) for label in self.densities[pair]["group"].values)
        counts = self.densities[pair]["counts"].values
        parts = [self._nonzero(one, {"group": label}) for label, one in zip(labels, counts, strict=True)]
        return pd.concat(parts, ignore_index=True)

    def _nonzero(self, counts: np.ndarray, of: dict[str, object]) -> pd.DataFrame:
        one, other = np.nonzero(counts)
        low = self.edges[:-1]
        return pd.DataFrame({**of, "from": low[one], "other_from": low[other], "filters": counts[one, other]})


def planes(db: Database, by: str | None, mode: str) -> Planes:
    """All pairs of components: one pass for all of them, unless it was made before."""
    found = phenotypes(db, by, PAIRS, mode=mode)
    return Planes(by, {pair: density(db, by, pair, mode=mode) for pair in PAIRS}, found)


def affordable(db: Database) -> bool:
    """Whether the pass is made without being asked for."""
    return int(db.layers["row_size"].sum()) <= AFFORDABLE


def fits(groups: int) -> bool:
    """Whether so many groups can be shown."""
    return groups <= GROUPS and groups * len(PAIRS) * BINS**2 <= CELLS
