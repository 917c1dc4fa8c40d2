"""Compute drift between groups: a divergence of their coefficient distributions, weighted by component variance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis import noise as noises
from filterdb.analysis.counting import Counting, CountingOptions
from filterdb.analysis.drift_metrics import METRICS as METRICS  # noqa: PLC0414 - also imported from here
from filterdb.analysis.drift_metrics import AnyMetric, Metric, MomentMetric, as_metric
from filterdb.analysis.grouping import Key, group
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.analysis.strata import align, strata
from filterdb.analysis.units import Units, find_units
from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.numerics import divergence
from filterdb.numerics.box import STATISTICS, summary
from filterdb.numerics.histogram import EDGE_TOLERANCE
from filterdb.numerics.modes import AnyMode, as_mode
from filterdb.schema import AnyKernel
from filterdb.store import matrix as matrix_store
from filterdb.store.database import AnyDatabase, as_database
from filterdb.store.files import Files

FEW = noises.FEW

_ON_EDGE = f"filters within {EDGE_TOLERANCE:g} bin widths of an inner edge, counted in the bin above it"

PER_COMPONENT_LIMIT = 1_000
"""Largest number of groups for which a result has `per_component`."""

IN_MEMORY_LIMIT = 10_000
"""Largest number of groups whose matrix is computed in memory (800 MB)."""


@formerly_positional("mode", "metric")
@returns_result
def drift(
    db: AnyDatabase,
    by: Key,
    *,
    mode: AnyMode = "sound",
    metric: AnyMetric = "kl",
    scaled: bool = True,
    within: Key | None = None,
    out: str | os.PathLike[str] | None = None,
    kernel: AnyKernel | None = None,
    **options: Unpack[CountingOptions],
) -> xr.Dataset:
    """Compute the drift between all pairs of groups of the view's layers, in heatmap order.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        The labels by which layers are grouped: a column, "depth_decile", "layer", or several of these.
    mode : {"sound", "paper"}
        The best answer, or that of the CVPR 2022 paper's code (docs/explanation/method.md). Also
        `filterdb.numerics.modes.PAPER_OF_COMPARED`: as "paper", with the range of the compared groups (P2 A.1).
        Default: "sound".
    metric : {"kl", "psi", "js", "hellinger", "wasserstein", "frechet"} or Metric
        The distance of two groups; the attribute `formula` of the result defines it. Default: "kl".
    scaled : bool
        False: raw filters (P2 A.2), without layers whose scale is unknown. Default: True.
    within : str or list of str, optional
        Another grouping. The result has one matrix for each of its groups, along `stratum`, in the unstratified order;
        a group that a stratum lacks has NaN and an empty verdict. Default: one matrix.
    out : str or path, optional
        A new path or URL. The matrix is written there block by block as a Zarr group, and the result is opened from it
        lazily with Dask, so memory does not grow with the square of the number of groups. Groups keep the order of the
        layers; `heatmap_order` (group) is their rank by row mean. The result lacks `per_component`, `probabilities`
        and noise. Default: the matrix in memory.
    noise : bool or int, optional
        True: compute noise with 1,000 permutations and draws of models; a number: with so many. False: leave it out.
        Default: compute it if it takes seconds (up to 1,000 groups, 30 for metrics other than kl and psi, and 10
        million permutations, such as 6,000 pairs of groups of seven models).
    unit : str, optional
        A column of the catalog. Models with one value of it are one unit of replication, as are checkpoints of one
        training, copies, and models that share a layer or trained weights. Databases of earlier versions have no
        sketches of the weights; "related" makes them in a pass over all filters once. Default: no column; the attribute
        `units_by` of the result lists what joined models, "relatives" only where all layers have sketches.
    equal_models : bool
        Whether each model of a group weighs the same, whatever its number of filters, so that large models do not
        decide. Not in `paper` mode, not for `frechet`. Default: False, each filter weighs the same.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, other, component, bin, float64 unless stated otherwise:

        - drift (group, other): symmetric, with a zero diagonal.
        - per_component (component, group, other): the drift of each component, unweighted, by the metric that the
          attribute per_component_metric names. Up to 1,000 groups; not for `frechet`, which is not a sum over
          components.
        - row_mean (group): the mean of the group's row, with the zero diagonal, by which heatmaps are ordered.
        - drift_box (statistic) and component_box (component, statistic): low, q1, median, q3, high and mean of `drift`
          and `per_component` over all pairs of groups, with Tukey's whiskers.
        - count (group), int64: filters. few (group), bool: whether there are fewer than 1,000, where copies count
          once. models (group), int64: models.
        - units (group), int64: units of replication: models of one training, or otherwise related, are one.
          effective_units (group): (Σn)²/Σn² of the filters n of the units. Only in `sound` mode.
        - counts (group, component, bin), int64: filters in each bin.
        - probabilities (group, component, bin): the probabilities that the mode makes of these counts.
        - outside (group, component), int64: filters outside the range.
        - on_edge (group, component), int64: filters within 1e-9 bin widths of an inner edge; they count in the bin
          above it.
        - Coordinates weights (component) and bin_edges (edge).

        With noise, in `sound` mode, also:

        - floor and floor_q95 (group, other): mean and 95 % quantile of the drift that the numbers of filters alone
          explain.
        - model_floor and model_floor_q95 (group, other): the same after permuting units of models between the groups;
          NaN if fewer than 20 permutations exist. permutations (group, other): their number.
        - layer_floor and layer_floor_q95 (group, other): the same after swapping corresponding layers of two models of
          one architecture with at least six layers; NaN for other pairs.
        - p_value (group, other): the probability of at least this drift by chance, for this pair alone; q_value (group,
          other): the same corrected for all pairs of the matrix (Benjamini and Yekutieli).
        - verdict (group, other), str: "different" (q ≤ 0.05 by permutation of units), "different_by_filters" (q ≤ 0.05
          by numbers of filters and, where layers correspond, p ≤ 0.05 by swapping layers, where the units are too few
          to permute), "related" (nearer than independent filters can be), "indistinguishable", "few" (fewer than 1,000
          filters in a group), or "" on the diagonal and without a floor.
        - judged_by (group, other), str: the floor behind the verdict: "model", "layers", "few models" (the units can be
          permuted, but are too few for any drift to be "different", so numbers of filters judge), "sampling" or "".
        - detectable (group, other): beside "indistinguishable", the smallest drift that would be called different in
          about 80 % of the cases; NaN if there is none.
        - p_value_max (group, other): the probability that chance makes any pair of the matrix drift as much, relative
          to its mean. Up to 200 groups.
        - interval (group, other, bound): 90 % interval of the drift (attribute `level`), which excludes 0 if and only
          if p_value ≤ 0.10; NaN with fewer than 5 effective units or 1,000 filters in a group. interval_reason (group,
          other), str: why.

    Raises
    ------
    UsageError
        For unknown names, for more than 10,000 groups without `out`, or for noise with mode `paper` or with `out`.

    Notes
    -----
    For histograms the drift is Σᵢ âᵢ d(Pᵢ, Qᵢ) over the components i. Basis, weights â, range and π are the snapshot's,
    whatever the view is. The same call returns the same bytes each time. docs/explanation/noise.md describes the noise.

    On a new database the first answer in `sound` mode fits the basis on all filters and commits a snapshot that has it
    (action `reduce`), so that all later answers are in the same basis. No filter is rewritten, and the result names
    the new snapshot. If the store cannot be written, the basis stays in memory.

    Examples
    --------
    >>> result = fdb.drift(db, "task")
    >>> result["group"].values.tolist()
    ['classification', 'detection']
    >>> result["drift"].values.round(2)
    array([[0.  , 0.34],
           [0.34, 0.  ]])
    >>> pair = result.sel(group="classification", other="detection")
    >>> pair["verdict"].item(), pair["judged_by"].item()
    ('different_by_filters', 'sampling')
    """
    counting = Counting.of("drift", options)
    mode, metric, db = as_mode(mode), as_metric(metric), as_database(db, kernel=kernel)
    if within is not None:
        if out is not None:
            raise UsageError("drift: expected `within` or `out`, got both; select one stratum and write that")
        results = drift_strata(db, by, within, mode=mode, metric=metric, scaled=scaled, **options)
        without_noise: CountingOptions = {**options, "noise": False}
        whole = drift(db, by, mode=mode, metric=metric, scaled=scaled, **without_noise)
        aligned = align(results, whole["group"].values)
        aligned.attrs = {**whole.attrs, "within": group(db, within, mode).by}
        return aligned
    if out is not None:
        if counting.noise:
            raise UsageError("drift: expected `noise` or `out`, got both; a matrix in blocks has no noise")
        Files.at(out).check_writable()
    if counting.equal_models and (not mode.has_noise or isinstance(metric, MomentMetric)):
        raise UsageError(
            f"equal_models: expected mode sound and a metric of histograms, got {mode.name}, {metric.name}"
        )
    question = Question.in_basis(db, by, mode, scaled=scaled, equal_models=counting.equal_models)
    matrix = _Matrix(question, metric, counting.unit)
    if out is not None:
        return matrix.write(out)
    groups = matrix.question.groups
    if groups > IN_MEMORY_LIMIT:
        raise UsageError(
            f"drift: expected at most {IN_MEMORY_LIMIT:,} groups for a matrix in memory, got {groups:,}; "
            "say where to write it (`out`, on the command line -o)"
        )
    return matrix.in_memory(counting.noise)


@formerly_positional("mode", "metric")
def drift_strata(
    db: AnyDatabase,
    by: Key,
    within: Key,
    *,
    mode: AnyMode = "sound",
    metric: AnyMetric = "kl",
    scaled: bool = True,
    **options: Unpack[CountingOptions],
) -> dict[str, xr.Dataset]:
    """Return a `drift` result for each group of `within`, each with its own groups, noise and heatmap order."""
    views = strata(db, within, mode)
    return {label: drift(view, by, mode=mode, metric=metric, scaled=scaled, **options) for label, view in views.items()}


@dataclass(frozen=True, eq=False)
class _Matrix:
    """Compute the drift of all pairs of a question's groups by a metric."""

    question: Question
    metric: Metric
    unit: str | None

    @cached_property
    def units(self) -> Units:
        """Return the units of replication."""
        return find_units(self.question.db, self.unit)

    @cached_property
    def cells(self) -> noises.Cells:
        """Return the cells of units and groups."""
        return noises.cells(self.question.grouping.index, self.units.of_layer)

    @cached_property
    def replication(self) -> noises.Replication | None:
        """Return how often the groups are replicated; None in a mode without noise."""
        return noises.replication(self.question, self.cells) if self.question.mode.has_noise else None

    @property
    def units_by(self) -> str | None:
        """Return the evidence by which units were joined, as text; None in a mode without noise."""
        return ", ".join(self.units.evidence) if self.question.mode.has_noise else None

    def judge(self, drift: npt.NDArray[np.float64], asked: noises.Noise) -> noises.Judged | None:
        """Return floors, verdicts and intervals of the matrix `drift`; None without noise."""
        question, replication = self.question, self.replication
        units = np.zeros(question.groups, np.int64) if replication is None else replication.units
        draws = noises.wanted(asked, question.mode, self.metric, units)
        if not draws or replication is None:
            return None
        return noises.judge(question, self.metric, drift, self.cells, replication, draws)

    def in_memory(self, asked: noises.Noise = None) -> xr.Dataset:
        """Return the result in heatmap order."""
        question, metric = self.question, self.metric
        # Finding units takes more memory than anything else, so it comes before the histograms and the matrix.
        if question.mode.has_noise:
            self.__dict__.setdefault("units", find_units(question.db, self.unit))
        matrix = divergence.whole(question.groups, metric.block(question))
        judged = self.judge(matrix, asked)
        # The order of P1's heatmaps: ascending row mean, with the zero diagonal. Deciles keep their own order.
        order, row_mean = np.arange(question.groups), matrix.mean(axis=1)
        if not question.grouping.ordered:
            order = np.argsort(row_mean, kind="stable")
        result = self.without_matrix(order).assign_coords(statistic=list(STATISTICS))
        result["drift_box"] = ("statistic", summary([divergence.upper(matrix)])[0])
        divergence.reorder(matrix, order)
        result["drift"] = (("group", "other"), matrix)
        result["row_mean"] = ("group", row_mean[order])
        result["probabilities"] = (("group", "component", "bin"), question.probabilities[order])
        blocks = metric.component_blocks(question, order) if question.groups <= PER_COMPONENT_LIMIT else []
        if blocks:
            parts = np.stack([divergence.whole(question.groups, block) for block in blocks])
            doc = {"long_name": f"{metric.name} of each component, unweighted", "label": metric.label}
            result["per_component"] = (("component", "group", "other"), parts, doc)
            result["component_box"] = (("component", "statistic"), summary(map(divergence.upper, parts)))
            result.attrs["per_component_metric"] = metric.name
        return result if judged is None else result.assign(noises.variables(judged, order))

    def write(self, out: str | os.PathLike[str]) -> xr.Dataset:
        """Write the result to a new Zarr group, the matrix block by block, and open it."""
        groups = self.question.groups
        result = self.without_matrix(slice(None))
        result["heatmap_order"] = ("group", np.zeros(groups, np.int64))
        target = matrix_store.create(out, result, "drift", ("group", "other"), divergence.BLOCK)
        means = divergence.fill(target.matrix, groups, self.metric.block(self.question))
        return target.finish("heatmap_order", np.argsort(np.argsort(means, kind="stable"), kind="stable"))

    def without_matrix(self, order: npt.NDArray[np.int64] | slice) -> xr.Dataset:
        """Return the result without the matrix, with groups in the given order."""
        question = self.question
        outside = question.view_sums("underflow") + question.view_sums("overflow")
        on_edge = question.view_sums("on_edge")
        counts = question.view_sums("counts") if question.equal_models else question.counts
        number, replication = question.filters[order], self.replication
        few = number < FEW if replication is None else replication.few[order]
        coords = question.coords(order)
        return xr.Dataset(
            {
                "count": ("group", number),
                "few": ("group", few),
                "models": ("group", question.models[order]),
                **({} if replication is None else noises.group_variables(replication, order)),
                "outside": (("group", "component"), outside[order]),
                "on_edge": (("group", "component"), on_edge[order], {"long_name": _ON_EDGE}),
                "counts": (("group", "component", "bin"), counts[order]),
            },
            coords={
                "group": coords.pop("group"),
                "other": question.coords(order)["group"],
                **coords,
                "weights": ("component", question.weights),
                "bin_edges": ("edge", question.edges),
            },
            attrs=question.provenance(
                analysis="drift",  # also in the file of `write`
                metric=self.metric.name,
                formula=self.metric.formula,
                equal_models=int(question.equal_models),
                units_by=self.units_by,
            ),
        )
