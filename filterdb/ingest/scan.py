"""One model → its rows and ledger, on a worker, by a child process. No filters are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filterdb import schema
from filterdb.errors import InputError, ModelError, StoreMissingError
from filterdb.extract.catalog import ModelSource
from filterdb.extract.constants import ODD, one_line
from filterdb.extract.layers import Skip
from filterdb.extract.sandbox import Channel, Limits, sandbox
from filterdb.store.inputs import LocalInput, file_digest, local_copy

MAX_FILE = 2**31 - 1
"""Bytes that a protobuf can have: larger models keep their weights beside them, as external data."""

READER = "filterdb.ingest.reading"
"""The module that the child process runs."""


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


def scan(source: ModelSource, known_hash: str | None, limits: Limits) -> Scan:
    """Read a model; where the store has this content under this id (`known_hash`), only its hash.

    Raises InputError where the file is missing.
    """
    try:
        with local_copy(source.url) as local:
            refused = _refused(local.path, source.shown)
            digest = "" if refused else file_digest([local.path])
            if refused:
                return Scan(source, digest, rejected=refused)
            try:
                return _scan(source, local, known_hash, limits)
            except ModelError as error:
                return Scan(source, digest, rejected=str(error))
    except StoreMissingError as error:
        raise InputError(f"model {source.id!r}: expected a file at {source.shown}, found none") from error


def _refused(path: Path, shown: str) -> str | None:
    """Why a file is not even opened, if so."""
    if not path.is_file():
        return f"{shown}: not an ONNX model: expected a regular file" if path.exists() else None
    size = path.stat().st_size
    if size > MAX_FILE:
        return (
            f"{shown}: not an ONNX model: expected at most {MAX_FILE:,} bytes (a protobuf), got {size:,}; "
            "larger models keep their weights as external data"
        )
    return None


def _scan(source: ModelSource, local: LocalInput, known_hash: str | None, limits: Limits) -> Scan:
    request = {"do": "scan"}
    with reading(source, local, limits, request) as (channel, files):
        digest = file_digest([local.path, *files])
        channel.send({"go": digest != known_hash})
        if digest == known_hash:
            return Scan(source, digest, known=True)
        answer = _answer(channel)
    try:
        skipped = [Skip(str(layer), str(code), str(reason)) for layer, code, reason in answer["skipped"]]
        found = Scan(source, digest, answer["facts"], answer["rows"], list(map(int, answer["checksums"])), skipped)
        check_rows(found.facts, found.rows)
    except ODD as error:
        raise ModelError(
            f"{source.shown}: has facts that no table can hold: {one_line(error, local.path.parent)}"
        ) from error
    return found


@contextmanager
def reading(
    source: ModelSource, local: LocalInput, limits: Limits, request: dict[str, Any]
) -> Iterator[tuple[Channel, list[Path]]]:
    """A child that has parsed the model; and the files of its external data, brought beside it.

    Files that are missing or lie outside the model's folder are left out. Raises ModelError.
    """
    size = local.path.stat().st_size
    with sandbox(READER).reading(source.shown, size, limits) as channel:
        channel.send({**request, "path": str(local.path), "named": source.shown})
        names = map(str, _answer(channel)["external"])
        yield channel, [path for path in map(local.bring, names) if path is not None]


def _answer(channel: Channel) -> dict[str, Any]:
    """What the child says. Raises ModelError where that is why it does not read the file."""
    answer = channel.receive()
    if not isinstance(answer, dict):
        raise ValueError("an answer that is no object")
    if "rejected" in answer:
        raise ModelError(str(answer["rejected"]))
    return answer


def check_rows(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Raise one of ODD where a value is not there or does not fit its variable."""
    for kinds, table, elsewhere in (
        (schema.LAYER_VARIABLES, rows, {"model_index"}),
        (schema.MODEL_VARIABLES, [facts], {"model", "file_hash", "duplicate_of", "extra", *schema.LABELS}),
    ):
        for variable in kinds:
            if variable.name not in elsewhere:
                for row in table:
                    variable.array([row[variable.name]])
