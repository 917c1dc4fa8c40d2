"""The first filters of some layers, read from a bounded number of chunks (P1 fig. 1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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
    picked = affordable_layers(db, chunks, layers=LAYERS, models=MODELS)
    if not len(picked):
        return None
    layers = db.layers
    return xr.Dataset(
        {"filters": (("layer", "number", "weight"), read_filters(db, picked, FILTERS))},
        coords={
            "layer": layers["layer"].values[picked],
            "layer_model": ("layer", layers["model"].values[picked]),
            "layer_name": ("layer", layers["layer_name"].values[picked]),
            "model_index": ("layer", layers["model_index"].values[picked]),
        },
        attrs=provenance(db, formula="P1 fig. 1"),
    )


def affordable_layers(
    db: Database, chunks: int, *, layers: int | None = None, models: int | None = None, only: int | None = None
) -> npt.NDArray[np.int64]:
    """Return layers whose first filters are in at most `chunks` chunks: all layers of a model, or none of them.

    At most the first `layers` of each model are taken, and at most `models` models, one of each family first, or `only`
    the one at this position of the snapshot.
    """
    segment, chunk, *_ = _places(db)
    index = db.layers["model_index"].values
    chosen: list[npt.NDArray[np.int64]] = []
    wanted: set[tuple[int, int]] = set()
    rows_of = np.split(np.argsort(index, kind="stable"), np.flatnonzero(np.diff(np.sort(index))) + 1)
    by_model = {int(index[rows[0]]): rows for rows in rows_of if len(rows)}
    for model in _varied(db) if only is None else [only]:
        of_model = by_model.get(model, np.empty(0, np.int64))[:layers]
        needs = set(zip(segment[of_model].tolist(), chunk[of_model].tolist(), strict=True))
        if len(wanted | needs) <= chunks:
            chosen.append(of_model)
            wanted |= needs
        if len(chosen) == models:
            break
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


def read_filters(db: Database, picked: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.float32]:
    """Read the first filters of some layers, (layers, most, weights), NaN where a layer has fewer.

    Each chunk is read once. Of a layer that begins near the end of a chunk, only the filters in that chunk are read.
    """
    segment, chunk, offset, left = _places(db)
    number = np.minimum(np.minimum(most, db.layers["row_size"].values), left)
    filters = np.full((len(picked), most, db.weights), np.nan, np.float32)
    for segment_number, chunk_number in sorted(set(zip(segment[picked].tolist(), chunk[picked].tolist(), strict=True))):
        rows = db.segments[segment_number].read_chunk(chunk_number)
        for i in np.flatnonzero((segment[picked] == segment_number) & (chunk[picked] == chunk_number)):
            layer = picked[i]
            filters[i, : number[layer]] = rows[offset[layer] : offset[layer] + number[layer]]
    return filters


def _places(db: Database) -> tuple[npt.NDArray[np.int64], ...]:
    """Return where each layer begins: its segment, chunk, row in the chunk, and the rows left in the chunk."""
    layers = db.layers
    starts = np.concatenate([[0], np.cumsum([segment.rows for segment in db.segments])])
    segment = layers["segment"].values
    row = layers["first_row"].values - starts[segment]
    chunk_rows = np.array([stored.chunk_rows for stored in db.segments])[segment]
    return segment, row // chunk_rows, row % chunk_rows, chunk_rows - row % chunk_rows


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
