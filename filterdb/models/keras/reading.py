"""Read the files of Keras in the child process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filterdb.errors import ModelError
from filterdb.models import reading
from filterdb.models.file_kinds import describe
from filterdb.models.hdf5_parts import damage_as_value_error
from filterdb.models.keras.archive import Archive
from filterdb.models.keras.config import MAX_CONFIG, Graph, parse_config
from filterdb.models.keras.model import read_model
from filterdb.models.keras.weights import LayeredFile, Layout, TreeFile
from filterdb.models.keras.weights_file import WeightsFile
from filterdb.models.model import Model, Request
from filterdb.models.sandbox import Channel

_WEIGHTS = "model.weights.h5"
_MAX_METADATA = 2**20


@dataclass(frozen=True, slots=True)
class KerasFile:
    """A file of Keras: its config, if it has one with a graph, and where its weights lie (`model.ModelFile`)."""

    request: Request
    graph: Graph | None
    layout: Layout = field(repr=False)
    producer: str

    @classmethod
    def parse(cls, path: Path, request: Request) -> KerasFile:
        """Read the config. Raises ModelError if the file is not Keras', or damaged."""
        with path.open("rb") as file:
            head = file.read(2)
        with damage_as_value_error():
            return cls._of_archive(path, request) if head == b"PK" else cls._of_hdf5(path, request)

    @classmethod
    def _of_archive(cls, path: Path, request: Request) -> KerasFile:
        archive = Archive(path, request.named)
        config = archive.read("config.json", MAX_CONFIG)
        weights = archive.open(_WEIGHTS, request.memory // 4)
        if config is None or weights is None:
            absent = _WEIGHTS if weights is None else "config.json"
            raise ModelError(f"{request.named}: expected a Keras archive with {absent}, got none; save it with Keras 3")
        metadata = archive.read("metadata.json", _MAX_METADATA)
        size = weights.seek(0, 2)
        file = WeightsFile(weights, size, request.named)
        return cls(request, parse_config(config), TreeFile(file, file.root), _producer(_version(metadata)))

    @classmethod
    def _of_hdf5(cls, path: Path, request: Request) -> KerasFile:
        file = WeightsFile(str(path), path.stat().st_size, request.named)
        group = file.group(file.root, "model_weights")
        group = file.root if group is None else group
        names = file.texts(group, "layer_names")
        config = file.text(file.root, "model_config")
        graph = None if config is None else parse_config(config)
        producer = _producer(file.text(file.root, "keras_version") or file.text(group, "keras_version"))
        if names is None:
            _check_tree(file, path)
            return cls(request, graph, TreeFile(file, file.root), producer)
        tops = {} if graph is None else {layer.name: layer for layer in graph.layers}
        return cls(request, graph, LayeredFile(file, group, list(dict.fromkeys(names)), tops), producer)

    def external_files(self) -> dict[str, int]:
        """Return no files: the weights are in the file itself."""
        return {}

    def model(self) -> Model:
        """List its convolutions. Raises ModelError if it has none."""
        with damage_as_value_error():
            return read_model(self.graph, self.layout, self.request, self.producer)


def _check_tree(file: WeightsFile, path: Path) -> None:
    """Raise ModelError if a file without the attributes of Keras 2 has no group as Keras 3 writes them."""
    members = set(file.members(file.root))
    if {"meta", "filters"} <= members or {"meta", "filter"} <= members:
        raise ModelError(f"{file.named}: expected one model, got the published data set; use `filterdb import-hdf5`")
    if not any(place.rpartition("/")[2] == "vars" for place, _ in file.walk(file.root)):
        with path.open("rb") as opened:
            raise ModelError(f"{file.named}: expected a model or weights that Keras saved, got {describe(opened)}")


def _version(metadata: bytes | None) -> str | None:
    values: Any = json.loads(metadata) if metadata else {}
    version = values.get("keras_version") if isinstance(values, dict) else None
    return version if isinstance(version, str) else None


def _producer(version: str | None) -> str:
    return f"keras {version[:40]}" if version else "keras"


def serve(channel: Channel) -> None:
    """Answer one request about one file of Keras."""
    reading.serve(channel, KerasFile.parse)
