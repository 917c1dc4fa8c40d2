"""Read models whose tensors are in several files beside an index, as Hugging Face's libraries save large ones.

The index is JSON: {"metadata": …, "weight_map": {key: file}}. To add a format of shards, add a line to _SHARDS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from filterdb.errors import ModelError
from filterdb.models import reading
from filterdb.models.checkpoint.reading import list_tensors as list_pytorch
from filterdb.models.data_files import opened_inside, read_exactly
from filterdb.models.file_kinds import describe, recognise
from filterdb.models.graphless import MAX_TENSORS, read_tensors
from filterdb.models.model import Model, Request
from filterdb.models.parse_errors import MAX_NAME, shortened, without_repeats
from filterdb.models.safetensors.header import list_tensors as list_safetensors
from filterdb.models.sandbox import Channel
from filterdb.models.tensors import Open, Tensor

MAX_INDEX = 2**25
"""Most bytes of an index."""

_SHARDS: dict[str, tuple[Callable[[Open, int, str], list[Tensor]], bool]] = {
    "PyTorch": (list_pytorch, True),
    "safetensors": (list_safetensors, False),
}
"""By the name of a shard's format: what lists its tensors, and whether they are in the order of execution."""


@dataclass(frozen=True, slots=True)
class ShardedModel:
    """An index of shards that has been read (`model.ModelFile`). `files` has the shard of each key."""

    path: Path
    files: dict[str, str]
    request: Request

    @classmethod
    def parse(cls, path: Path, request: Request) -> ShardedModel:
        """Read the index. Raises ModelError if it is damaged."""
        size = path.stat().st_size
        if size > MAX_INDEX:
            raise _damaged(path, f"at most {MAX_INDEX:,} bytes", f"{size:,}")
        with path.open("rb") as file:
            text = read_exactly(file, 0, size)
        try:
            index = json.loads(text, object_pairs_hook=without_repeats)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, "JSON", " ".join(str(error).split())) from error
        files = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(files, dict) or not files or len(files) > MAX_TENSORS:
            raise _damaged(path, f"a weight_map of 1 to {MAX_TENSORS:,} keys", type(files).__name__)
        for key, name in files.items():
            if not isinstance(name, str) or not name or max(len(key), len(name)) > MAX_NAME:
                raise _damaged(path, "a file name for each key", f"another value for {key!r}")
        return cls(path, {key: str(PurePosixPath(name)) for key, name in files.items()}, request)

    def external_files(self) -> dict[str, int]:
        """Return the shards. How many bytes each must have is checked when its tensors are listed."""
        return dict.fromkeys(self.files.values(), 0)

    def model(self) -> Model:
        """List the convolutions of all shards. Raises ModelError if there are none, or if a shard is not readable."""
        # The index is often sorted by key. Shards are numbered, and filled in the order of the tensors.
        tensors: list[Tensor] = []
        formats = set()
        for name in sorted(set(self.files.values())):
            format_name, listed = self._shard(name)
            formats.add(format_name)
            tensors += [tensor for tensor in listed if self.files.get(tensor.path) == name]
        if len(formats) > 1:
            raise _damaged(self.path, "shards of one format", " and ".join(sorted(formats)))
        missing = self.files.keys() - {tensor.path for tensor in tensors}
        if missing:
            key = min(missing)
            raise _damaged(self.path, f"{shortened(key, 60)!r} in {self.files[key]!r}", "a shard without it")
        source_format = formats.pop()
        _, ordered = _SHARDS[source_format]
        return read_tensors(tensors, self.request, source_format=source_format, ordered=ordered)

    def _shard(self, name: str) -> tuple[str, list[Tensor]]:
        """Return a shard's format and its tensors. Raises ModelError if it is not readable."""
        opening = partial(opened_inside, self.path.parent, name)
        with opening() as file:
            kind = recognise(file)
            size = os.fstat(file.fileno()).st_size
            known = None if kind is None else _SHARDS.get(kind.format)
            if kind is None or known is None:
                raise _damaged(self.path, f"shards of {' or '.join(_SHARDS)}", f"{name!r}: {describe(file)}")
        return kind.format, known[0](opening, size, f"{self.path}: {shortened(name, 100)}")


def _damaged(path: Path, expected: str, got: str) -> ModelError:
    return ModelError(
        f"{path}: not a complete index of shards: expected {expected}, got {shortened(got, 200)}; "
        "download or save all files again"
    )


def serve(channel: Channel) -> None:
    """Answer one request about one index of shards."""
    reading.serve(channel, ShardedModel.parse)
