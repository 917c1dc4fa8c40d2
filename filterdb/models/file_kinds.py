"""Recognise what kind of file was given where an ONNX model was expected, from its first and last bytes.

To add a kind, add a line to KINDS. Nothing is parsed; the bytes are only matched against patterns.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 4096
"""Bytes that are read from the start of a file."""

TAIL_BYTES = 65_536
"""Bytes that are read from the end of a zip file, where it lists its members, or further on in an HDF5 file."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: its name with an article, what the user can do with it, and how it is recognised.

    `head` must match at the start of the file, and `tail` among the member names at the end of a zip file, or further
    on in an HDF5 file. `format` names the `formats.Format` that reads the kind; empty if none does.
    """

    name: str
    remedy: str
    head: re.Pattern[bytes]
    tail: re.Pattern[bytes] | None = None
    format: str = ""


def _kind(name: str, remedy: str, head: bytes, tail: bytes | None = None, *, read_as: str = "") -> FileKind:
    return FileKind(name, remedy, re.compile(head, re.DOTALL), None if tail is None else re.compile(tail), read_as)


_ZIP = rb"PK(\x03\x04|\x05\x06)"
_HDF5 = rb"\x89HDF\r\n\x1a\n"
# Names of what Keras 2 and 3 write first: attributes of the root, or its groups.
_KERAS = rb"keras_version|layer_names|model_weights|_layer_checkpoint_dependencies|layers\0|vars\0"
_PUBLISHED = rb"(?s:meta\0.{0,40}filters?\0|filters?\0.{0,40}meta\0)"
_TEXT = rb"(?i:(\xef\xbb\xbf)?\s*"
_ONNX_TEXT = _TEXT + rb"(ir_version|producer_name|graph|opset_import)\s*[:{])"
# Before PyTorch 1.6 a checkpoint was several pickles, of which the first is a magic number.
_TORCH_BEFORE_1_6 = rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# Before 0.2 it was a tar archive.
_TORCH_BEFORE_0_2 = rb"(\./)?(sys_info|pickle|storages|tensors)\0.{242,250}ustar"
# A pickle of protocol 2 or later.
_PICKLE = rb"\x80[\x02-\x05](\x95.{8}|[(\]}cXKqlU\x8a-\x8e])"
# Networks of roads (SUMO) are called net too.
_OPENVINO = _TEXT + rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<net\b[^>]*>\s*(<!--.*?-->\s*)?<layers\b)"
_GRAPH_DEF = rb"\x0a[\x80-\xff]*[\0-\x7f]\x0a.[\x20-\x7e]+\x12.[A-Z][A-Za-z0-9]+"
_EXPORT = "export the model to ONNX"
_AGAIN = "download it, or save it with torch.save, again"
_STATE = "save the module's weights instead: torch.save(module.state_dict(), …)"
_UNPACK = "unpack it and give the .onnx file inside"
_FETCH = "download the file itself (check its URL and your rights)"

KINDS: tuple[FileKind, ...] = (
    _kind("an empty file", "download or export it again", rb"\Z"),
    _kind("a Git LFS pointer", "run `git lfs pull` to get the file", rb"version https://(git-lfs|hawser)\.github\.com/spec/"),
    _kind("a git-annex pointer", "run `git annex get`", rb"/annex/objects/"),
    _kind("an exported PyTorch program (.pt2)", _STATE, _ZIP, rb"serialized_exported_program\.json|/archive_format"),
    _kind("a PyTorch checkpoint", _AGAIN, _ZIP, rb"data\.pkl|/constants\.pkl", read_as="PyTorch"),
    _kind("a Keras model", "download or save it again", _ZIP, rb"model\.weights\.(h5|npz)", read_as="Keras"),
    _kind("a TensorFlow SavedModel", f"unpack it and {_EXPORT} (tf2onnx --saved-model)", _ZIP, rb"saved_model\.pb"),
    _kind("a NumPy archive", _EXPORT, _ZIP, rb"\.npyPK"),
    _kind("a zip archive", _UNPACK, _ZIP),
    _kind("a gzip archive", _UNPACK, rb"\x1f\x8b"),
    _kind("a bzip2 archive", _UNPACK, rb"BZh[1-9]1AY&SY"),
    _kind("an xz archive", _UNPACK, rb"\xfd7zXZ\0"),
    _kind("a Zstandard archive", _UNPACK, rb"\x28\xb5\x2f\xfd"),
    _kind("an LZ4 archive", _UNPACK, rb"\x04\x22\x4d\x18"),
    _kind("a 7z archive", _UNPACK, rb"7z\xbc\xaf\x27\x1c"),
    _kind("a RAR archive", _UNPACK, rb"Rar!\x1a\x07"),
    _kind("a PyTorch checkpoint before 0.2 (tar)", "load it in PyTorch and save it again", _TORCH_BEFORE_0_2),
    _kind("a tar archive", _UNPACK, rb".{257}ustar"),
    _kind("a safetensors file", "download or save it again", rb".{6}\0\0\{\s*[\"}]", read_as="safetensors"),
    _kind("the published data set", "use `filterdb import-hdf5`", _HDF5, _PUBLISHED),
    _kind("a Keras model", "download or save it again", _HDF5, _KERAS, read_as="Keras"),
    _kind("an HDF5 file", "give a model that Keras saved; for the published data set: `filterdb import-hdf5`", _HDF5),
    _kind("a TensorFlow Lite model", "download or convert it again", rb".{4}TFL3", read_as="TensorFlow Lite"),
    _kind("an ONNX Runtime (.ort) model", "give the .onnx file that it was made from", rb".{4}ORTM"),
    _kind("an ExecuTorch program (.pte)", "give the checkpoint that it was made from", rb".{4}ET\d\d"),
    _kind("a TensorRT engine", "give the .onnx file that it was made from", rb"(ftrt|ptrt)"),
    _kind("a GGUF file", _EXPORT, rb"GGUF"),
    _kind("a NumPy array", _EXPORT, rb"\x93NUMPY"),
    _kind("a PyTorch checkpoint", _AGAIN, _TORCH_BEFORE_1_6, read_as="PyTorch"),
    _kind("a pickle", f"{_EXPORT}: a pickle may run code and is not opened", _PICKLE),
    _kind("a TensorFlow SavedModel", f"{_EXPORT} (tf2onnx --saved-model)", rb"\x08\x01\x12[\x80-\xff]*[\0-\x7f]\x0a"),
    _kind("a TensorFlow graph", f"{_EXPORT} (tf2onnx --graphdef)", _GRAPH_DEF),
    _kind("an OpenVINO model", "give the .onnx file that it was made from", _OPENVINO, read_as="OpenVINO"),
    _kind("an HTML page", _FETCH, _TEXT + rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b)"),
    _kind("an XML page", _FETCH, _TEXT + rb"<(\?xml\b|error>))"),
    _kind("an ONNX model as text", "save it as protobuf (onnx.save)", _ONNX_TEXT),
    _kind("an index of shards", "download it again", _TEXT + rb"\{).*\"weight_map\"\s*:", read_as="shards"),
    _kind("JSON", f"{_FETCH} or {_EXPORT}", _TEXT + rb"[{\[]\s*([\"{}\[\]]|\d|true|false|null))"),
    _kind("text", _FETCH, rb"[\t\n\r\x20-\x7e]+\Z"),
)  # fmt: skip
"""The kinds, in the order in which they are tried: a special kind comes before the general one."""


def recognise(file: BinaryIO) -> FileKind | None:
    """Return the kind of an open file, or None if it is not one of KINDS."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(HEAD_BYTES)
    tail = b""
    if head.startswith(b"\x89HDF"):
        tail = head + file.read(TAIL_BYTES)
    if head.startswith(b"PK"):
        file.seek(max(0, size - TAIL_BYTES))
        tail = head + file.read(TAIL_BYTES)
    for kind in KINDS:
        if kind.head.match(head) and (kind.tail is None or kind.tail.search(tail)):
            return kind
    return None


def describe(file: BinaryIO) -> str:
    """Describe a file that is not a model, with the remedy, for the end of a message."""
    kind = recognise(file)
    if kind is not None:
        return f"{kind.name}; {kind.remedy}"
    file.seek(0)
    return f"{os.fstat(file.fileno()).st_size:,} bytes beginning with {file.read(16)!r}"
