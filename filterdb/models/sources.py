"""Accept models as callers give them: paths, URLs and onnx.ModelProto in memory, one or several."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.arguments import as_list, as_path
from filterdb.errors import FilterDBError, InputError, UsageError
from filterdb.models.catalog import ModelSource
from filterdb.models.inputs import names_models, read_input
from filterdb.redaction import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx

    type Source = str | os.PathLike[str] | onnx.ModelProto
    type Sources = Source | Iterable[Source]
    type Order = str | os.PathLike[str] | Sequence[str]

EXPECTED = "a path, a URL, an onnx.ModelProto or a list of these"

UNNAMED = "model in memory"
"""Name in messages of a model in memory whose graph has no name."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to read. `alias` is the graph's name if the file holds a model from memory, otherwise empty.

    `key` names the network to read if the file has several. `order` names its layers in the order of execution, if the
    user gave it.
    """

    path: str
    alias: str = ""
    key: str = ""
    order: tuple[str, ...] = ()

    def source(self, name: str = "") -> ModelSource:
        """Return the model to read, with the id `name`, or else its path."""
        return ModelSource(name or self.path, self.path, alias=self.alias, key=self.key, order=self.order)


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


def name_models(sources: Any) -> bool:
    """Return whether these are model files, as `check` takes them, rather than a database, by path or as an object."""
    if isinstance(sources, str | os.PathLike):
        return names_models(os.fspath(sources))
    return isinstance(sources, list | tuple) or _is_model(sources)


@contextmanager
def on_disk(sources: list[Any], key: str = "", order: Order | None = None) -> Iterator[list[NamedFile]]:
    """Write models in memory to temporary files, so that processes on this machine can read them. Paths are kept.

    `key` and `order` apply to all of them. Raises UsageError or InputError for an order that cannot be used.
    """
    names = as_order(order)
    if not any(map(_is_model, sources)):
        yield [NamedFile(source, key=key, order=names) for source in sources]
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        yield [
            _written(source, Path(folder) / str(position))
            if _is_model(source)
            else NamedFile(source, key=key, order=names)
            for position, source in enumerate(sources)
        ]


def as_order(order: Order | None) -> tuple[str, ...]:
    """Return the names of layers in an order: a list, or the path or URL of a JSON file with a list."""
    if order is None:
        return ()
    where, names = "order", order
    if isinstance(order, str | os.PathLike):
        where = os.fspath(order)
        try:
            names = json.loads(read_input(where))
        except (ValueError, RecursionError) as error:
            if isinstance(error, FilterDBError):
                raise
            raise InputError(f"{redact_url(where)}: expected JSON, a list of names, got something else") from error
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        expected = "expected a list of the names of weights in the order of execution"
        raise InputError(f"{redact_url(where)}: {expected}, got something else")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{redact_url(where)}: expected each name once, got {repeated!r} more than once")
    return tuple(names)


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
