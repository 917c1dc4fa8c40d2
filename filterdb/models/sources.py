"""Accept models as callers give them: paths, URLs and models in memory, one or several, with names or without."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filterdb.arguments import as_list, as_path, unexpected
from filterdb.errors import FilterDBError, InputError, UsageError
from filterdb.models.catalog import ModelSource
from filterdb.models.in_memory import UNNAMED, has_name, is_in_memory, name_of, write
from filterdb.models.inputs import expand, names_models, read_input
from filterdb.redaction import redact_url
from filterdb.schema import distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx

    from filterdb.models.frameworks import KerasModel, TorchModule

    type Source = str | os.PathLike[str] | onnx.ModelProto | TorchModule | KerasModel
    type Sources = Source | Iterable[Source] | Mapping[str, Source]
    type Order = str | os.PathLike[str] | Sequence[str]

ONE = "a path, a URL, an onnx.ModelProto, a torch.nn.Module or a keras.Model"
EXPECTED = f"{ONE}, or a list or mapping of these"


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A model as the caller gives it: `content` is a path or URL, or a model in memory. `name` may be empty."""

    content: Any
    name: str = ""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file to read. `alias` is the name of a model from memory, or the one that the caller gave; otherwise empty.

    `key` names the network to read if the file has several. `order` names its layers in the order of execution, if the
    user gave it.
    """

    path: str
    alias: str = ""
    key: str = ""
    order: tuple[str, ...] = ()
    has_name: bool = True
    """False if the alias is only for messages."""

    def source(self, name: str = "") -> ModelSource:
        """Return the model to read, with the id `name`, or else its path."""
        return ModelSource(name or self.path, self.path, alias=self.alias, key=self.key, order=self.order)

    def single(self) -> NamedFile:
        """Return the one file that a path with an alias names. Raises InputError if there is none, or several."""
        path, *more = expand(self.path)
        if more:
            raise InputError(f"{self.alias}: expected one file, got {1 + len(more)} in {redact_url(self.path)}")
        return replace(self, path=path)


def as_sources(sources: Any, parameter: str = "sources") -> list[GivenModel]:
    """Return sources as a list: one for a single source, and one for each name of a mapping.

    Raises UsageError for anything else.
    """
    if isinstance(sources, str | os.PathLike) or is_in_memory(sources):
        sources = [sources]
    if isinstance(sources, Mapping):
        for name in sources:
            if not isinstance(name, str) or not name.strip():
                raise unexpected(parameter, "names of models as the keys of a mapping", name)
        return [GivenModel(_content(source, parameter, EXPECTED), name) for name, source in sources.items()]
    return [GivenModel(_content(source, parameter, EXPECTED)) for source in as_list(sources, parameter, EXPECTED)]


def as_source(source: Any, parameter: str) -> GivenModel:
    """Return a single source. Raises UsageError for anything else."""
    return GivenModel(_content(source, parameter, ONE))


def _content(source: Any, parameter: str, expected: str) -> Any:
    return source if is_in_memory(source) else as_path(source, parameter, expected)


def name_models(sources: Any) -> bool:
    """Return whether sources are models, as `check` takes them, rather than a database, open or by path."""
    if isinstance(sources, str | os.PathLike):
        return names_models(os.fspath(sources))
    return isinstance(sources, list | tuple | Mapping) or is_in_memory(sources)


@contextmanager
def on_disk(sources: list[GivenModel], key: str = "", order: Order | None = None) -> Iterator[list[NamedFile]]:
    """Write models in memory to temporary files, so that processes on this machine can read them. Paths are kept.

    `key` and `order` apply to files. Raises UsageError or InputError for an order that cannot be used.
    """
    names = as_order(order)
    if not any(is_in_memory(source.content) for source in sources):
        yield [NamedFile(source.content, source.name, key, names) for source in sources]
        return
    with tempfile.TemporaryDirectory(prefix="filterdb-") as folder:
        yield [
            _written(source, Path(folder) / str(position))
            if is_in_memory(source.content)
            else NamedFile(source.content, source.name, key, names)
            for position, source in enumerate(sources)
        ]


def with_distinct_aliases(files: list[NamedFile]) -> list[NamedFile]:
    """Return files in which models from memory with equal names are told apart, as NAME#2."""
    aliases = iter(distinct([file.alias for file in files if file.alias]))
    return [replace(file, alias=next(aliases)) if file.alias else file for file in files]


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


def _written(source: GivenModel, folder: Path) -> NamedFile:
    name = source.name or name_of(source.content)
    folder.mkdir()  # one folder per model, because external data is read from beside the model
    path = write(source.content, folder, name)
    return NamedFile(str(path), name, has_name=bool(source.name) or has_name(source.content))


def as_id(file: NamedFile) -> str:
    """Return the id of a model from memory: its name. Raises UsageError if it has none."""
    if not file.has_name:
        got = "none" if file.alias == UNNAMED else f"the class {file.alias}"
        raise UsageError(
            f"sources: expected a name for a model in memory, which becomes its id, got {got}; pass {{NAME: model}} or "
            "set `model.graph.name`"
        )
    return file.alias
