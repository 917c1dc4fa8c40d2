"""The formats of model files: how to recognise a file, and which module reads it in the child process.

To add a format, write a package or module with a class that implements `model.ModelFile` and a function
`serve(channel)` that calls `reading.serve` with it, add a `Format` to `FORMATS`, and name it in `file_kinds.KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filterdb.models.file_kinds import FileKind, recognise


@dataclass(frozen=True, slots=True)
class Format:
    """A format of model files."""

    name: str
    suffixes: tuple[str, ...]
    """File name suffixes, used to search folders."""
    reader: str
    """Module whose `serve(channel)` reads a file in a child process. The parent process never imports it."""
    shared_suffixes: tuple[str, ...] = ()
    """Suffixes that other kinds of files have too. In a folder, such a file is a model only if its bytes say so."""
    max_bytes: int | None = None
    """Largest file size that the format allows."""
    has_networks: bool = False
    """Whether a file may hold several networks, of which `--key` chooses one."""
    extra: str = ""
    """The extra that installs what reading the format needs; empty if filterdb's own requirements suffice."""
    modules: tuple[str, ...] = ()
    """The modules that the extra installs."""
    in_parts: bool = False
    """Whether a remote file is fetched in parts: its reader reads it, and its companions, with `read_exactly` only."""


ONNX = Format("ONNX", (".onnx",), "filterdb.models.onnx.reading", max_bytes=2**31 - 1)
"""ONNX files are protobufs: no magic bytes, and at most 2 GiB. Larger models keep their weights as external data."""

PUBLISHED = Format("the published data set", (".h5",), "filterdb.models.published.reading")
"""One HDF5 file with hundreds of models. Its reader has its own requests (see `published.file`)."""

SAFETENSORS = Format(
    "safetensors", (".safetensors",), "filterdb.models.safetensors.reading", has_networks=True, in_parts=True
)

PYTORCH = Format(
    "PyTorch",
    (".pt", ".pth", ".ckpt", ".pth.tar"),
    "filterdb.models.checkpoint.reading",
    shared_suffixes=(".bin",),
    has_networks=True,
    in_parts=True,
)
"""Checkpoints of torch.save. Hugging Face calls them .bin, which other files are called too."""

SHARDS = Format(
    "shards",
    (".safetensors.index.json", ".bin.index.json"),
    "filterdb.models.shards",
    shared_suffixes=(".index.json",),
    has_networks=True,
    in_parts=True,
)
"""Indexes of models in several files. A model that is read this way is stored under the format of its shards."""

MAX_XML_BYTES = 128 * 2**20
"""Most bytes of the XML of an OpenVINO model. The constants are in another file; that of a large network takes 20 MB.

Before expat 2.6, the time for a long attribute grows with the square of its length.
"""

OPENVINO = Format(
    "OpenVINO", (), "filterdb.models.openvino.reading", shared_suffixes=(".xml",), max_bytes=MAX_XML_BYTES
)
"""A graph as XML, which is small, and beside it a .bin file of constants."""

KERAS = Format(
    "Keras",
    (".keras",),
    "filterdb.models.keras.reading",
    shared_suffixes=(".h5", ".hdf5"),
    extra="hdf5",
    modules=("h5py",),
)

TFLITE = Format(
    "TensorFlow Lite", (".tflite",), "filterdb.models.tflite.reading", extra="tflite", modules=("flatbuffers",)
)
"""TensorFlow Lite (LiteRT) files are FlatBuffers with the whole graph."""

FORMATS: tuple[Format, ...] = (ONNX, PYTORCH, SAFETENSORS, SHARDS, KERAS, OPENVINO, TFLITE)
"""The formats of files with one model each."""

SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
"""The suffixes by which folders are searched."""

SHARED_SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.shared_suffixes)
"""Suffixes of files in a folder that are models only if their bytes say so."""


def format_of(path: Path) -> Format:
    """Return the format that a file's bytes match, or else ONNX, whose reader says what was expected.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        return format_of_kind(recognise(file))


def format_of_kind(kind: FileKind | None) -> Format:
    """Return the format of a kind of file; ONNX for one that no format reads."""
    by_name = {known.name: known for known in FORMATS}
    return by_name.get("" if kind is None else kind.format, by_name[ONNX.name])
