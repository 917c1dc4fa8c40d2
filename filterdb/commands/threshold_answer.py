"""`filterdb randomness-threshold` as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from filterdb.commands.answer import Answer


def randomness_threshold(result: xr.Dataset) -> Answer:
    """Constants with their scatter beside P1's, and a row for each size. No database: what is of one is null."""
    constants = [str(name) for name in result["constant"].values]

    def named(variable: str) -> dict[str, Any]:
        return dict(zip(constants, result[variable].values.tolist(), strict=True))

    smallest = result["smallest"].values
    rows = zip(
        result["size"].values.tolist(),
        smallest.mean(axis=0).tolist(),
        result["threshold"].values.tolist(),
        result["paper_threshold"].values.tolist(),
        strict=True,
    )
    return {
        **dict.fromkeys(("snapshot", "selection", "filters", "layers", "models")),
        "init": result.attrs["init"],
        "draws": result.attrs["draws"],
        "repeats": result.sizes["repeat"],
        "seed": result.attrs["seed"],
        "constants": named("value"),
        "scatter": named("scatter"),
        "paper": named("paper"),
        "rms": float(np.sqrt(np.mean((smallest.mean(axis=0) - result["threshold"].values) ** 2))),
        "rows": [
            {"filters": size, "smallest_entropy": entropy, "threshold": fitted, "paper_threshold": paper}
            for size, entropy, fitted, paper in rows
        ],
    }
