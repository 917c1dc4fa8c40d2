"""Read TensorFlow Lite files in the child process."""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filterdb.errors import ModelError
from filterdb.models import reading
from filterdb.models.convolutions import make_model
from filterdb.models.model import Model, Request
from filterdb.models.sandbox import Channel
from filterdb.models.tflite.flatbuffer import MAX_BYTES, FlatBuffer
from filterdb.models.tflite.graph import Graph, ModelTables, operator_counts
from filterdb.models.tflite.layers import convolutions

IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of a file."""

SOURCE_FORMAT = "TensorFlow Lite"
"""The name of the format, as in `formats.FORMATS`."""


@dataclass(frozen=True, slots=True)
class TfliteFile:
    """A parsed TensorFlow Lite file (`model.ModelFile`)."""

    file: BinaryIO
    tables: ModelTables
    graphs: list[Graph]
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> TfliteFile:
        """Parse the file. Raises ModelError if it is not a readable model, and what parsers raise."""
        file = path.open("rb")  # stays open: the weights are read from it, and the process ends soon
        head = file.read(8)
        if head[4:] != IDENTIFIER:
            raise ModelError(f"{path}: not a TensorFlow Lite model: expected TFL3 at byte 4, got {head[4:]!r}")
        size = file.seek(0, 2)
        tables = ModelTables(FlatBuffer(_mapped(file, min(size, MAX_BYTES)), path), size)
        return cls(file, tables, tables.graphs(), request)

    def external_files(self) -> dict[str, int]:
        """Return no files: weights in other files are not read."""
        return {}

    def model(self) -> Model:
        """List its layers."""
        lengths = [length for graph in self.graphs for length in graph.lengths if length is not None]
        return make_model(
            convolutions(self.graphs, self.file),
            self.request.kernels,
            source_format=SOURCE_FORMAT,
            depth_source="graph",
            producer=self.tables.producer(),
            model_depth=max(lengths, default=0),
            operators=operator_counts(self.graphs),
        )


def _mapped(file: BinaryIO, size: int) -> mmap.mmap:
    """Return the first bytes of a file, mapped. Raises MemoryError if the limit of memory does not allow it."""
    try:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        raise


def serve(channel: Channel) -> None:
    """Answer one request about one TensorFlow Lite file."""
    reading.serve(channel, TfliteFile.parse)
