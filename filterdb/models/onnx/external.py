"""Read a model's external data: which files hold its tensors, how long they must be, and a tensor's bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.external_data_helper import uses_external_data

from filterdb.models.data_files import open_inside
from filterdb.models.onnx.graph import text

MAX_RANK = 64
"""Most dimensions of an array (NumPy's limit)."""

PACKED_BITS = {
    **{"int2": 2, "uint2": 2, "int4": 4, "uint4": 4},
    **{"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6},
}
"""Bits per number of the types whose numbers are packed into bytes."""


def external_files(model: onnx.ModelProto) -> dict[str, int]:
    """Return the external data files that a model names, relative to its folder, and the bytes that each must have.

    A tensor with an invalid offset or length counts as 0 bytes, because the model is at fault, not the data file.
    """
    needed: dict[str, int] = {}
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            # Dots and slashes can give one file any number of names.
            name = str(PurePosixPath(text(_entries(tensor).get("location", ""))))
            needed[name] = max(needed.get(name, 0), _end(tensor))
    return needed


def external_length(tensor: onnx.TensorProto, folder: Path) -> int:
    """Return the number of bytes of a tensor's external data. Raises OSError or ValueError if it cannot be read."""
    handle = open_inside(folder, text(_entries(tensor).get("location", "")))
    try:
        _, length = _extent(tensor, os.fstat(handle).st_size)
        return length
    finally:
        os.close(handle)


def read_external(tensor: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    """Return a copy of the tensor that contains its external data. `tensor` is not changed, so the data can be freed.

    The file is opened once, by `open_inside`. (onnx's own reader rejects links.) Raises OSError or ValueError.
    """
    handle = open_inside(folder, text(_entries(tensor).get("location", "")))
    with os.fdopen(handle, "rb") as file:
        offset, length = _extent(tensor, os.fstat(handle).st_size)
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ValueError(f"external data that ends after {offset + len(data)} bytes, while it is read")
    return onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name, raw_data=data)


def _extent(tensor: onnx.TensorProto, size: int) -> tuple[int, int]:
    """Return offset and length of a tensor's data in a file of `size` bytes. Raises ValueError if they do not fit."""
    entries = _entries(tensor)
    offset = int(entries.get("offset", 0))
    length = int(entries.get("length", size - offset))
    if min(offset, length) < 0 or offset + length > size:
        raise ValueError(f"external data from {offset}, {length} bytes long, in a file of {size} bytes")
    return offset, length


def _end(tensor: onnx.TensorProto) -> int:
    """Return where a tensor's data ends in its file according to the model; 0 if the model states no valid number."""
    entries = _entries(tensor)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else packed_size(tensor)
    except (ValueError, KeyError, TypeError):
        return 0
    return offset + length if min(offset, length) >= 0 else 0


def packed_size(tensor: onnx.TensorProto) -> int:
    """Return the bytes of a tensor of this type and shape. Raises KeyError, TypeError or ValueError if invalid."""
    if len(tensor.dims) > MAX_RANK:
        raise ValueError(f"rank {len(tensor.dims):,}")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    bits = PACKED_BITS.get(dtype.name, 8 * int(dtype.itemsize))
    return -(-int(math.prod(tensor.dims)) * bits // 8)


def _entries(tensor: onnx.TensorProto) -> dict[str, Any]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of the graph, bodies and local functions, and the parts of sparse tensors."""
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        owner = pending.pop()
        yield from getattr(owner, "initializer", ())
        sparse = [*getattr(owner, "sparse_initializer", ())]
        for node in owner.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                    sparse.append(attribute.sparse_tensor)
                yield from attribute.tensors
                sparse += attribute.sparse_tensors
                pending += [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices
