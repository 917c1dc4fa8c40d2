"""Present the filters of a database as xarray: a lazy Dask array in the store's chunks, with labels of its filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from filterdb import schema
from filterdb.columns import Columns
from filterdb.errors import portable
from filterdb.extras import named_extras
from filterdb.store.segment import Segment

if TYPE_CHECKING:
    import xarray as xr


def dataset(
    segments: Sequence[Segment], columns: Columns, kernel: schema.Kernel, *, is_whole: bool, attrs: dict[str, Any]
) -> xr.Dataset:
    """Return the filters of layers, with their labels as coordinates; see `Database.dataset`.

    `is_whole`: they are all layers of the segments.
    """
    with named_extras():
        import dask.array as da  # takes 0.7 s, which commands and workers save
        import xarray as xr
        from dask.base import tokenize

    from filterdb.store.filter_index import FilterIndex

    layers = columns.to_dataset()
    weights = kernel[0] * kernel[1]
    parts = [
        da.map_blocks(
            _read_block,
            segment,
            chunks=(
                tuple(stop - start for start, stop in map(segment.bounds, range(segment.chunks))),
                weights,
            ),
            dtype=schema.FILTERS.dtype,
            meta=np.empty((0, 0), schema.FILTERS.dtype),
            name=f"filters-{tokenize(segment.files.root, segment.summarised_as)}",
        )
        for segment in segments
        if segment.rows
    ]
    if not parts:
        parts = [da.zeros((0, weights), dtype=schema.FILTERS.dtype)]
    filters = da.concatenate(parts)
    if not is_whole:
        ranges = [filters[start:stop] for start, stop in _row_ranges(layers)]
        filters = da.concatenate(ranges) if ranges else filters[:0]
    index = FilterIndex.of_layers(layers, schema.FILTERS.dims[0])
    return xr.Dataset(
        {schema.FILTERS.name: (schema.FILTERS.dims, filters, schema.filters_attrs(kernel))},
        coords=index.coordinates({name: layers[name].attrs for name in index.tables}),
        attrs=attrs,
    )


def _read_block(segment: Segment, *, block_id: tuple[int, int]) -> np.ndarray:
    """Read a chunk. The task opens it itself, so that the graph holds no open files."""
    try:
        return segment.read_chunk(block_id[0])
    except Exception as error:
        portable(error)
        raise


def _row_ranges(layers: xr.Dataset) -> list[tuple[int, int]]:
    """Return the ranges of rows of layers among all rows of the segments. Adjacent ranges are joined."""
    first, sizes = layers["first_row"].values, layers["row_size"].values
    ranges: list[tuple[int, int]] = []
    for start, stop in zip(first.tolist(), (first + sizes).tolist(), strict=True):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges
