"""Compute the quantiles of other models' layers over the depth, with which the layers of a model are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb.numerics.depth import DECILES, depth_decile
from filterdb.numerics.percentiles import SIZES
from filterdb.page.model_data import Band, band
from filterdb.schema import kernel_text

if TYPE_CHECKING:
    import xarray as xr

    from filterdb.analysis.reference import Reference
    from filterdb.columns import Columns

MEASURES = {"entropy": "variance_entropy", "sparsity": "sparsity"}
"""The measures that are drawn over the depth: their names in JavaScript and in results."""

Bands = dict[str, dict[str, Band]]
"""The bands of each measure, by the text of a kernel shape."""


def bands_of_layers(layers: Columns | xr.Dataset, kernel: tuple[int, int]) -> Bands:
    """Return the bands of the layers of a `degeneration` result."""
    tenth = depth_decile(layers["conv_depth_norm"].values)
    return {kernel_text(kernel): {key: band(tenth, layers[name].values) for key, name in MEASURES.items()}}


def bands_of_reference(reference: Reference) -> Bands:
    """Return the bands of the layers of a reference, whose values are quantiles where it had many layers."""
    bands: dict[str, Band] = {}
    for key, name in MEASURES.items():
        parts: list[list[Any]] = [[] for _ in DECILES]
        for kind, values in reference.values[name].items():
            if kind // SIZES < len(DECILES) and len(values):
                parts[kind // SIZES].append(np.repeat(values, max(1, round(reference.layers[kind] / len(values)))))
        values_of = [np.concatenate(part) if part else np.empty(0) for part in parts]
        tenth = np.repeat(np.arange(len(DECILES)), [len(values) for values in values_of])
        bands[key] = band(tenth, np.concatenate(values_of))
    return {kernel_text(reference.kernel): bands}
