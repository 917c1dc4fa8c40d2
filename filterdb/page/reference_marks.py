"""Drifts that readers know: two trainings of one network and two architectures, as marks on the page's ruler of D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filterdb.page.results import Results, family_of_models
from filterdb.plotting.box_numbers import pairs
from filterdb.schema import KERNEL, UNKNOWN

TRAININGS, ARCHITECTURES = "two trainings of one net", "two architectures"

MEASURED = {
    TRAININGS: (0.0055, "11 pairs of seeds of small ResNets and VGGs, trained on digits"),
    ARCHITECTURES: (0.2, "5 pairs of the demo's models from different families"),
}
"""Median drift between real networks of 3×3 filters, for databases without such pairs: docs/explanation/noise.md."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Hold a reference value of D, and the pairs that it is the median of."""

    label: str
    value: float
    source: str


def reference_marks(results: Results) -> list[Mark]:
    """Return the marks: medians of this database's pairs, else of networks that were measured, else none."""
    own = {TRAININGS: _trainings(results), ARCHITECTURES: _architectures(results)}
    marks = []
    for label, values in own.items():
        if len(values):
            count = f"{len(values):,} such pair{'' if len(values) == 1 else 's'}"
            marks.append(Mark(label, float(np.median(values)), f"median of {count} in this database"))
        elif results.db.kernel == KERNEL:
            value, source = MEASURED[label]
            marks.append(Mark(label, value, f"median of {source}; this database has no such pairs"))
    return marks


def _trainings(results: Results) -> np.ndarray:
    """Return the drift of each pair of seeds of one recipe, (pairs,)."""
    series, _ = results.trainings
    values: np.ndarray = np.empty(0) if series is None else series["pair_drift"].values
    return values[np.isfinite(values)]


def _architectures(results: Results) -> np.ndarray:
    """Return the drift of each pair of models of different families, both with enough filters, (pairs,)."""
    result = results.drifts.get("model")
    if result is None:
        return np.empty(0)
    family = family_of_models(results.db, result)
    known = (family != UNKNOWN) & ~result["few"].values
    values: np.ndarray = pairs(result["drift"].values)[
        pairs((family[:, None] != family) & known[:, None] & known).astype(bool)
    ]
    return values[np.isfinite(values)]
