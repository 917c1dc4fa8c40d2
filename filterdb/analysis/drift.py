"""Drift between groups: a divergence of their coefficient distributions, weighted by the components' variance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from filterdb.analysis import noise as noises
from filterdb.analysis.grouping import Grouping, Key, chosen, group, provenance, with_scale
from filterdb.errors import UsageError
from filterdb.numerics import divergence
from filterdb.numerics.histogram import EDGE_TOLERANCE
from filterdb.numerics.modes import AnyMode, as_mode
from filterdb.numerics.moments import pool
from filterdb.reduce.basis import Projection, basis_attributes, has_scale, layer_histograms, layer_moments, projection
from filterdb.store import matrix as matrix_store
from filterdb.store.database import AnyDatabase, Database, as_database
from filterdb.store.files import Files
from filterdb.store.summary import Arrays

METRICS = {
    "kl": "sum_i a_i (KL(P_i|Q_i) + KL(Q_i|P_i)), P1 eq. 5-6",
    "psi": "population stability index on the same bins: the same as kl",
    "js": "sum_i a_i JS(P_i, Q_i), nats",
    "hellinger": "sum_i a_i sqrt(1/2 sum (sqrt P_i - sqrt Q_i)^2)",
    "wasserstein": "sum_i a_i (bin width) sum |CDF_P - CDF_Q|",
    "frechet": "|m-m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2) of the filters' Gaussians, unweighted",
}
"""What each metric computes. `frechet` needs no histogram, the others the mode's probabilities."""

FEW = noises.FEW

ON_EDGE = f"filters within {EDGE_TOLERANCE:g} bin widths of an inner edge, counted in the bin above it"

PER_COMPONENT_LIMIT = 1_000
"""Up to this many groups a result of a metric on histograms has `per_component`."""

IN_MEMORY_LIMIT = 10_000
"""Up to this many groups (800 MB of them) the matrix is made in memory."""


def drift(
    db: AnyDatabase,
    by: Key,
    mode: AnyMode = "sound",
    metric: str = "kl",
    *,
    scaled: bool = True,
    within: Key | None = None,
    out: str | os.PathLike[str] | None = None,
    noise: noises.Noise = None,
) -> xr.Dataset:
    """Drift between all pairs of groups of the view's layers, in heatmap order.

    Dims: group, other, component, bin. Variables: drift (group, other), symmetric with zero diagonal; per_component
    (component, group, other), the same metric of each component, unweighted, named by the attribute
    per_component_metric (up to 1,000 groups; not of `frechet`, which is no sum over components); count (group);
    probabilities and counts (group, component, bin); few (group); outside and on_edge (group, component), filters
    outside the range, and filters within 1e-9 bin widths of an inner edge, which count in the bin above it.
    Coordinates: weights (component), bin_edges. Basis, weights, range and π are the snapshot's, whatever the view is.
    `mode`: "sound" or "paper" (method §0); `metric`: one of METRICS; `scaled` False: raw filters (P2 A.2), without
    layers whose scale is unknown; `within`: one matrix per stratum, along `stratum`, in the unstratified order (a group
    that a stratum lacks: NaN, an empty verdict).

    In `sound` mode with noise (docs/explanation/noise.md): floor and floor_q95 (group, other), mean and 95 %
    quantile of the drift that the numbers of filters alone make; model_floor and model_floor_q95 the same of
    permuted models, NaN where fewer than 20 permutations exist; permutations; verdict: "different",
    "indistinguishable", "few" (under 1,000 filters in a group) or, without any floor and on the diagonal, "";
    judged_by: "model", "few models" (by these, but they are so few that no drift can be "different"), "sampling" or
    ""; interval (group, other, bound), NaN with under 5 models or 1,000 filters in a group. `noise`: None where it
    takes seconds (up to 1,000 groups, 30 for metrics other than kl and psi, and 10 million permutations, such as
    6,000 pairs of groups of seven models), True in any case, False not at all, a number of permutations and draws
    of models other than 1,000. The same bytes each time.

    `out`: a path or URL at which nothing is yet. The matrix is written there, a Zarr group, block by block, and the
    result is opened from it, lazily by Dask: memory does not grow with the square of the groups. Its groups keep the
    order of the layers; `heatmap_order` (group) is their rank by row mean. Without `per_component`, `probabilities`
    and noise.

    On a new database the first answer in `sound` mode fits the basis on all filters and commits a snapshot that has it
    (action `reduce`), so that every later answer, by whoever asks, is in the same basis; no filter is rewritten, and
    the result names the new snapshot. Where the store cannot be written, the basis stays in memory.

    Raises UsageError for unknown names, for more than 10,000 groups without `out`, for noise asked of `paper` or `out`.
    """
    db, mode = as_database(db), as_mode(mode)
    if metric not in METRICS:
        raise UsageError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if within is not None:
        if out is not None:
            raise UsageError("drift: expected `within` or `out`, got both; select one stratum and write that")
        strata = drift_strata(db, by, within, mode, metric, scaled=scaled, noise=noise)
        whole = drift(db, by, mode, metric, scaled=scaled, noise=False)
        labels = whole["group"].values
        same = [
            one.reindex(
                group=labels,
                other=labels,
                fill_value={name: "" if values.dtype.kind == "U" else np.nan for name, values in one.data_vars.items()},
            )
            for one in strata.values()
        ]
        together = xr.concat(same, dim="stratum", combine_attrs="override").assign_coords(stratum=list(strata))
        together.attrs = {**whole.attrs, "within": group(db, within, mode).by}
        return together
    if out is not None:
        if noise:
            raise UsageError("drift: expected `noise` or `out`, got both; a matrix in blocks has no noise")
        Files.at(out).check_writable()
    db, found = projection(db, mode, scaled=scaled)
    db = with_scale(db, scaled=scaled)
    groups = Groups(db, group(db, by, mode), found, metric)
    if out is not None:
        return groups.write(out)
    if groups.number > IN_MEMORY_LIMIT:
        raise UsageError(
            f"drift: expected at most {IN_MEMORY_LIMIT:,} groups for a matrix in memory, got {groups.number:,}; "
            "say where to write it (`out`, on the command line -o)"
        )
    return groups.in_memory(noise)


def drift_strata(
    db: AnyDatabase,
    by: Key,
    within: Key,
    mode: AnyMode = "sound",
    metric: str = "kl",
    *,
    scaled: bool = True,
    noise: noises.Noise = None,
) -> dict[str, xr.Dataset]:
    """One drift result for each group of `within`, each with its own groups, noise and heatmap order."""
    db = as_database(db)
    strata = group(db, within, mode)
    return {
        label: drift(db.keep(strata.index == i, f"{strata.by} = {label}"), by, mode, metric, scaled=scaled, noise=noise)
        for i, label in enumerate(strata.labels)
    }


@dataclass(frozen=True)
class Groups:
    """The groups of a drift: what is known of each, and any block of the matrix."""

    db: Database
    grouping: Grouping
    found: Projection
    metric: str

    @property
    def number(self) -> int:
        return len(self.grouping.labels)

    @cached_property
    def histograms(self) -> Arrays:
        """Of the snapshot's layers."""
        return layer_histograms(self.db, self.found)

    @cached_property
    def counts(self) -> np.ndarray:
        """Filters in each bin, (groups, 9, 70) int64."""
        return self.grouping.sums(self.histograms["counts"][chosen(self.db)])

    @cached_property
    def whole(self) -> np.ndarray:
        """Filters of the whole snapshot in each bin, (9, 70)."""
        used = has_scale(self.db.whole, scaled=self.found.axes.scaled)
        total: np.ndarray = self.histograms["counts"].sum(axis=0, where=used[:, None, None])
        return total

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """The mode's probabilities of counts (…, 9, 70)."""
        return self.found.mode.probabilities(counts, self.whole, self.found.histograms.edges)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of each bin, (groups, 9, 70)."""
        return self.shares(self.counts)

    @property
    def width(self) -> float:
        """Of a bin."""
        return float(np.diff(self.found.histograms.edges).mean())

    @cached_property
    def block(self) -> divergence.Block:
        """Any part of the matrix."""
        if self.metric == "frechet":
            layers = layer_moments(self.db, scaled=self.found.axes.scaled).pick(chosen(self.db))
            states = pool(layers, self.grouping.index, self.number)
            return divergence.frechet(states.mean, states.covariance)
        return self._weighted(self.probabilities, self.found.weights)

    def _weighted(self, p: np.ndarray, weights: np.ndarray) -> divergence.Block:
        """Return any part of the matrix of a metric on probabilities (groups, components, 70)."""
        if self.metric == "wasserstein":
            return divergence.wasserstein(p, weights, self.width)
        of = {"kl": divergence.kl, "psi": divergence.kl, "js": divergence.js, "hellinger": divergence.hellinger}
        return of[self.metric](p, weights)

    @property
    def has_components(self) -> bool:
        """Whether the drift is a weighted sum over components, few enough groups to keep each summand."""
        return self.metric != "frechet" and self.number <= PER_COMPONENT_LIMIT

    def per_component(self, order: np.ndarray) -> np.ndarray:
        """Return the metric of each component alone, unweighted, (9, groups, groups)."""
        p = self.probabilities[order]
        parts = [
            divergence.whole(self.number, self._weighted(p[:, k : k + 1], np.ones(1)))
            for k in range(len(self.found.weights))
        ]
        return np.stack(parts)

    def noise(self, drift: np.ndarray, asked: noises.Noise) -> noises.Judged | None:
        """Floors, verdict and interval of the matrix `drift`; None where there are none."""
        found = noises.cells(self.grouping.index, self.db.layers["model_index"].values)
        draws = noises.wanted(asked, self.found.mode, self.metric, np.bincount(found.group))
        if not draws:
            return None
        if self.metric == "frechet":
            layers = layer_moments(self.db, scaled=self.found.axes.scaled).pick(chosen(self.db))
            return noises.of_moments(drift, found, layers, draws)
        counts = self.histograms["counts"][chosen(self.db)]
        weights = self.found.weights
        return noises.of_histograms(drift, self.metric, found, counts, self.whole, weights, self.width, draws)

    def in_memory(self, asked: noises.Noise = None) -> xr.Dataset:
        """The result in heatmap order."""
        matrix = divergence.whole(self.number, self.block)
        # P1's heatmaps: ascending row mean, the zero diagonal included; deciles keep their order.
        order = np.arange(self.number)
        if not self.grouping.ordered:
            order = np.argsort(matrix.mean(axis=1), kind="stable")
        result = self.described(order)
        result["drift"] = (("group", "other"), matrix[np.ix_(order, order)])
        result["probabilities"] = (("group", "component", "bin"), self.probabilities[order])
        if self.has_components:
            doc = {"long_name": f"{self.metric} of each component, unweighted"}
            result["per_component"] = (("component", "group", "other"), self.per_component(order), doc)
            result.attrs["per_component_metric"] = self.metric
        judged = self.noise(matrix, asked)
        return result if judged is None else result.assign(noises.variables(judged, order))

    def write(self, out: str | os.PathLike[str]) -> xr.Dataset:
        """The result in a Zarr group of its own, the matrix block by block."""
        result = self.described(slice(None))
        result["heatmap_order"] = ("group", np.zeros(self.number, np.int64))
        target = matrix_store.create(out, result, "drift", ("group", "other"), divergence.BLOCK)
        means = divergence.fill(target.matrix, self.number, self.block)
        return target.finish("heatmap_order", np.argsort(np.argsort(means, kind="stable"), kind="stable"))

    def described(self, order: np.ndarray | slice) -> xr.Dataset:
        """All but the matrix, groups in the given order."""
        db, grouping, found = self.db, self.grouping, self.found
        number = grouping.sums(db.layers["row_size"].values)[order]
        outside = grouping.sums((self.histograms["underflow"] + self.histograms["overflow"])[chosen(db)])
        on_edge = grouping.sums(self.histograms["on_edge"][chosen(db)])
        places = np.arange(self.number)[order]
        labels = [grouping.labels[i] for i in places]
        return xr.Dataset(
            {
                "count": ("group", number),
                "few": ("group", number < FEW),
                "outside": (("group", "component"), outside[order]),
                "on_edge": (("group", "component"), on_edge[order], {"long_name": ON_EDGE}),
                "counts": (("group", "component", "bin"), self.counts[order]),
            },
            coords={
                "group": labels,
                "other": labels,
                **{key: ("group", [part[i] for i in places]) for key, part in grouping.parts.items()},
                "weights": ("component", found.weights),
                "bin_edges": ("edge", found.histograms.edges),
            },
            attrs=provenance(
                db,
                by=grouping.by,
                mode=found.mode.name,
                metric=self.metric,
                formula=METRICS[self.metric],
                scaled=int(found.axes.scaled),
                range=found.histograms.edges[[0, -1]].tolist(),
                **basis_attributes(db, found),
            ),
        )
