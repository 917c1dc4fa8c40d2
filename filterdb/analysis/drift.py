"""Drift between groups: a divergence of their coefficient distributions, weighted by the components' variance."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import xarray as xr

from filterdb.analysis import noise as noises
from filterdb.analysis.drift_metrics import METRICS as METRICS  # noqa: PLC0414 - also imported from here
from filterdb.analysis.drift_metrics import AnyMetric, Metric, as_metric
from filterdb.analysis.grouping import Key, group
from filterdb.analysis.question import Question
from filterdb.analysis.strata import align, strata
from filterdb.arguments import formerly_positional
from filterdb.errors import UsageError
from filterdb.numerics import divergence
from filterdb.numerics.histogram import EDGE_TOLERANCE
from filterdb.numerics.modes import AnyMode, as_mode
from filterdb.store import matrix as matrix_store
from filterdb.store.database import AnyDatabase, as_database
from filterdb.store.files import Files

FEW = noises.FEW

ON_EDGE = f"filters within {EDGE_TOLERANCE:g} bin widths of an inner edge, counted in the bin above it"

PER_COMPONENT_LIMIT = 1_000
"""Up to this many groups a result of a metric on histograms has `per_component`."""

IN_MEMORY_LIMIT = 10_000
"""Up to this many groups (800 MB of them) the matrix is made in memory."""


@formerly_positional("mode", "metric")
def drift(
    db: AnyDatabase,
    by: Key,
    *,
    mode: AnyMode = "sound",
    metric: AnyMetric = "kl",
    scaled: bool = True,
    within: Key | None = None,
    out: str | os.PathLike[str] | None = None,
    noise: noises.Noise = None,
) -> xr.Dataset:
    """Compute the drift between all pairs of groups of the view's layers, in heatmap order.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str
        What layers are grouped by: a label, "depth_decile", "layer", or several of these.
    mode : {"sound", "paper"}
        The best answer, or that of the CVPR 2022 paper's code (docs/explanation/method.md).
    metric : {"kl", "psi", "js", "hellinger", "wasserstein", "frechet"} or Metric
        What is computed of each pair; the attribute `formula` says how.
    scaled : bool
        False: raw filters (P2 A.2), without layers whose scale is unknown.
    within : str or list of str, optional
        Another grouping. The result has one matrix for each of its groups, along `stratum`, in the unstratified order;
        a group that a stratum lacks has NaN and an empty verdict.
    out : str or path, optional
        A path or URL at which nothing is yet. The matrix is written there, a Zarr group, block by block, and the
        result is opened from it, lazily by Dask: memory does not grow with the square of the groups. Its groups keep
        the order of the layers; `heatmap_order` (group) is their rank by row mean. Without `per_component`,
        `probabilities` and noise.
    noise : bool or int, optional
        True: compute noise. False: do not. A number: with so many permutations and draws of models, not 1,000. None:
        compute it where it takes seconds (up to 1,000 groups, 30 for metrics other than kl and psi, and 10 million
        permutations, such as 6,000 pairs of groups of seven models).

    Returns
    -------
    xarray.Dataset
        With dims group, other, component, bin:

        - drift (group, other): symmetric, the diagonal zero.
        - per_component (component, group, other): the same metric of each component, unweighted; the attribute
          per_component_metric names it. Up to 1,000 groups; not of `frechet`, which is no sum over components.
        - count (group): filters. few (group): whether these are under 1,000.
        - counts and probabilities (group, component, bin): filters in each bin, and what the mode makes of them.
        - outside and on_edge (group, component): filters outside the range, and filters within 1e-9 bin widths of an
          inner edge, which count in the bin above it.
        - Coordinates weights (component) and bin_edges (edge).

        And with noise, in `sound` mode:

        - floor and floor_q95 (group, other): mean and 95 % quantile of the drift that numbers of filters alone make.
        - model_floor and model_floor_q95 (group, other): the same of permuted models; NaN where fewer than 20
          permutations exist. permutations (group, other): their number.
        - verdict (group, other): "different", "indistinguishable", "few" (under 1,000 filters in a group) or, without
          any floor and on the diagonal, "".
        - judged_by (group, other): "model", "few models" (by these, but they are so few that no drift can be
          "different"), "sampling" or "".
        - interval (group, other, bound): NaN with under 5 models or 1,000 filters in a group.

    Raises
    ------
    UsageError
        For unknown names, for more than 10,000 groups without `out`, for noise asked of `paper` or `out`.

    Notes
    -----
    Basis, weights, range and π are the snapshot's, whatever the view is. Results have the same bytes each time. Noise
    is described in docs/explanation/noise.md.

    On a new database the first answer in `sound` mode fits the basis on all filters and commits a snapshot that has it
    (action `reduce`), so that every later answer, by whoever asks, is in the same basis; no filter is rewritten, and
    the result names the new snapshot. Where the store cannot be written, the basis stays in memory.
    """
    mode, metric, db = as_mode(mode), as_metric(metric), as_database(db)
    if within is not None:
        if out is not None:
            raise UsageError("drift: expected `within` or `out`, got both; select one stratum and write that")
        results = drift_strata(db, by, within, mode=mode, metric=metric, scaled=scaled, noise=noise)
        whole = drift(db, by, mode=mode, metric=metric, scaled=scaled, noise=False)
        together = align(results, whole["group"].values)
        together.attrs = {**whole.attrs, "within": group(db, within, mode).by}
        return together
    if out is not None:
        if noise:
            raise UsageError("drift: expected `noise` or `out`, got both; a matrix in blocks has no noise")
        Files.at(out).check_writable()
    matrix = _Matrix(Question.in_basis(db, by, mode, scaled=scaled), metric)
    if out is not None:
        return matrix.write(out)
    groups = matrix.question.groups
    if groups > IN_MEMORY_LIMIT:
        raise UsageError(
            f"drift: expected at most {IN_MEMORY_LIMIT:,} groups for a matrix in memory, got {groups:,}; "
            "say where to write it (`out`, on the command line -o)"
        )
    return matrix.in_memory(noise)


@formerly_positional("mode", "metric")
def drift_strata(
    db: AnyDatabase,
    by: Key,
    within: Key,
    *,
    mode: AnyMode = "sound",
    metric: AnyMetric = "kl",
    scaled: bool = True,
    noise: noises.Noise = None,
) -> dict[str, xr.Dataset]:
    """Return a drift result for each group of `within`, each with its own groups, noise and heatmap order."""
    views = strata(db, within, mode)
    return {
        label: drift(view, by, mode=mode, metric=metric, scaled=scaled, noise=noise) for label, view in views.items()
    }


@dataclass(frozen=True)
class _Matrix:
    """The drift of all pairs of a question's groups by a metric."""

    question: Question
    metric: Metric

    def judge(self, drift: np.ndarray, asked: noises.Noise) -> noises.Judged | None:
        """Return floors, verdict and interval of the matrix `drift`; None if there are none."""
        question = self.question
        cells = noises.cells(question.grouping.index, question.db.layers["model_index"].values)
        draws = noises.wanted(asked, question.mode, self.metric, np.bincount(cells.group))
        return noises.judge(question, self.metric, drift, cells, draws) if draws else None

    def in_memory(self, asked: noises.Noise = None) -> xr.Dataset:
        """Return the result in heatmap order."""
        question, metric = self.question, self.metric
        matrix = divergence.whole(question.groups, metric.block(question))
        # P1's heatmaps: ascending row mean, the zero diagonal included; deciles keep their order.
        order = np.arange(question.groups)
        if not question.grouping.ordered:
            order = np.argsort(matrix.mean(axis=1), kind="stable")
        result = self.without_matrix(order)
        result["drift"] = (("group", "other"), matrix[np.ix_(order, order)])
        result["probabilities"] = (("group", "component", "bin"), question.probabilities[order])
        blocks = metric.component_blocks(question, order) if question.groups <= PER_COMPONENT_LIMIT else []
        if blocks:
            parts = np.stack([divergence.whole(question.groups, block) for block in blocks])
            doc = {"long_name": f"{metric.name} of each component, unweighted"}
            result["per_component"] = (("component", "group", "other"), parts, doc)
            result.attrs["per_component_metric"] = metric.name
        judged = self.judge(matrix, asked)
        return result if judged is None else result.assign(noises.variables(judged, order))

    def write(self, out: str | os.PathLike[str]) -> xr.Dataset:
        """Write the result to a Zarr group of its own, the matrix block by block, and open it."""
        groups = self.question.groups
        result = self.without_matrix(slice(None))
        result["heatmap_order"] = ("group", np.zeros(groups, np.int64))
        target = matrix_store.create(out, result, "drift", ("group", "other"), divergence.BLOCK)
        means = divergence.fill(target.matrix, groups, self.metric.block(self.question))
        return target.finish("heatmap_order", np.argsort(np.argsort(means, kind="stable"), kind="stable"))

    def without_matrix(self, order: np.ndarray | slice) -> xr.Dataset:
        """Return all but the matrix, groups in the given order."""
        question = self.question
        histograms = question.snapshot_histograms
        outside = question.grouping.sums(question.of_view(histograms["underflow"] + histograms["overflow"]))
        on_edge = question.grouping.sums(question.of_view(histograms["on_edge"]))
        number = question.filters[order]
        coords = question.coords(order)
        return xr.Dataset(
            {
                "count": ("group", number),
                "few": ("group", number < FEW),
                "outside": (("group", "component"), outside[order]),
                "on_edge": (("group", "component"), on_edge[order], {"long_name": ON_EDGE}),
                "counts": (("group", "component", "bin"), question.counts[order]),
            },
            coords={
                "group": coords.pop("group"),
                "other": question.coords(order)["group"],
                **coords,
                "weights": ("component", question.weights),
                "bin_edges": ("edge", question.edges),
            },
            attrs=question.provenance(metric=self.metric.name, formula=self.metric.formula),
        )
