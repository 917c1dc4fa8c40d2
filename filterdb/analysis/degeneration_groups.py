"""Summarise sparsity, entropy and verdicts of layers by group (P1 §4 and fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from filterdb.analysis.grouping import WHOLE, Grouping, Key, group
from filterdb.analysis.rules import VERDICTS, Rules
from filterdb.columns import Columns
from filterdb.numerics.box import STATISTICS, summary
from filterdb.numerics.modes import Mode
from filterdb.store.database import Database

DENSE = 0.01
"""Sparsity below which P1 §4 calls a layer hardly sparse."""

BOXES = {"entropy_box": "variance_entropy", "sparsity_box": "sparsity"}
"""Variables with the box of each group, and the measure of layers that each summarises."""


def group_layers(db: Database, by: Key | None, mode: Mode) -> Grouping:
    """Group the view's layers as `grouping.group` does, or return no group for a view without layers."""
    if not db.layer_columns.sizes["layer"]:
        return Grouping(WHOLE, [], np.zeros(0, np.int64), ordered=True)
    return group(db, by, mode)


def summarise(judged: Mapping[str, npt.NDArray[Any]], grouping: Grouping, rules: Rules) -> Columns:
    """Return the summaries of each group; `degeneration` documents them.

    `judged` has the measures and verdicts of the view's layers, (layers,) each. Layers without a known scale have NaN,
    and only `layer_count` counts them.
    """
    members = [np.flatnonzero(grouping.index == group) for group in range(len(grouping.labels))]
    known = [part[np.isfinite(judged["sparsity"][part])] for part in members]
    sparsity = [judged["sparsity"][part] for part in known]
    verdicts = np.array([[_mean(judged[name][part]) for name in VERDICTS] for part in known], np.float64)
    degenerated = np.any([judged[name] for name in VERDICTS], axis=0)
    return Columns.of(
        {
            "layer_count": ("group", np.array([len(part) for part in members], np.int64)),
            "mean_entropy": ("group", np.array([_mean(judged["variance_entropy"][part]) for part in known])),
            "mean_sparsity": ("group", np.array([_mean(values) for values in sparsity])),
            "share_dense": ("group", np.array([_mean(values < DENSE) for values in sparsity])),
            "share_sparse": ("group", np.array([_mean(values > rules.sparse) for values in sparsity])),
            "share_degenerated": ("group", np.array([_mean(degenerated[part]) for part in known])),
            "verdict_share": (("group", "rule"), verdicts.reshape(-1, len(VERDICTS))),
            **{
                name: (("group", "statistic"), summary(judged[measure][part] for part in members))
                for name, measure in BOXES.items()
            },
        },
        coords={
            "group": grouping.labels,
            "statistic": list(STATISTICS),
            **{key: ("group", labels) for key, labels in grouping.parts.items()},
        },
        attrs={},
    )


def _mean(values: npt.NDArray[Any]) -> float:
    """Return the mean, NaN of no values."""
    return float(values.mean()) if values.size else float("nan")
