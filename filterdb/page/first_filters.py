"""The first filters of some layers, read from a bounded number of chunks (P1 fig. 1)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from filterdb.analysis.grouping import provenance
from filterdb.store.database import Database

FILTERS, LAYERS, MODELS, CHUNKS = 12, 48, 12, 8
"""Most filters of a layer, layers of a model and models that are shown, and most chunks that are read for them."""


def first_filters(db: Database, *, chunks: int = CHUNKS) -> xr.Dataset | None:
    """Read the first filters of the first layers of some models, one of each family first (P1 fig. 1).

    Returns filters (layer, number, weight), NaN where a layer has fewer, with coordinates layer_model, layer_name and
    model_index (layer). At most `chunks` chunks are read; returns None if a single model would take more.
    """
    layers = db.layers
    starts = np.concatenate([[0], np.cumsum([segment.rows for segment in db.segments])])
    segment = layers["segment"].values
    row = layers["first_row"].values - starts[segment]
    chunk_rows = np.array([stored.chunk_rows for stored in db.segments])[segment]
    chunk = row // chunk_rows
    number = np.minimum(np.minimum(FILTERS, layers["row_size"].values), (chunk + 1) * chunk_rows - row)
    chosen: list[np.ndarray] = []
    wanted: set[tuple[int, int]] = set()
    for model in _varied(db):
        of_model = np.flatnonzero(layers["model_index"].values == model)[:LAYERS]
        needs = set(zip(segment[of_model].tolist(), chunk[of_model].tolist(), strict=True))
        if len(wanted | needs) <= chunks:
            chosen.append(of_model)
            wanted |= needs
        if len(chosen) == MODELS:
            break
    if not chosen:
        return None
    picked = np.concatenate(chosen)
    filters = np.full((len(picked), FILTERS, db.weights), np.nan, np.float32)
    for segment_number, chunk_number in sorted(wanted):
        rows = db.segments[segment_number].read_chunk(chunk_number)
        for i in np.flatnonzero((segment[picked] == segment_number) & (chunk[picked] == chunk_number)):
            layer = picked[i]
            first = int(row[layer] - chunk_number * chunk_rows[layer])
            filters[i, : number[layer]] = rows[first : first + number[layer]]
    return xr.Dataset(
        {"filters": (("layer", "number", "weight"), filters)},
        coords={
            "layer": layers["layer"].values[picked],
            "layer_model": ("layer", layers["model"].values[picked]),
            "layer_name": ("layer", layers["layer_name"].values[picked]),
            "model_index": ("layer", layers["model_index"].values[picked]),
        },
        attrs=provenance(db, formula="P1 fig. 1"),
    )


def _varied(db: Database) -> list[int]:
    """Return the view's models, the largest of each family first, then the next of each."""
    layers = db.layers
    index = layers["model_index"].values
    models, first = np.unique(index, return_index=True)
    filters = np.bincount(index, layers["row_size"].values)[models]
    family = layers["family"].values.astype(str)[first]
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for i in np.argsort(-filters, kind="stable"):
        turn[family[i]] = turn.get(family[i], 0) + 1
        ranked.append((turn[family[i]], len(ranked), int(models[i])))
    return [model for *_, model in sorted(ranked)]
