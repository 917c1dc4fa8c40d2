"""Compare a model file with the models of a database in one kernel shape: drift, its floors, verdicts, deciles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from filterdb.analysis.layer_swaps import places, swap_pair
from filterdb.analysis.noise import FEW
from filterdb.analysis.question import Question
from filterdb.numerics.depth import DECILES, NO_DECILE, depth_decile
from filterdb.numerics.divergence import symmetric_kl
from filterdb.numerics.histogram import sound_probabilities
from filterdb.numerics.resampling import SymmetricKL
from filterdb.numerics.sampling import Z_RELATED, Floor, SamplingFloor
from filterdb.numerics.significance import LEVEL
from filterdb.reduce.model_summary import Query
from filterdb.verdicts import BY_FILTERS, BY_LAYERS, BY_SAMPLING, INDISTINGUISHABLE, RELATED, TOO_FEW

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Variables = dict[str, tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Compared:
    """The filters of one kernel shape of a file, and those of the models that have any: the question's groups."""

    question: Question
    query: Query
    whole: Ints
    """The counts behind π, (K, 70): those of the snapshot and of the file."""
    drift: Floats
    """The drift from the file to each model, (models,)."""
    components: Floats
    """The same of each component, unweighted, (K, models)."""
    count: Ints
    """Filters of each model."""
    floors: Floor

    @classmethod
    def of(cls, question: Question, query: Query) -> Self:
        """Compare a file with all models of a question, without verdicts."""
        file_counts, counts = query.arrays["counts"].sum(axis=0), question.counts
        whole = question.snapshot_counts + file_counts
        drift, components = _drift(file_counts, counts, whole, question.weights)
        floors = SamplingFloor(whole, question.weights).between(file_counts, counts)
        return cls(question, query, whole, drift, components, counts[:, 0].sum(axis=-1), floors)

    @property
    def file_filters(self) -> int:
        """Number of the file's filters."""
        return int(self.query.column("row_size").sum())

    @property
    def few(self) -> npt.NDArray[np.bool_]:
        """Which models have too few filters to be ranked, (models,)."""
        return self.count < FEW

    @property
    def excess(self) -> Floats:
        """The drift beyond its floor, (models,)."""
        excess: Floats = self.drift - self.floors.mean
        return excess

    @cached_property
    def positions(self) -> dict[str, int]:
        """The number of each model by its id."""
        return {str(label): number for number, label in enumerate(self.question.grouping.labels)}

    def variables(self, order: Ints) -> Variables:
        """Return the variables along `model` of some models, in this order; see `nearest`."""
        floor = Floor(self.floors.mean[order], self.floors.q95[order])
        drift, few = self.drift[order], self.few[order]
        no_verdict = few | (self.file_filters < FEW)
        swap_q95, by_swaps = np.where(no_verdict, np.nan, _swaps(self.question, self.query, self.whole, order))
        model = ("model",)
        return {
            "drift": (model, drift, {"long_name": "drift to the file"}),
            "excess": (model, drift - floor.mean, {"long_name": "drift beyond its floor"}),
            "per_component": (("component", "model"), self.components[:, order]),
            "floor": (model, floor.mean, {"long_name": "mean drift of two samples of one distribution"}),
            "floor_q95": (model, floor.q95, {"long_name": "95 % quantile of the same"}),
            "related_below": (model, floor.quantile(Z_RELATED), {"long_name": "0.1 % quantile of the same"}),
            "verdict": (model, _verdicts(drift, floor, by_swaps, no_verdict)),
            "judged_by": (model, np.where(np.isnan(by_swaps), BY_SAMPLING, BY_LAYERS).astype(object)),
            "layer_floor_q95": (model, swap_q95, {"long_name": "95 % quantile of the drift after swapping layers"}),
            "swap_p_value": (model, by_swaps, {"long_name": "share of swaps of layers with at least this drift"}),
            "closer_than_noise": (model, drift <= floor.q95),
            "count": (model, self.count[order], {"long_name": "number of filters"}),
            "few": (model, few),
        }

    def by_decile(self, order: Ints) -> Variables:
        """Return the variables along `model` and `decile` of some models."""
        values = _decile_variables(self.question, self.query, self.whole, order)
        return {f"decile_{name}": (("model", "decile"), array) for name, array in values.items()}

    @property
    def decile_counts(self) -> Ints:
        """Return the number of the file's filters in each depth decile, (10,)."""
        decile = depth_decile(self.query.column("conv_depth_norm"))
        known = decile != NO_DECILE
        return np.bincount(decile[known], self.query.column("row_size")[known], len(DECILES)).astype(np.int64)


def _verdicts(drift: Floats, floor: Floor, by_swaps: Floats, few: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Return the verdict of each model, (models,); `by_swaps` is the p-value of swapping layers, NaN for none."""
    verdict = np.where((drift <= floor.q95) | (by_swaps > LEVEL), INDISTINGUISHABLE, BY_FILTERS)
    verdict[drift < floor.quantile(Z_RELATED)] = RELATED
    verdict[few] = TOO_FEW
    return verdict.astype(object)


def _swaps(question: Question, query: Query, whole: Ints, order: Ints) -> Floats:
    """Return floor and p-value of swapping the file's layers with each model's in `order`, (2, models), or NaN."""
    file_places = places(query.column)
    layers, layer_counts = question.db.layer_columns, question.layer_counts
    model_places = places(lambda name: layers[name].values)
    swaps = np.full((2, len(order)), np.nan)
    for i, model in enumerate(order):
        rows = np.flatnonzero(question.grouping.index == model)
        if len(rows) == len(file_places):
            counts = np.concatenate([query.arrays["counts"], layer_counts[rows]])
            statistic = SymmetricKL(counts, whole, question.weights)
            swaps[:, i] = swap_pair(statistic, file_places, [model_places[row] for row in rows])
    return swaps


def _decile_variables(question: Question, query: Query, whole: Ints, order: Ints) -> dict[str, Floats]:
    """Return drift, floors and count of each model in `order` in each depth decile, (models, 10) each."""
    floors = SamplingFloor(whole, question.weights)
    query_counts, layer_counts = query.arrays["counts"], question.layer_counts
    query_decile = depth_decile(query.column("conv_depth_norm"))
    decile = depth_decile(question.db.layer_columns["conv_depth_norm"].values)
    variables = np.full((4, len(order), len(DECILES)), np.nan)
    for i in np.unique(query_decile[query_decile != NO_DECILE]):
        rows = [(decile == i) & (question.grouping.index == model) for model in order]
        counts = np.stack([layer_counts[chosen].sum(axis=0) for chosen in rows])
        has_filters = counts[:, 0].sum(axis=-1) > 0
        if has_filters.any():
            counts = counts[has_filters]
            file_counts = query_counts[query_decile == i].sum(axis=0)
            drift, _ = _drift(file_counts, counts, whole, question.weights)
            noise = floors.between(file_counts, counts)
            variables[:, has_filters, i] = np.stack((drift, *noise, counts[:, 0].sum(axis=-1)))
    return dict(zip(("drift", "floor", "floor_q95", "count"), variables, strict=True))


def _drift(counts: Ints, others: Ints, whole: Ints, weights: Floats) -> tuple[Floats, Floats]:
    """Return the drift from one group with `counts` (K, 70) to `others` (groups, K, 70), and that of each component.

    The drift is (groups,), that of components (K, groups). It is computed term by term, not by matrix products, so that
    the drift to a copy is exactly 0.
    """
    p = sound_probabilities(np.concatenate([counts[None], others]), whole)
    components = symmetric_kl(p[0], p[1:])
    return components @ weights, components.T
