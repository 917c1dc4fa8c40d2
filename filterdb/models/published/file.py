"""Read the published data set's file through a child process: its description and its rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.errors import InputError
from filterdb.models.formats import PUBLISHED
from filterdb.models.parse_errors import PARSE_ERRORS
from filterdb.models.published.metadata import PublishedLayer, PublishedModel, Runs
from filterdb.models.sandbox import Channel, Limits, NoAnswerError, sandbox
from filterdb.schema import WEIGHTS
from filterdb.wording import counted

_STEP_ROWS = 32_768
"""Rows that are read at a time. They stay in a core's cache while they are copied to columns."""

_CHILD_BYTES = 2**28
"""Memory of a child that measures layers, besides the layer."""

_LAYER_BYTES = 160
"""Memory of a child for each filter of the layer that it measures: float32 and float64, and a margin."""

_PRODUCTS = 1e9
"""Fewest multiplications in a second of a child, in the product of a layer's channels with each other."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file with its size and time when it was described, so that a change is noticed."""

    path: str
    size: int
    modified: int
    limits: Limits
    offset: int | None = None
    """Where the filters begin, if the file holds them as plain float32; None: HDF5 must read them."""

    @classmethod
    def at(cls, path: Path, limits: Limits) -> PublishedFile:
        """Return the file at a path. Raises InputError if it is missing."""
        if not path.is_file():
            raise InputError(f"{path}: expected the published data set's HDF5 file on this machine, found none")
        status = path.stat()
        return cls(str(path.absolute()), status.st_size, status.st_mtime_ns, limits)

    def describe(
        self, tables: tuple[Path, Path] | None
    ) -> tuple[PublishedFile, list[PublishedModel], list[PublishedLayer]]:
        """Return the file with the place of its filters, models and layers. Raises InputError if it cannot be used."""
        # The metadata is at most 512 MiB, however large the file is.
        with self._reading(2**29, self.limits) as channel:
            names = [str(path.absolute()) for path in tables or ()]
            channel.send({"do": "describe", "path": self.path, "tables": names})
            answer = _answer(channel)
        try:
            models = [PublishedModel(**model) for model in answer["models"]]
            layers = [
                PublishedLayer(**{**layer, "runs": tuple((int(a), int(b)) for a, b in layer["runs"])})
                for layer in answer["layers"]
            ]
            offset = None if answer["offset"] is None else int(answer["offset"])
        except PARSE_ERRORS as error:
            raise InputError(f"{self.path}: expected a description of the data set, got another ({error})") from error
        return replace(self, offset=offset), models, layers

    def fill(self, buffer: np.ndarray, runs: Runs) -> None:
        """Fill a buffer (n, 9) float32 with the rows of `runs`.

        Raises InputError if the file has changed, if a weight is not a finite number, or if the rows do not fill it.
        """
        rows = np.empty((min(len(buffer), _STEP_ROWS), WEIGHTS), np.float32)
        filled = 0
        with self._rows(runs) as read:
            for first, count in runs:
                for start in range(first, first + count, _STEP_ROWS):
                    part = rows[: min(_STEP_ROWS, first + count - start)]
                    read(start, part)
                    if not np.isfinite(part).all():  # a child that a hostile file controls may have said otherwise
                        raise InputError(f"{self.path}: a weight is NaN or infinite; remove the file")
                    buffer[filled : filled + len(part)] = part
                    filled += len(part)
        if filled != len(buffer):  # the uninitialised rest of the buffer would be committed as filters
            raise InputError(
                f"{self.path}: expected {counted(len(buffer), 'filter')} of the plan, got {filled:,}; run again"
            )

    @contextmanager
    def _rows(self, runs: Runs) -> Iterator[Callable[[int, np.ndarray], None]]:
        """Yield a function that reads the next rows of `runs`, given the number of the first, into an array."""
        if self.offset is not None:
            with Path(self.path).open("rb", buffering=0) as file:
                self._require_unchanged(os.fstat(file.fileno()))
                yield partial(self._read_plain, file)
            return
        self._require_unchanged(Path(self.path).stat())
        with self._reading(sum(count for _, count in runs) * WEIGHTS * 4, self.limits) as channel:
            channel.send({"do": "rows", "path": self.path, "runs": runs})
            yield lambda _, rows: channel.receive_into(rows)

    def _read_plain(self, file: FileIO, first: int, rows: np.ndarray) -> None:
        file.seek((self.offset or 0) + first * WEIGHTS * 4)
        left = memoryview(rows).cast("B")
        while left:
            got = file.readinto(left)
            if not got:
                raise InputError(f"{self.path}: expected row {first:,} in it, it ends before; download it again")
            left = left[got:]

    def _require_unchanged(self, status: os.stat_result) -> None:
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise InputError(f"{self.path}: expected the file that was described, it has changed meanwhile; run again")

    def scan(self, layers: list[PublishedLayer]) -> list[LayerScan]:
        """Return the measures of layers, which a child takes. It holds one whole layer at a time.

        The child may take as much memory and time as the largest of them needs, whatever the limits for a file are.
        """
        self._require_unchanged(Path(self.path).stat())
        rows = max((layer.count for layer in layers), default=0)
        products = sum(layer.count * WEIGHTS * layer.out_channels for layer in layers)
        limits = Limits(
            max(self.limits.memory, _CHILD_BYTES + rows * _LAYER_BYTES),
            self.limits.seconds + products / _PRODUCTS,
            self.limits.rate,
        )
        with self._reading(sum(layer.count for layer in layers) * WEIGHTS * 4, limits) as channel:
            wanted = [[layer.runs, layer.out_channels] for layer in layers]
            channel.send({"do": "scan", "path": self.path, "layers": wanted})
            scans = [_scan(*entry) for entry in _answer(channel)["scans"]]
            if len(scans) != len(layers):
                raise NoAnswerError("another number of layers")
        return scans

    def _reading(self, size: int, limits: Limits) -> AbstractContextManager[Channel]:
        return sandbox(PUBLISHED.reader).reading(self.path, size, limits)


def _answer(channel: Channel) -> dict[str, Any]:
    answer: dict[str, Any] = channel.receive()
    if "rejected" in answer:
        raise InputError(str(answer["rejected"]))
    return answer


@dataclass(frozen=True, slots=True)
class LayerScan:
    """The measures of a layer. `finite`: none of its weights is NaN or infinite."""

    hash: str
    fingerprint: str
    peak: float
    orthogonality: float
    finite: bool


def _scan(hash: Any, fingerprint: Any, peak: Any, orthogonality: Any, finite: Any) -> LayerScan:
    """Return what a child sent of a layer. Raises NoAnswerError if it cannot be that."""
    kinds = [type(value) for value in (hash, fingerprint, peak, orthogonality, finite)]
    if kinds != [str, str, float, float, bool] or (finite and not 0 <= peak < math.inf):
        raise NoAnswerError("measures of other types")
    return LayerScan(hash, fingerprint, peak, orthogonality, finite)
