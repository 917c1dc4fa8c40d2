"""Describe what an analysis is about, and compute once what analyses share: groups, counts, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import (
    Grouping,
    Key,
    check_raw,
    chosen,
    group,
    provenance,
    with_depth,
    with_scale,
)
from filterdb.numerics.histogram import sum_groups
from filterdb.numerics.modes import AnyMode, Mode, as_mode
from filterdb.numerics.moments import Moments
from filterdb.numerics.pairs import distinct_pairs
from filterdb.reduce.basis import (
    Projection,
    basis_attributes,
    has_scale,
    layer_histograms,
    layer_moments,
    pooled_moments,
    projection,
    with_range_of,
)
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.summary import Arrays


def _usable(db: Database, by: Key | None, *, scaled: bool) -> Database:
    """Return the layers of a view that such a question can be about. Raises InputError for raw filters that differ."""
    if not scaled:
        check_raw(db)
    return with_depth(with_scale(db, scaled=scaled), by)


@dataclass(frozen=True, eq=False)
class Question:
    """Hold the layers that an analysis is about, their grouping, and the mode.

    `Question.of` is about layers and their filters, `Question.in_basis` about coefficients. Properties are computed at
    first use and cached.

    Attributes
    ----------
    db : Database
        The view, for raw filters without layers whose scale is unknown, and for groups by depth without layers whose
        depth is unknown.
    grouping : Grouping
        The groups of the view's layers.
    mode : Mode
        The mode of the result.
    scaled : bool
        Whether each filter is divided by its max |w|.
    fitted : Projection or None
        The axes on which filters are projected; None for a question that is not about coefficients.
    equal_models : bool
        Whether each model counts as much as any other in its group, whatever its number of filters.
    """

    db: Database
    grouping: Grouping
    mode: Mode
    scaled: bool
    fitted: Projection | None = None
    equal_models: bool = False

    @classmethod
    def of(cls, db: AnyDatabase, by: Key | None = None, mode: AnyMode = "sound", *, scaled: bool = True) -> Self:
        """Ask about the layers of a view, grouped by `by`.

        Raises
        ------
        UsageError
            For an unknown mode or label.
        InputError
            If the view has no layers.
        """
        mode = as_mode(mode)
        view = _usable(as_database(db), by, scaled=scaled)
        return cls(view, group(view, by, mode), mode, scaled)

    @classmethod
    def in_basis(
        cls,
        db: AnyDatabase,
        by: Key | None = None,
        mode: AnyMode = "sound",
        *,
        scaled: bool = True,
        equal_models: bool = False,
    ) -> Self:
        """Ask about the coefficients of a view's filters, at the snapshot that has the basis; raises as `of` does.

        In `sound` mode the first question about a database fits its basis and commits it, as documented in `drift`.
        """
        mode = as_mode(mode)
        db, fitted = projection(as_database(db), mode, scaled=scaled)
        view = _usable(db, by, scaled=scaled)
        grouping = group(view, by, mode)
        if mode.has_range_of_view:
            fitted = with_range_of(view, fitted)
        return cls(view, grouping, mode, scaled, fitted, equal_models)

    @property
    def projection(self) -> Projection:
        """Return the axes on which filters are projected."""
        if self.fitted is None:
            raise TypeError("question: expected one about coefficients (`Question.in_basis`), got `Question.of`")
        return self.fitted

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return len(self.grouping.labels)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Return the share of variance â of each component, (K,) float64."""
        return self.projection.weights

    @cached_property
    def edges(self) -> npt.NDArray[np.float64]:
        """Return the edges of the bins of coefficients, (71,) float64."""
        return self.projection.histograms.edges

    @property
    def bin_width(self) -> float:
        """Return the width of a bin of coefficients."""
        return float(np.diff(self.edges).mean())

    def of_view(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the view's layers of an array of the snapshot's layers (layers, …)."""
        picked: npt.NDArray[Any] = values[chosen(self.db)]
        return picked

    @cached_property
    def filters(self) -> npt.NDArray[np.int64]:
        """Return the number of filters of each group, (groups,) int64."""
        return self.grouping.sums(self.db.layer_columns["row_size"].values)

    @cached_property
    def models(self) -> npt.NDArray[np.int64]:
        """Return the number of models of each group, (groups,) int64."""
        cells = distinct_pairs(self.grouping.index, self.db.layer_columns["model_index"].values)
        return np.bincount(cells.first, minlength=self.groups)

    @cached_property
    def snapshot_histograms(self) -> Arrays:
        """Return the histograms of all layers of the snapshot; see `layer_histograms`."""
        return layer_histograms(self.db, self.projection)

    @property
    def layer_counts(self) -> npt.NDArray[Any]:
        """Return the number of filters of each of the view's layers in each bin, (layers, K, 70).

        They are signed integers of any size, with `equal_models` float64: the filters of a model in a group are then
        weighted so that each model weighs the same. The weight of a model is the harmonic mean of the models' numbers
        of filters, because averages over models vary as those of so many filters do.
        """
        counts = self.of_view(self.snapshot_histograms["counts"])
        return counts * self._model_weights[:, None, None] if self.equal_models else counts

    @cached_property
    def _model_weights(self) -> npt.NDArray[np.float64]:
        """Return what a filter of each layer counts if the models of a group weigh the same, (layers,) float64."""
        cell = distinct_pairs(self.grouping.index, self.db.layer_columns["model_index"].values).of_row
        filters = np.bincount(cell, self.db.layer_columns["row_size"].values)
        weights: npt.NDArray[np.float64] = (len(filters) / (1 / filters).sum() / filters)[cell]
        return weights

    @cached_property
    def counts(self) -> npt.NDArray[Any]:
        """Return the number of filters of each group in each bin, (groups, K, 70), weighted as `layer_counts`."""
        if self.equal_models:
            return self.grouping.sums(self.layer_counts)
        return self.view_sums("counts")

    def view_sums(self, name: str) -> npt.NDArray[np.int64]:
        """Return the sums by group of one of the histograms' arrays, (groups, …) int64."""
        return self.grouping.sums(self.of_view(self.snapshot_histograms[name]))

    @cached_property
    def snapshot_counts(self) -> npt.NDArray[np.int64]:
        """Return the number of filters of the whole snapshot in each bin, (K, 70) int64."""
        used = has_scale(self.db.whole, scaled=self.scaled)
        if self.db.chosen is None and used.all() and not self.equal_models:
            return self.counts.sum(axis=0)
        total: npt.NDArray[np.int64] = sum_groups(self.snapshot_histograms["counts"], (~used).astype(np.int64), 2)[0]
        return total

    def probabilities_of(self, counts: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the probabilities that the mode makes of counts (…, K, 70), float64 of the same shape."""
        return self.mode.probabilities(counts, self.snapshot_counts, self.edges)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Return the probability of each bin in each group, (groups, K, 70) float64."""
        return self.probabilities_of(self.counts)

    @cached_property
    def layer_moments(self) -> Moments:
        """Return the moments of each of the view's layers, (layers,)."""
        return layer_moments(self.db, scaled=self.scaled).pick(chosen(self.db))

    @cached_property
    def moments(self) -> Moments:
        """Return the moments of each group, (groups,)."""
        return pooled_moments(self.db, self.grouping.index, self.groups, scaled=self.scaled)

    def coords(self, order: npt.NDArray[np.int64] | slice = slice(None)) -> dict[str, Any]:
        """Return the coordinates along `group`: the label, and for a product of keys the label of each key.

        `order` (groups,) int: the position in the question of each group of the result.
        """
        positions = np.arange(self.groups)[order]
        labels = [self.grouping.labels[i] for i in positions]
        parts = self.grouping.parts.items()
        return {"group": labels, **{key: ("group", [part[i] for i in positions]) for key, part in parts}}

    def provenance(self, **more: Any) -> dict[str, Any]:
        """Return the attributes that every result carries: snapshot, selection, grouping, mode, basis; and `more`.

        An attribute in `more` replaces the question's own of that name; None removes it.
        """
        asked = {"by": self.grouping.by, "mode": self.mode.name}
        made_of: dict[str, Any] = {"scaled": int(self.scaled)}
        if self.fitted is not None:
            made_of |= {"range": self.edges[[0, -1]].tolist(), **basis_attributes(self.db, self.fitted)}
        return provenance(self.db, **(asked | more | made_of | more))
