"""One model → its rows and ledger, on a worker. No filters are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import onnx

from filterdb import schema
from filterdb.errors import InputError, ModelError, StoreMissingError
from filterdb.extract.catalog import ModelSource
from filterdb.extract.constants import ODD, NotStoredError, one_line
from filterdb.extract.convolution import Weight
from filterdb.extract.graph import parse
from filterdb.extract.layers import Layer, Model, Skip, external_files, read_model, weight_row
from filterdb.numerics.quality import orthogonality
from filterdb.store.files import LocalInput, file_digest, local_copy


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found; `checksums` of the rows' filters, for the writing to compare.

    `rejected` is why the file is no readable model; `known`: the store has this content.
    """

    source: ModelSource
    file_hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    rejected: str | None = None
    known: bool = False


def scan(source: ModelSource, known_hash: str | None) -> Scan:
    """Read a model; where the store has this content under this id (`known_hash`), only its hash.

    Raises InputError where the file is missing.
    """
    try:
        with local_copy(source.url) as local:
            return _scan_local(source, local, known_hash)
    except StoreMissingError as error:
        raise InputError(f"model {source.id!r}: expected a file at {source.shown}, found none") from error


def _scan_local(source: ModelSource, local: LocalInput, known_hash: str | None) -> Scan:
    digest, folder = file_digest([local.path]), local.path.parent
    try:
        proto = parse(local.path)
        digest = file_digest([local.path, *bring_external(local, proto)])
        if digest == known_hash:
            return Scan(source, digest, known=True)
        model = read_model(local.path, proto)
    except ModelError as error:
        return Scan(source, digest, rejected=str(error).replace(str(local.path), source.shown))
    except ODD as error:
        reason = one_line(error, folder)
        return Scan(source, digest, rejected=f"{source.shown}: not readable as a model: {reason}")
    rows, checksums, skipped = [], [], list(model.skipped)
    for layer in model.layers:
        try:
            weight = layer.weight()
            row, checksum = _row(layer, weight), filters_checksum(weight.filters)
        except NotStoredError as error:
            skipped.append(Skip(layer.name, error.code, error.reason))
            continue
        except ODD as error:
            reason = one_line(error, folder)
            skipped.append(Skip(layer.name, "unreadable", f"its weight cannot be read: {reason}"))
            continue
        rows.append(row)
        checksums.append(checksum)
    try:
        check_rows(model.facts, rows)
    except ODD as error:
        return Scan(
            source, digest, rejected=f"{source.shown}: has facts that no table can hold: {one_line(error, folder)}"
        )
    return Scan(source, digest, model.facts, rows, checksums, skipped)


def check_rows(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise one of ODD where a value does not fit its variable."""
    for variable in schema.TABLES:
        for row in (facts, *rows):
            if variable.name in row:
                variable.array([row[variable.name]])


def bring_external(local: LocalInput, proto: onnx.ModelProto) -> list[Path]:
    """The files of a model's external data, brought beside it; those that are missing or lie outside left out."""
    return [path for path in map(local.bring, external_files(proto)) if path is not None]


def _row(layer: Layer, weight: Weight) -> dict[str, Any]:
    """A layer's complete row; what needs the layer whole is computed here, where it is."""
    return {
        **layer.row,
        **weight_row(weight),
        "orthogonality": orthogonality(weight.filters, layer.row["out_channels"]),
    }


def filters_checksum(filters: np.ndarray) -> int:
    """CRC32C of filters (n, 9): enough to notice a file that has changed, and next to free."""
    return int(crc32c.crc32c(np.ascontiguousarray(filters, dtype="<f4").data.cast("B")))


def layers_by_name(model: Model) -> dict[str, Layer]:
    """The layers of a model by their unique names."""
    return {layer.name: layer for layer in model.layers}
