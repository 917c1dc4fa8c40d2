"""What is given in the place of an ONNX model is called what it is, with the remedy, in one short line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

import filterdb as fdb
from filterdb.errors import ModelError
from filterdb.models.catalog import ModelSource
from filterdb.models.file_kinds import KINDS, recognise
from filterdb.models.formats import MAX_XML_BYTES
from filterdb.models.onnx.graph import parse
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan
from tests.models import chain, conv, model, tensor, weights


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/").replace("_DOT_", "."), data)
    return buffer.getvalue()


def tarred(name: str = "m.onnx") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def numpy_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    return buffer.getvalue()


def hdf5(*names: str) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in names or ("weights",):
            file[name] = np.ones(3)
    return buffer.getvalue()


def safetensors(metadata: bool) -> bytes:
    head = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps({"__metadata__": {"format": "pt"}, **head} if metadata else head).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    length, size = b"", len(data)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


# A TensorFlow NodeDef has name = 1, op = 2; GraphDef node = 1; MetaGraphDef meta_info_def = 1, graph_def = 2.
GRAPH_DEF = field(1, field(1, b"input") + field(2, b"Placeholder")) * 30
SAVED_MODEL = b"\x08\x01" + field(2, field(1, field(2, b"op" * 100)) + field(2, GRAPH_DEF))

WHOLE = model([conv("x", "w", "y")], [tensor("w", weights())]).SerializeToString()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"

FILES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "an empty file", "download"),
    "lfs": (LFS, "a Git LFS pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--a.onnx\n", "a git-annex pointer", "git annex get"),
    "torch": (zipped(archive__data_DOT_pkl=b"\x80\x02}.", archive__version=b"3"), "a PyTorch checkpoint", "torch.save"),
    "torchscript": (zipped(m__code=bytes(9_000), m__constants_DOT_pkl=b")."), "a PyTorch checkpoint", "torch.save"),
    "torch, many storages": (
        zipped(**{f"archive__data__{i}": bytes(8) for i in range(99)}, archive__data_DOT_pkl=b"\x80\x02}q\0."),
        "a PyTorch checkpoint",
        "torch.save",
    ),
    "torch before 1.6": (
        b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})),
        "a PyTorch checkpoint",
        "torch.save",
    ),
    "torch before 0.2": (tarred("sys_info"), "a PyTorch checkpoint before 0.2 (tar)", "save it again"),
    "exported program": (
        zipped(m__archive_format=b"pt2", m__models__model_DOT_json=b"{}"),
        "an exported PyTorch program (.pt2)",
        "state_dict",
    ),
    "exported program of torch 2.1": (
        zipped(serialized_exported_program_DOT_json=b"{}", version=b"1"),
        "an exported PyTorch program (.pt2)",
        "state_dict",
    ),
    "executorch": (b"\x30\0\0\0ET12" + bytes(100), "an ExecuTorch program (.pte)", "made from"),
    "pickle": (pickle.dumps({"w": [1.0]}), "a pickle", "run code"),
    "old pickle": (pickle.dumps({"w": [1.0]}, 2), "a pickle", "run code"),
    "keras 3": (zipped(metadata_DOT_json=b"{}", model_DOT_weights_DOT_h5=hdf5()), "a Keras model", "download"),
    "keras 3, weights": (hdf5("layers/conv2d/vars/0"), "a Keras model", "download"),
    "keras 2": (hdf5("model_weights/conv2d/conv2d/kernel:0"), "a Keras model", "download"),
    "zipped saved model": (zipped(m__saved_model_DOT_pb=b""), "a TensorFlow SavedModel", "unpack"),
    "npz": (npz(), "a NumPy archive", "ONNX"),
    "npy": (numpy_array(), "a NumPy array", "ONNX"),
    "zip": (zipped(m_DOT_onnx=WHOLE), "a zip archive", "unpack"),
    "empty zip": (zipped(), "a zip archive", "unpack"),
    "gzip": (gzip.compress(WHOLE), "a gzip archive", "unpack"),
    "tar.gz": (gzip.compress(tarred()), "a gzip archive", "unpack"),
    "tar": (tarred(), "a tar archive", "unpack"),
    "xz": (lzma.compress(WHOLE), "an xz archive", "unpack"),
    "bz2": (bz2.compress(WHOLE), "a bzip2 archive", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(100), "a 7z archive", "unpack"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "a Zstandard archive", "unpack"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(100), "an LZ4 archive", "unpack"),
    "rar": (b"Rar!\x1a\x07\1\0" + bytes(100), "a RAR archive", "unpack"),
    "safetensors": (safetensors(False), "a safetensors file", "download"),
    "safetensors with metadata": (safetensors(True), "a safetensors file", "download"),
    "hdf5": (hdf5(), "an HDF5 file", "Keras"),
    "published": (hdf5("meta", "filters"), "the published data set", "import-hdf5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "a TensorFlow Lite model", "convert it again"),
    "ort": (b"\x1c\0\0\0ORTM" + bytes(100), "an ONNX Runtime (.ort) model", "made from"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(100), "a GGUF file", "ONNX"),
    "tensorrt": (b"ftrt" + bytes(100), "a TensorRT engine", "made from"),
    "saved model": (SAVED_MODEL, "a TensorFlow SavedModel", "tf2onnx"),
    "frozen graph": (GRAPH_DEF, "a TensorFlow graph", "tf2onnx"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="m" version="11">\n\t<layers>', "an OpenVINO model", "made from"),
    "openvino without a head": (b'<net name="m" version="11"><layers>', "an OpenVINO model", "made from"),
    "a network of roads": (b'<?xml version="1.0"?>\n<net version="1.9">\n<location/>', "an XML page", "download"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page", "download"),
    "html in capitals": (b"\n  <HTML>\n<HEAD>", "an HTML page", "download"),
    "html after a comment": (b"\xef\xbb\xbf<!-- a -->\n<html lang=en>", "an HTML page", "download"),
    "s3 error": (b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "an XML page", "download"),
    "shards": (b'{"metadata": {"total_size": 1}, "weight_map": {"w": "a.bin"}}', "an index of shards", "download"),
    "json": (b'{"error": "Repository not found"}', "JSON", "download"),
    "json, pretty": (b'[\n  {"a": 1}\n]', "JSON", "download"),
    "textproto": (b'ir_version: 8\ngraph { node { op_type: "Conv" } }\n', "an ONNX model as text", "onnx.save"),
    "text": (b"Entry not found\n", "text", "download"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_it_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    data, name, remedy = FILES[kind]
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with path.open("rb") as file:
        recognised = recognise(file)
    assert recognised is not None and recognised.name == name
    with pytest.raises(ModelError) as caught:
        parse(path)
    said = str(caught.value).replace(str(path), "m.onnx")
    assert said.startswith("m.onnx: not an ONNX model: expected ") and f"got {name}; " in said and remedy in said
    assert len(said) < 200 and "\n" not in said


def test_every_kind_is_tried() -> None:
    assert {kind.name for kind in KINDS} == {name for _, name, _ in FILES.values()}


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_damaged_model_is_shown_as_it_begins(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE[:cut])
    with pytest.raises(ModelError, match=rf"got {cut} bytes beginning with b'"):
        parse(path)


def test_no_model_is_taken_for_something_else(tmp_path: Path, demo_catalog: Path) -> None:
    """Real ones, and small ones of every IR version and producer."""
    paths = [*demo_catalog.parent.rglob("*.onnx"), chain(tmp_path / "small.onnx", weights())]
    for version in range(1, 14):
        for producer in ("", "pytorch", "{", "skl2onnx"):
            proto = onnx.ModelProto.FromString(WHOLE)
            proto.ir_version, proto.producer_name = version, producer
            path = tmp_path / f"{version}-{len(paths)}.onnx"
            path.write_bytes(proto.SerializeToString())
            paths.append(path)
    assert len(paths) > 52
    for path in paths:
        with path.open("rb") as file:
            assert recognise(file) is None, path


def test_text_called_like_a_checkpoint(tmp_path: Path) -> None:
    """What its name says is what the user meant."""
    path = tmp_path / "net.pt"
    path.write_text("weights will follow")
    with pytest.raises(fdb.errors.InputError, match=r"net\.pt: not a \.pt file: got text; download the file itself"):
        fdb.ingest(tmp_path / "db", [path])


def test_xml_beyond_the_limit_is_not_even_hashed(tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    with path.open("wb") as file:
        file.write(b'<?xml version="1.0"?>\n<net name="a" version="11">\n\t<layers>')
        file.truncate(MAX_XML_BYTES + 1)
    result = scan(ModelSource("net", str(path)), None, Limits())
    assert result.rejected == f"{path}: OpenVINO file is 134,217,729 bytes; the limit is 134,217,728; leave it out"
    assert result.file_hash == ""
