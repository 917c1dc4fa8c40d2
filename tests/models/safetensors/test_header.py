"""What a safetensors file must say of itself; the library that defines the format is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from filterdb.errors import ModelError
from filterdb.models.safetensors.header import list_tensors
from filterdb.models.tensors import Tensor
from tests.models import weights


def tensors_of(path: Path) -> list[Tensor]:
    return list_tensors(lambda: path.open("rb"), path.stat().st_size, str(path))


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with any header: bytes as they are, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(first: int, last: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(last - first) // 4] if shape is None else shape, "data_offsets": [first, last]}


TYPES = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint16, np.uint32,
         np.uint64, np.bool_)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=lambda kind: kind.__name__)
def test_reads_what_the_library_wrote(tmp_path: Path, dtype: type[Any]) -> None:
    arrays = {"b": (100 * weights(4, 3, 1)).astype(dtype), "a": np.arange(7).astype(dtype), "empty": np.empty(0, dtype)}
    save_file(arrays, tmp_path / "m.safetensors")
    read = {tensor.key: tensor.read() for tensor in tensors_of(tmp_path / "m.safetensors")}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)],
)
def test_short_floats_are_exact(tmp_path: Path, name: str, dtype: Any) -> None:
    every = np.arange(256, dtype=np.uint8) if name.startswith("F8") else np.arange(65_536, dtype="<u2")
    path = write(tmp_path / "m.safetensors", {"w": entry(0, every.nbytes, [every.size], name)}, every.tobytes())
    (tensor,) = tensors_of(path)
    np.testing.assert_array_equal(tensor.read().astype(np.float32), every.view(dtype).astype(np.float32))


WRONG: dict[str, tuple[Any, bytes, int | None]] = {
    "shorter than a length": (b"", b"", 0),
    "a header longer than the file": ({}, b"", 10**9),
    "a header of 2^63 bytes": ({}, b"", 2**63),
    "a header that is no JSON": (b"{]", b"", None),
    "a header that is a list": (b"[]", b"", None),
    "a header that nests": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"", None),
    "no UTF-8": (b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), None),
    "a repeated key": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
                       b'"data_offsets":[0,4]}}', bytes(4), None),
    "an entry that is a number": ({"a": 1}, b"", None),
    "an entry without a shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4), None),
    "a negative size": ({"a": entry(0, 4, [-1])}, bytes(4), None),
    "a size that is true": ({"a": entry(0, 4, [True])}, bytes(4), None),
    "a size that is a fraction": ({"a": entry(0, 4, [1.0])}, bytes(4), None),
    "a size of 2^63": ({"a": entry(0, 4, [2**63])}, bytes(4), None),
    "sizes whose product wraps": ({"a": entry(0, 4, [2**62, 4])}, bytes(4), None),
    "offsets behind the end": ({"a": entry(0, 8)}, bytes(4), None),
    "offsets that go back": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4), None),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(8), None),
    "fewer bytes than the shape has": ({"a": entry(0, 4, [2])}, bytes(4), None),
    "tensors that overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), None),
    "the same bytes twice": ({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4), None),
    "a gap": ({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12), None),
    "bytes that no tensor has": ({"a": entry(0, 4)}, bytes(8), None),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_damaged_file_is_rejected_as_the_library_does(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "m.safetensors", *WRONG[what])
    with pytest.raises(ModelError, match=r"not a safetensors file: expected .*, got ") as caught:
        tensors_of(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    if what != "a repeated key":  # of which the library takes the last
        with pytest.raises(SafetensorError), safe_open(path, "np"):
            pass


def test_a_file_that_is_cut_off_is_called_that(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"a": entry(0, 8), "b": entry(8, 16)}, bytes(15))
    with pytest.raises(ModelError, match="expected 16 bytes of tensors as its header says, got 15: it is cut off"):
        tensors_of(path)


def test_a_header_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little") + b"{}")
        file.truncate(200_000_000)
    with pytest.raises(ModelError, match="a header of 2 to 100,000,000 bytes, got 100,000,001"):
        tensors_of(path)


def test_an_unknown_type_is_refused_only_where_it_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"a": entry(0, 4, [8], "F4"), "b": entry(4, 8)}, bytes(8))
    first, second = tensors_of(path)
    assert (first.dtype, second.read().tolist()) == ("F4", [0.0])
    with pytest.raises(Exception, match="dtype F4, which is not read"):
        first.read()
