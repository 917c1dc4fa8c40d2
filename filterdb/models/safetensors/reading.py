"""Read safetensors files in the child process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from filterdb.models import reading
from filterdb.models.candidates import is_weight
from filterdb.models.graphless import read_tensors
from filterdb.models.model import Model, Request, wants_1d
from filterdb.models.safetensors.header import list_tensors
from filterdb.models.safetensors.order import order_beside
from filterdb.models.sandbox import Channel
from filterdb.models.tensors import Tensor


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A safetensors file whose header has been read (`model.ModelFile`)."""

    path: Path
    tensors: list[Tensor]
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> SafetensorsFile:
        """Read the header. Raises ModelError if it is damaged."""
        return cls(path, list_tensors(lambda: path.open("rb"), path.stat().st_size, str(path)), request)

    def external_files(self) -> dict[str, int]:
        """Return no files: the tensors are in the file itself."""
        return {}

    def model(self) -> Model:
        """List its convolutions. Raises ModelError if it has none, or several networks."""
        # Libraries write the keys sorted by type and name, so their order says nothing of the execution.
        request = self.request
        if not request.order:
            ranks = (4, 3) if wants_1d(request.kernels) else (4,)
            listed = ([tensor.key for tensor in self.tensors if is_weight(tensor, rank)] for rank in ranks)
            weights = next(filter(None, listed), [])
            request = replace(request, order=order_beside(self.path, weights) if weights else ())
        return read_tensors(self.tensors, request, source_format="safetensors", ordered=False)


def serve(channel: Channel) -> None:
    """Answer one request about one safetensors file."""
    reading.serve(channel, SafetensorsFile.parse)
