"""Read ONNX files in the child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.reference  # imported here by the fork server, so that children that evaluate expressions need not

from filterdb.models import reading
from filterdb.models.model import Model, Request
from filterdb.models.onnx.external import external_files
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from filterdb.models.sandbox import Channel


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A parsed ONNX file (`model.ModelFile`)."""

    path: Path
    proto: onnx.ModelProto
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> OnnxFile:
        """Parse the file within the request's memory. Raises ModelError if it is not a readable model."""
        return cls(path, parse(path, request.memory), request)

    def external_files(self) -> dict[str, int]:
        """Return its external data files, and the bytes that each must have."""
        return external_files(self.proto)

    def model(self) -> Model:
        """List its layers. Raises ModelError if its graph is invalid."""
        return read_model(self.path, self.proto, self.request.kernels)


def serve(channel: Channel) -> None:
    """Answer one request about one ONNX file."""
    reading.serve(channel, OnnxFile.parse)
