"""Read ONNX files in the child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.reference  # imported by the fork server, and not again by each child that evaluates an expression

from filterdb.models import reading
from filterdb.models.model import Model
from filterdb.models.onnx.external import external_files
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from filterdb.models.sandbox import Channel


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A parsed ONNX file (`model.ModelFile`)."""

    path: Path
    proto: onnx.ModelProto

    @classmethod
    def parse(cls, path: Path, memory: int) -> OnnxFile:
        """Parse the file within `memory` bytes. Raises ModelError where it is no readable model."""
        return cls(path, parse(path, memory))

    def external_files(self) -> dict[str, int]:
        """Return the files of its external data, and the bytes that each must have."""
        return external_files(self.proto)

    def model(self) -> Model:
        """List its layers. Raises ModelError where its graph is none."""
        return read_model(self.path, self.proto)


def serve(channel: Channel) -> None:
    """Answer one request about one ONNX file."""
    reading.serve(channel, OnnxFile.parse)
