"""Accept models as callers give them: paths, URLs and onnx.ModelProto in memory, one or several."""

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
"""Name in messages of a model in memory whose graph has no name."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to read. `alias` is the graph's name if the file holds a model from memory, otherwise empty."""

    path: str
    alias: str = ""


def as_sources(sources: Any, parameter: str = "sources") -> list[Any]:
    """Return sources as a list of str and onnx.ModelProto. A single source becomes a list.

    Raises UsageError for anything else.
    """
    if isinstance(sources, str | os.PathLike) or _is_model(sources):
        sources = [sources]
    listed = as_list(sources, parameter, EXPECTED)
    return [source if _is_model(source) else as_path(source, parameter, EXPECTED) for source in listed]


def as_source(source: Any, parameter: str) -> Any:
    """Return a single source as str or onnx.ModelProto. Raises UsageError for anything else."""
    return source if _is_model(source) else as_path(source, parameter, "a path, a URL or an onnx.ModelProto")


@contextmanager
def on_disk(sources: list[Any]) -> Iterator[list[NamedFile]]:
    """Write models in memory to temporary files, so that processes on this machine can read them. Paths are kept."""
    if not any(map(_is_model, sources)):
        yield [NamedFile(source) for source in sources]
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        yield [
            _written(source, Path(folder) / str(position)) if _is_model(source) else NamedFile(source)
            for position, source in enumerate(sources)
        ]


def _is_model(source: object) -> bool:
    """Return whether `source` is an onnx.ModelProto. If it is, the caller has already imported onnx."""
    module = sys.modules.get("onnx")
    return module is not None and isinstance(source, module.ModelProto)


def _written(model: onnx.ModelProto, folder: Path) -> NamedFile:
    from google.protobuf.message import EncodeError

    name = model.graph.name.strip() or UNNAMED
    folder.mkdir()  # one folder per model, because external data is read from beside the model
    path = folder / "model.onnx"
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{name}: cannot be written to a temporary file ({reason}); save the model first") from error
    return NamedFile(str(path), name)


def as_id(file: NamedFile) -> str:
    """Return the id of a model from memory, its graph's name. Raises UsageError if it has none."""
    if file.alias == UNNAMED:
        raise UsageError(
            "sources: expected a model whose graph has a name, which becomes its id, got none; set `model.graph.name`"
        )
    return file.alias
