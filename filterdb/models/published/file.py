"""Read the published data set's file through a child process: its description and its rows."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.errors import InputError
from filterdb.models.formats import PUBLISHED
from filterdb.models.model import filters_hash
from filterdb.models.parse_errors import PARSE_ERRORS
from filterdb.models.published.metadata import PublishedLayer, PublishedModel, Runs
from filterdb.models.sandbox import Channel, Limits, sandbox
from filterdb.numerics.fingerprint import fingerprint
from filterdb.numerics.quality import orthogonality
from filterdb.schema import WEIGHTS


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file with its size and time when it was described, so that a change is noticed."""

    path: str
    size: int
    modified: int
    limits: Limits

    @classmethod
    def at(cls, path: Path, limits: Limits) -> PublishedFile:
        """Return the file at a path. Raises InputError if it is missing."""
        if not path.is_file():
            raise InputError(f"{path}: expected the published data set's HDF5 file on this machine, found none")
        status = path.stat()
        return cls(str(path.absolute()), status.st_size, status.st_mtime_ns, limits)

    def describe(self, tables: tuple[Path, Path] | None) -> tuple[list[PublishedModel], list[PublishedLayer]]:
        """Return models and layers. Raises InputError if the file cannot be used."""
        # The metadata is at most 512 MiB, however large the file is.
        with self._reading(2**29) as channel:
            names = [str(path.absolute()) for path in tables or ()]
            channel.send({"do": "describe", "path": self.path, "tables": names})
            answer = _answer(channel)
        try:
            models = [PublishedModel(**model) for model in answer["models"]]
            layers = [
                PublishedLayer(**{**layer, "runs": tuple((int(a), int(b)) for a, b in layer["runs"])})
                for layer in answer["layers"]
            ]
        except PARSE_ERRORS as error:
            raise InputError(f"{self.path}: expected a description of the data set, got another ({error})") from error
        return models, layers

    def read(self, runs: Runs) -> np.ndarray:
        """Return rows (n, 9) float32. Raises InputError if the file has changed."""
        status = Path(self.path).stat()
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise InputError(f"{self.path}: expected the file that was described, it has changed meanwhile; run again")
        rows = np.empty((sum(count for _, count in runs), WEIGHTS), np.float32)
        with self._reading(rows.nbytes) as channel:
            channel.send({"do": "rows", "path": self.path, "runs": runs})
            channel.receive_into(rows)
        return rows

    def _reading(self, size: int) -> AbstractContextManager[Channel]:
        return sandbox(PUBLISHED.reader).reading(self.path, size, self.limits)


def _answer(channel: Channel) -> dict[str, Any]:
    answer: dict[str, Any] = channel.receive()
    if "rejected" in answer:
        raise InputError(str(answer["rejected"]))
    return answer


@dataclass(frozen=True, slots=True)
class LayerScan:
    """The result of scanning a layer. `finite`: none of its weights is NaN or infinite."""

    hash: str
    fingerprint: str
    peak: float
    orthogonality: float
    finite: bool


def scan_layers(file: PublishedFile, layers: list[PublishedLayer]) -> list[LayerScan]:
    """Compute hash, fingerprint, peak and orthogonality of layers. One whole layer is in memory at a time."""
    scans = []
    for layer in layers:
        filters = file.read(layer.runs)
        finite = bool(np.isfinite(filters).all())
        whole = finite and layer.out_channels > 0 and len(filters) % layer.out_channels == 0
        scans.append(
            LayerScan(
                filters_hash(filters),
                fingerprint(filters, layer.out_channels) if whole else "",
                float(np.abs(filters).max(initial=0.0)) if finite else math.nan,
                orthogonality(filters, layer.out_channels) if whole else math.nan,
                finite,
            )
        )
    return scans
