"""Read OpenVINO models in the child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filterdb.models import reading
from filterdb.models.model import Model, Request
from filterdb.models.openvino.constants import data_end
from filterdb.models.openvino.document import Document, parse
from filterdb.models.openvino.layers import read_model
from filterdb.models.sandbox import Channel


@dataclass(frozen=True, slots=True)
class OpenVinoFile:
    """A parsed OpenVINO model (`model.ModelFile`)."""

    path: Path
    document: Document
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> OpenVinoFile:
        """Parse the XML. Raises ModelError if it is not a readable model."""
        return cls(path, parse(path), request)

    @property
    def data(self) -> str:
        """The name of the file with the constants: that of the XML, with the suffix .bin."""
        return self.path.with_suffix(".bin").name

    def external_files(self) -> dict[str, int]:
        """Return the file with the constants, and the bytes that it must have; nothing if there are no constants."""
        constants = self.document.constants
        return {self.data: max(map(data_end, constants))} if constants else {}

    def model(self) -> Model:
        """List its layers. Raises ModelError if its graph is invalid."""
        return read_model(self.document, self.path, self.data, self.request.kernels)


def serve(channel: Channel) -> None:
    """Answer one request about one OpenVINO model."""
    reading.serve(channel, OpenVinoFile.parse)
