"""Make the objects of a segment's Zarr group, except the chunks of filters.

The group has the filters and what locates and labels them (`schema.IN_GROUP`), for readers of Zarr. filterdb reads the
tables from the segment's pack. An array with one value for all rows needs no objects: the value is its fill value, and
its metadata are among the group's.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from filterdb import schema
from filterdb.store.segment import Segment

CODECS: Any = [TransposeCodec(order=(1, 0)), BytesCodec(endian="little"), Crc32cCodec()]
"""The codecs of a chunk of filters."""


def group_objects(
    segment: Segment, tables: Mapping[str, np.ndarray], banks: Sequence[Segment] = ()
) -> dict[str, bytes]:
    """Return the objects of a segment's group by name, with a group below it for each of its banks."""
    buffers: dict[str, Buffer] = {}
    store = MemoryStore(buffers)
    group = zarr.open_group(store, mode="a", zarr_format=3)
    _fill(group, segment, tables, [variable for variable in schema.TABLES if variable.name in schema.IN_GROUP])
    _add_banks(store, banks, tables)
    _consolidate(store)
    return _needed(buffers)


def addition_objects(segment: Segment, banks: Sequence[Segment], tables: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Return the objects of the group of an addition to a segment by name: a group for each bank."""
    buffers: dict[str, Buffer] = {}
    store = MemoryStore(buffers)
    group = zarr.open_group(store, mode="a", zarr_format=3)
    group.attrs.put({"filterdb_format": schema.FORMAT, "adds_to": segment.id})
    _add_banks(store, banks, tables, f"variables of {segment.name}, along `model`")
    _consolidate(store)
    return _needed(buffers)


def _add_banks(
    store: MemoryStore,
    banks: Sequence[Segment],
    tables: Mapping[str, np.ndarray],
    models: str = "variables of the group above, along `model`",
) -> None:
    """Add a group for each bank, which says where the `models` are."""
    for bank in banks:
        name = schema.kernel_name(bank.kernel)
        group = zarr.open_group(store, path=name, mode="a", zarr_format=3)
        own = {variable.name: tables[schema.in_pack(name, variable.name)] for variable in schema.BANK_VARIABLES}
        _fill(group, bank, own, [variable for variable in schema.BANK_VARIABLES if variable.name in schema.IN_GROUP])
        group.attrs.update({"kernel": list(bank.kernel), "models": models})
        _consolidate(store, name)


def _fill(
    group: zarr.Group, segment: Segment, tables: Mapping[str, np.ndarray], variables: Sequence[schema.Variable]
) -> None:
    """Write the attributes of a group, the metadata of its filters, and table variables."""
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "featureType": "contiguous ragged array of filters by layer",
        "filterdb_format": schema.FORMAT,
        "segment": segment.id,
        "coordinates": " ".join(variable.name for variable in variables),
    }
    group.attrs.put(attributes)
    group.create_array(
        schema.FILTERS.name,
        shape=(segment.rows, segment.weights),
        chunks=(segment.chunk_rows, segment.weights),
        dtype=schema.FILTERS.dtype,
        filters=CODECS[:1],
        serializer=CODECS[1],
        compressors=CODECS[2:],
        fill_value=np.nan,
        dimension_names=schema.FILTERS.dims,
        attributes=schema.filters_attrs(segment.kernel),
    )
    for variable in variables:
        _write_table(group, variable, variable.array(tables[variable.name]))


def _consolidate(store: MemoryStore, path: str | None = None) -> None:
    with warnings.catch_warnings():
        # Zarr warns that version 3 does not specify consolidated metadata. Without it, xarray warns every reader.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store, path=path)


def _needed(buffers: Mapping[str, Buffer]) -> dict[str, bytes]:
    return {name: buffer.to_bytes() for name, buffer in buffers.items() if not _is_redundant(name, buffers)}


def _is_redundant(name: str, names: Collection[str]) -> bool:
    """Return whether an object has the metadata of an array without chunks, which the group's metadata repeat."""
    folder, _, last = name.rpartition("/")
    array = folder.rpartition("/")[2]
    is_group = not folder or f"{folder}/{schema.FILTERS.name}/zarr.json" in names
    is_filters = array == schema.FILTERS.name  # whose chunks are written later
    return last == "zarr.json" and not is_group and not is_filters and f"{folder}/c/0" not in names


def _write_table(group: zarr.Group, variable: schema.Variable, values: np.ndarray) -> None:
    """Write a table variable. One that has the same value everywhere is its fill value and needs no chunk."""
    is_constant = values.size > 0 and bool((values == values[0]).all())
    fill: dict[str, Any] = (
        {"fill_value": values[0].item() if variable.dtype != "str" else str(values[0])} if is_constant else {}
    )
    array = group.create_array(
        variable.name,
        shape=values.shape,
        chunks=(max(1, values.size),),
        dtype=str if variable.dtype == "str" else variable.dtype,
        compressors=[ZstdCodec(), Crc32cCodec()],
        **fill,
        dimension_names=variable.dims,
        attributes=variable.attrs,
    )
    if values.size and not is_constant:
        array[:] = values
