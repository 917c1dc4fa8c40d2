"""Models as callers name them: paths, URLs, and onnx.ModelProto in memory, one or many."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.arguments import as_list, as_path
from filterdb.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    type Source = str | os.PathLike[str] | onnx.ModelProto
    type Sources = Source | Iterable[Source]

EXPECTED = "a path, a URL, an onnx.ModelProto or a list of these"

UNNAMED = "model in memory"
"""How a model in memory whose graph has no name is called."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to read; `alias`: the graph's name where it holds a model from memory, else empty."""

    path: str
    alias: str = ""


def as_sources(sources: Any, parameter: str = "sources") -> list[Any]:
    """Return sources as a list of texts and onnx.ModelProto; a single one stands for a list of one.

    Raises UsageError for anything else.
    """
    if isinstance(sources, str | os.PathLike) or _is_model(sources):
        sources = [sources]
    listed = as_list(sources, parameter, EXPECTED)
    return [source if _is_model(source) else as_path(source, parameter, EXPECTED) for source in listed]


def as_source(source: Any, parameter: str) -> Any:
    """Return one source, a text or an onnx.ModelProto. Raises UsageError for anything else."""
    return source if _is_model(source) else as_path(source, parameter, "a path, a URL or an onnx.ModelProto")


@contextmanager
def on_disk(sources: list[Any]) -> Iterator[list[NamedFile]]:
    """Write models in memory to temporary files, which processes on this machine can read; paths stay what they are."""
    if not any(map(_is_model, sources)):
        yield [NamedFile(source) for source in sources]
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        yield [
            _written(source, Path(folder) / str(position)) if _is_model(source) else NamedFile(source)
            for position, source in enumerate(sources)
        ]


def _is_model(source: object) -> bool:
    """Whether it is an onnx.ModelProto; who has one has imported onnx."""
    module = sys.modules.get("onnx")
    return module is not None and isinstance(source, module.ModelProto)


def _written(model: onnx.ModelProto, folder: Path) -> NamedFile:
    from google.protobuf.message import EncodeError

    name = model.graph.name.strip() or UNNAMED
    folder.mkdir()  # of its own: external data lie beside a model
    path = folder / "model.onnx"
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{name}: cannot be written to a temporary file ({reason}); save the model first") from error
    return NamedFile(str(path), name)


def as_id(file: NamedFile) -> str:
    """Return the id of a model from memory, its graph's name. Raises UsageError where it has none."""
    if file.alias == UNNAMED:
        raise UsageError(
            "sources: expected a model whose graph has a name, which becomes its id, got none; set `model.graph.name`"
        )
    return file.alias
