"""Drift between groups: a divergence of their coefficient distributions, weighted by the components' variance."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import Grouping, Key, chosen, group, provenance, with_scale
from filterdb.errors import UsageError
from filterdb.numerics import divergence
from filterdb.numerics.histogram import paper_probabilities, sound_probabilities
from filterdb.numerics.moments import Moments, pool
from filterdb.reduce.basis import Projection, has_scale, layer_histograms, layer_moments, moved, projection
from filterdb.store.database import Database

METRICS = {
    "kl": "sum_i a_i (KL(P_i|Q_i) + KL(Q_i|P_i)), P1 eq. 5-6",
    "psi": "population stability index on the same bins: the same as kl",
    "js": "sum_i a_i JS(P_i, Q_i), nats",
    "hellinger": "sum_i a_i sqrt(1/2 sum (sqrt P_i - sqrt Q_i)^2)",
    "wasserstein": "sum_i a_i (bin width) sum |CDF_P - CDF_Q|",
    "frechet": "|m-m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2) of the filters' Gaussians, unweighted",
}
"""What each metric computes. `frechet` needs no histogram, the others the mode's probabilities."""

FEW = 1_000
"""Groups with fewer filters are flagged in `sound` mode."""

PER_COMPONENT_LIMIT = 1_000
"""Up to this many groups a result has `per_component` as well."""


def drift(
    db: Database,
    by: Key,
    mode: str = "sound",
    metric: str = "kl",
    *,
    scaled: bool = True,
    within: Key | None = None,
) -> xr.Dataset:
    """Drift between all pairs of groups of the view's layers, in heatmap order.

    Dims: group, other, component, bin. Variables: drift (group, other), symmetric with zero diagonal; per_component
    (component, group, other), the unweighted symmetric KL of each (up to 1,000 groups); count (group); probabilities
    and counts (group, component, bin); few (group). Coordinates: weights (component), bin_edges. Basis, weights,
    range and π are the snapshot's, whatever the view is. `mode`: "sound" or "paper" (method §0); `metric`: one of
    METRICS; `scaled` False: raw filters (P2 A.2), without layers whose scale is unknown; `within`: one matrix per
    stratum, along `stratum`, in the unstratified order (a group that a stratum lacks: NaN).

    Raises UsageError for unknown names.
    """
    if metric not in METRICS:
        raise UsageError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if within is not None:
        strata = drift_strata(db, by, within, mode, metric, scaled=scaled)
        whole = drift(db, by, mode, metric, scaled=scaled)
        labels = whole["group"].values
        same = [one.reindex(group=labels, other=labels) for one in strata.values()]
        together = xr.concat(same, dim="stratum", combine_attrs="override").assign_coords(stratum=list(strata))
        together.attrs = {**whole.attrs, "within": group(db, within, mode).by}
        return together
    db, found = projection(db, mode, scaled=scaled)
    db = with_scale(db, scaled=scaled)
    grouping = group(db, by, mode)
    histograms = layer_histograms(db, found)
    counts = grouping.sums(histograms["counts"][chosen(db)])
    outside = grouping.sums((histograms["underflow"] + histograms["overflow"])[chosen(db)])
    p = _probabilities(counts, histograms["counts"][has_scale(db.whole, scaled=scaled)].sum(axis=0), found)
    if metric == "frechet":
        matrix = _frechet(pool(layer_moments(db, scaled=scaled).pick(chosen(db)), grouping.index, len(grouping.labels)))
    else:
        matrix = _weighted(p, found, metric)
    return _result(db, grouping, found, matrix, p, counts, outside, metric)


def drift_strata(
    db: Database, by: Key, within: Key, mode: str = "sound", metric: str = "kl", *, scaled: bool = True
) -> dict[str, xr.Dataset]:
    """One drift result for each group of `within`, each with its own groups and heatmap order."""
    strata = group(db, within, mode)
    return {
        label: drift(db.keep(strata.index == i, f"{strata.by} = {label}"), by, mode, metric, scaled=scaled)
        for i, label in enumerate(strata.labels)
    }


def _probabilities(counts: np.ndarray, whole: np.ndarray, found: Projection) -> np.ndarray:
    if found.mode == "paper":
        return paper_probabilities(counts, found.histograms.edges)
    return sound_probabilities(counts, whole)


def _weighted(p: np.ndarray, found: Projection, metric: str) -> np.ndarray:
    if metric == "wasserstein":
        width = float(np.diff(found.histograms.edges).mean())
        return divergence.wasserstein(p, found.weights, width)
    weighted = {
        "kl": divergence.kl,
        "psi": divergence.kl,
        "js": divergence.js,
        "hellinger": divergence.hellinger,
    }
    return weighted[metric](p, found.weights)


def _frechet(states: Moments) -> np.ndarray:
    return divergence.frechet(states.mean, states.covariance)


def _result(
    db: Database,
    grouping: Grouping,
    found: Projection,
    matrix: np.ndarray,
    p: np.ndarray,
    counts: np.ndarray,
    outside: np.ndarray,
    metric: str,
) -> xr.Dataset:
    # P1's heatmaps: ascending row mean, the zero diagonal included; deciles keep their order.
    order = np.arange(len(matrix)) if grouping.ordered else np.argsort(matrix.mean(axis=1), kind="stable")
    number = grouping.sums(db.layers["row_size"].values)[order]
    data = {
        "drift": (("group", "other"), matrix[np.ix_(order, order)]),
        "count": ("group", number),
        "few": ("group", number < FEW),
        "outside": (("group", "component"), outside[order]),
        "probabilities": (("group", "component", "bin"), p[order]),
        "counts": (("group", "component", "bin"), counts[order]),
    }
    if len(matrix) <= PER_COMPONENT_LIMIT:
        one = np.eye(p.shape[1])
        parts = [divergence.kl(p[order], weights) for weights in one]
        data["per_component"] = (("component", "group", "other"), np.stack(parts))
    labels = [grouping.labels[i] for i in order]
    basis = db.basis if found.id is not None else None
    return xr.Dataset(
        data,
        coords={
            "group": labels,
            "other": labels,
            **{key: ("group", [part[i] for i in order]) for key, part in grouping.parts.items()},
            "weights": ("component", found.weights),
            "bin_edges": ("edge", found.histograms.edges),
        },
        attrs=provenance(
            db,
            by=grouping.by,
            mode=found.mode,
            metric=metric,
            formula=METRICS[metric],
            scaled=int(found.axes.scaled),
            range=found.histograms.edges[[0, -1]].tolist(),
            basis=found.id,
            basis_fitted_on=found.fitted_on,
            basis_moved=None if basis is None else json.dumps(moved(db, basis)),
            sign_rule=found.sign_rule,
        ),
    )
