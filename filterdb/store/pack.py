"""Pack many small arrays into one object: a safetensors file, so that any reader of that format opens it.

Text becomes two or three tensors: `<name>/utf8` with the bytes of the values, `<name>/lengths` with their lengths in
bytes and, where values repeat, `<name>/codes` with the position of each row's value among them.

The header's metadata hold a SHA-256 of the whole object (with zeros in its place), so that damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from filterdb.errors import DamageError

_NAMES = {
    "|b1": "BOOL",
    "|u1": "U8",
    "<u2": "U16",
    "<u4": "U32",
    "<i8": "I64",
    "<f4": "F32",
    "<f8": "F64",
}
"""Names of dtypes in a safetensors header."""

_DTYPES = {name: np.dtype(text) for text, name in _NAMES.items()}

_SEAL = "sha256"
_EMPTY_SEAL = "0" * 64
_ALIGNMENT = 8


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Encode arrays of numbers or text (NumPy's variable-width strings). Equal arrays have equal bytes."""
    tensors: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        tensors |= _text_tensors(name, array.tolist()) if array.dtype.kind == "T" else {name: array}
    # Wide numbers first, so that every tensor is aligned in memory.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": {**metadata, _SEAL: _EMPTY_SEAL}}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        dtype = _NAMES[tensor.dtype.newbyteorder("<").str]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    parts = [np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes() for _, tensor in ordered]
    data = b"".join([len(text).to_bytes(8, "little"), text, *parts])
    return data.replace(_EMPTY_SEAL.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def decode(data: bytes, url: str, *, is_checked: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a pack. Raises DamageError if its bytes are not those that were encoded.

    `is_checked`: their digest was compared already, with that in a snapshot.
    """
    try:
        size = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:size])
        metadata: dict[str, str] = header.pop("__metadata__")
        seal = metadata.pop(_SEAL)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damage(url) from error
    if not is_checked and hashlib.sha256(data.replace(seal.encode(), _EMPTY_SEAL.encode(), 1)).hexdigest() != seal:
        raise _damage(url)
    tensors = {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        values = np.frombuffer(
            data, _DTYPES[tensor["dtype"]], (end - begin) // _DTYPES[tensor["dtype"]].itemsize, size + begin
        )
        tensors[name] = values.reshape(tensor["shape"])
    return _with_text(tensors), metadata


def _damage(url: str) -> DamageError:
    return DamageError(f"{url}: expected an object with its SHA-256, got damage; restore it from a copy")


def _text_tensors(name: str, values: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the tensors of a variable of text."""
    position = {value: code for code, value in enumerate(dict.fromkeys(values))}
    tensors = {}
    if 2 * len(position) <= len(values):
        dtype = np.min_scalar_type(max(len(position) - 1, 0))
        tensors[f"{name}/codes"] = np.fromiter((position[value] for value in values), dtype, len(values))
        values = list(position)
    encoded = [value.encode() for value in values]
    tensors[f"{name}/utf8"] = np.frombuffer(b"".join(encoded), np.uint8)
    tensors[f"{name}/lengths"] = np.fromiter(map(len, encoded), np.uint32, len(encoded))
    return tensors


def _with_text(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put variables of text together again."""
    arrays = {}
    for name, tensor in tensors.items():
        variable, _, part = name.rpartition("/")
        if part == "utf8" and variable:
            bounds = accumulate(tensors[f"{variable}/lengths"].tolist(), initial=0)
            data = tensor.tobytes()
            values = np.array([data[begin:end].decode() for begin, end in pairwise(bounds)], np.dtypes.StringDType())
            codes = tensors.get(f"{variable}/codes")
            arrays[variable] = values if codes is None else values[codes]
        elif part not in {"lengths", "codes"} or not variable:
            arrays[name] = tensor
    return arrays
