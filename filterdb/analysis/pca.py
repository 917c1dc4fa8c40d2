"""PCA of any group of layers, from moments: equal to the full-rank SVD of its centred filters."""

from __future__ import annotations

import xarray as xr

from filterdb.analysis.grouping import Key, chosen, group, provenance, with_scale
from filterdb.numerics.eigen import decompose
from filterdb.numerics.moments import pool
from filterdb.reduce.basis import layer_moments
from filterdb.store.database import Database


def pca(db: Database, by: Key | None = None, *, scaled: bool = True) -> xr.Dataset:
    """Mean, covariance and principal components of the view's filters, whole or by group.

    Dims: group, component, weight, other (weight). Variables, float64: count (int64), mean, covariance (n − 1 in the
    denominator), components (rows; the entry of largest magnitude is positive), explained_variance,
    explained_variance_ratio, singular_values (of the centred n×9 matrix). `scaled`: of filters divided by their
    max |w| (P1 eq. 9), else raw, without the layers whose scale is unknown. Always fitted on what it is asked about.
    Source: P1 eq. 1 to 4.
    """
    db = with_scale(db, scaled=scaled)
    grouping = group(db, by)
    layers = layer_moments(db, scaled=scaled)
    states = pool(layers.pick(chosen(db)), grouping.index, len(grouping.labels))
    basis = decompose(states)
    return xr.Dataset(
        {
            "count": ("group", states.count),
            "mean": (("group", "weight"), basis.mean),
            "covariance": (("group", "weight", "other"), states.covariance),
            "components": (("group", "component", "weight"), basis.components),
            "explained_variance": (("group", "component"), basis.explained_variance),
            "explained_variance_ratio": (("group", "component"), basis.explained_variance_ratio),
            "singular_values": (("group", "component"), basis.singular_values),
        },
        coords={"group": grouping.labels, **{key: ("group", part) for key, part in grouping.parts.items()}},
        attrs=provenance(
            db,
            by=grouping.by,
            mode="sound",
            scaled=int(scaled),
            sign_rule="component",
            formula="P1 eq. 1-4; eigh of m2/(n-1)",
        ),
    )
