"""Scan a model file: ask a child process for its rows and ledger."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from filterdb import metrics, schema
from filterdb.errors import (
    FilterDBError,
    InputError,
    InterruptedRunError,
    MissingExtraError,
    ModelError,
    StoreError,
    StoreMissingError,
)
from filterdb.models.answers import (
    DESCRIBED,
    EXAMINED,
    EXAMINED_OTHERS,
    MAX_REASON,
    as_list,
    as_value,
    checked,
    filters_shape,
    first_filters,
    layer_row,
    model_facts,
    other_rows,
    skipped_layer,
    weights_of,
)
from filterdb.models.catalog import ModelSource
from filterdb.models.file_kinds import recognise
from filterdb.models.fingerprint import SourceRecord, identify, is_unchanged
from filterdb.models.formats import ONNX, Format, format_of, format_of_kind
from filterdb.models.hub_files import pinned
from filterdb.models.inputs import LocalInput, local_copy
from filterdb.models.model import Skip
from filterdb.models.parse_errors import PARSE_ERRORS, one_line, shortened
from filterdb.models.sandbox import Channel, Limits, NoAnswerError, sandbox
from filterdb.models.spool import Spool
from filterdb.schema import Kernels
from filterdb.store import download
from filterdb.store.ranged import again_if_changed
from filterdb.store.remote import is_remote

MAX_FETCHES = 10_000
"""Most times that a child may ask for parts of a file before it answers."""

MAX_LAYERS = 100_000
"""Most layers whose filters a child may send before it answers."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan.

    `rows` have the values of `schema.LAYER_VARIABLES` but `model_index`, and the layer's `kernel`, such as "5x5", and
    `rank`: 2, or 1 for a one-dimensional convolution that is read as 1×k. `checksums` are those of the rows' filters;
    the write compares them. `others` are the rows of layers whose filters no bank has, with `answers.OTHER_VARIABLES`
    besides; there are some only if all kernels are asked for. `rejected` is why the file is not a readable model, and
    `error` the error if the file was not read at all. `known` is true if the store has this content. `identities`
    identify the content of a remote file and its companions (see `fingerprint`); {} if nothing does.
    """

    source: ModelSource
    file_hash: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    rejected: str | None = None
    error: FilterDBError | None = None
    known: bool = False
    identities: Mapping[str, str] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)


class _CompanionError(ModelError):
    """A model's external data cannot be used. It may be repaired while the model's own file stays the same."""


def scan(
    source: ModelSource,
    known_hash: str | None,
    limits: Limits,
    records: Sequence[SourceRecord] = (),
    spool: Spool | None = None,
    kernels: Kernels = (schema.KERNEL,),
) -> Scan:
    """Read a model. If its hash is `known_hash`, the store has this content under this id, and no more is read.

    Layers of other shapes than `kernels` are in the ledger (None: all shapes are read). The filters are kept in
    `spool` as long as it has room for them, so that the write need not read the file again. The result has the source
    with a URL that names a commit, if it is one of the hub. A remote file is not even fetched if it has not changed
    since one of the `records`. If it cannot be fetched, it is rejected, because the other models of a run may be
    elsewhere. Raises InputError if a local file is missing.
    """
    if not is_remote(source.url):
        return _scan_file(source, known_hash, limits, spool, kernels)[0]
    try:
        source = _pinned(source)
        identity = download.identity(source.url)
        for record in records:
            if is_unchanged(record, source.url, identity):
                rejected = record.rejected or None
                return Scan(source, record.file_hash, rejected=rejected, known=not rejected)
        result, companions = again_if_changed(lambda: _scan_file(source, known_hash, limits, spool, kernels))
        if identity and companions is not None:
            result = replace(result, identities=identify(source.url, identity, companions))
        return result
    except InterruptedRunError:
        raise
    except FilterDBError as error:
        return replace(_rejected(source, "", str(error)), error=error.with_traceback(None))


def _pinned(source: ModelSource) -> ModelSource:
    """Return a source with a URL that names a commit, if it is one of the hub. Raises InputError if it is missing."""
    try:
        return pinned(source)
    except StoreMissingError as error:
        raise InputError(f"model {source.id!r}: expected a file at {source.shown}, found none") from error


def _scan_file(
    source: ModelSource, known_hash: str | None, limits: Limits, spool: Spool | None, kernels: Kernels
) -> tuple[Scan, list[str] | None]:
    """Read a model, and return the result and the companions on which it depends; None if they are not all known."""
    try:
        with local_copy(source.url) as local:
            refused = _refused(local.path, source.shown)
            if refused:
                return _rejected(source, "", refused), []
            try:
                return _scan_or_reject(source, local, known_hash, limits, spool, kernels)
            except StoreError as error:
                if local.origin is not None or isinstance(error, StoreMissingError):
                    raise
                return _rejected(source, "", _unreadable(source.shown, error.__cause__)), None
    except StoreMissingError as error:
        raise InputError(f"model {source.id!r}: expected a file at {source.shown}, found none") from error


def _scan_or_reject(
    source: ModelSource,
    local: LocalInput,
    known_hash: str | None,
    limits: Limits,
    spool: Spool | None,
    kernels: Kernels,
) -> tuple[Scan, list[str] | None]:
    companions: list[str] = []
    try:
        return _scan(source, local, known_hash, limits, companions, spool, kernels), companions
    except ModelError as error:
        result = _rejected(source, local.digest([]), str(error).replace(str(local.path), source.shown))
        return result, None if isinstance(error, _CompanionError) else companions


def _rejected(source: ModelSource, digest: str, reason: str) -> Scan:
    metrics.count(metrics.QUARANTINED)
    return Scan(source, digest, rejected=reason)


def _refused(path: Path, shown: str) -> str | None:
    """Return why a file must not be read; None if it may be read, and if it does not exist."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{shown}: not a model: expected a regular file, got {_kind(path, status)}"
        with path.open("rb") as file:
            kind = recognise(file)
        chosen = format_of_kind(kind)
        most = chosen.max_bytes
        if most is None or status.st_size <= most:
            return None
        if chosen is not ONNX:
            return f"{shown}: {chosen.name} file is {status.st_size:,} bytes; the limit is {most:,}; leave it out"
        got = f"{status.st_size:,}; larger models keep their weights as external data"
        if kind is not None:
            got = f"{status.st_size:,}, {kind.name}; {kind.remedy}"
        return f"{shown}: not an ONNX model: expected at most {most:,} bytes (a protobuf), got {got}"
    except (FileNotFoundError, NotADirectoryError):
        return f"{shown}: expected a file, got a link that leads nowhere" if path.is_symlink() else None
    except OSError as error:
        return _unreadable(shown, error)


def _kind(path: Path, status: os.stat_result) -> str:
    """Return what a path that is not a regular file is. Raises OSError if it is a folder that cannot be listed."""
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path):
            return "a folder"
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def _unreadable(shown: str, error: BaseException | None) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk failed"
    return f"{shown}: cannot be read ({reason}); check its permissions and its disk, or leave it out"


def _scan(
    source: ModelSource,
    local: LocalInput,
    known_hash: str | None,
    limits: Limits,
    companions: list[str],
    spool: Spool | None,
    kernels: Kernels,
) -> Scan:
    """Scan a file on this machine, and add the names of its external data files to `companions`."""
    layers: list[np.ndarray] = []
    request = {"do": "scan", "keep": spool is not None and spool.room > 0, "kernels": kernels}
    with reading(source, local, limits, request) as (channel, names):
        companions += names
        digest = local.digest(companions, source.key, source.order)
        channel.send({"go": digest != known_hash})
        if digest == known_hash:
            return Scan(source, digest, known=True)
        answer = _answer(channel, local, layers, spool)
    try:
        facts, rows, checksums, others, skipped = checked(answer, kernels)
    except PARSE_ERRORS as error:
        raise ModelError(
            f"{source.shown}: has facts that no table can hold: {one_line(error, local.path.parent)}"
        ) from error
    if spool is not None and [layer.shape for layer in layers] == [(row["row_size"], weights_of(row)) for row in rows]:
        spool.keep(source.id, [row["layer_name"] for row in rows], layers)
    return Scan(source, digest, facts, rows, checksums, skipped, others=others)


class Examination(NamedTuple):
    """Hold EXAMINED of a model's layers, its skipped layers, its filters by kernel shape as JSON, and other layers.

    All rows have `kernel` and `rank` besides. Those of `others` are as a scan returns them, with EXAMINED_OTHERS. If
    first filters were asked for, `facts` has what the file says of the model, and the rows have DESCRIBED and
    `first_filters`, (number, weights) float32.
    """

    rows: list[dict[str, Any]]
    skipped: list[Skip]
    filter_shapes: str
    others: list[dict[str, Any]]
    facts: dict[str, Any]


def examine(source: ModelSource, limits: Limits, kernels: Kernels = (schema.KERNEL,), *, first: int = 0) -> Examination:
    """Return what a check needs of a model's layers of these kernel shapes (None: all), and their `first` filters.

    Needs no database. Raises ModelError if the file is not a readable model or exceeds the limits, InputError if it is
    missing.
    """
    request = {"do": "examine", "kernels": kernels, "first": first}
    answer = again_if_changed(lambda: _examine_once(source, limits, request))
    variables = (*EXAMINED, *DESCRIBED) if first else EXAMINED
    try:
        rows = [layer_row(row, variables, kernels, is_stored=True) for row in as_list(answer["rows"])]
        if first:
            for row, sent in zip(rows, answer["rows"], strict=True):
                row["first_filters"] = first_filters(sent["first_filters"], row, first)
        others = other_rows(answer, kernels, EXAMINED_OTHERS)
        skipped = [Skip(*skipped_layer(entry)) for entry in as_list(answer["skipped"])]
        shapes: str = as_value(answer["filter_shapes"], "str")
        facts = model_facts(answer["facts"]) if first else {}
    except PARSE_ERRORS as error:
        raise ModelError(f"{source.shown}: expected an answer of the process that reads it, got nonsense") from error
    return Examination(rows, skipped, shapes, others, facts)


def _examine_once(source: ModelSource, limits: Limits, request: dict[str, Any]) -> dict[str, Any]:
    try:
        source = pinned(source)
        with local_copy(source.url) as local:
            refused = _refused(local.path, source.shown)
            if refused:
                raise ModelError(refused)
            if not local.path.is_file():
                raise InputError(f"{source.shown}: expected a file, found none; check the path")
            with reading(source, local, limits, request) as (channel, _):
                channel.send({"go": True})
                return _answer(channel, local)
    except StoreMissingError as error:
        raise InputError(f"{source.shown}: expected a file, found none; check the address") from error


@contextmanager
def reading(
    source: ModelSource, local: LocalInput, limits: Limits, request: dict[str, Any]
) -> Iterator[tuple[Channel, list[str]]]:
    """Yield the channel to a child that has parsed the model, and the names of its external data files.

    `request` is what `models.reading` answers. Without its `kernels`, only 3×3 layers are read.

    These files are fetched, and the child's CPU limit is raised for them. Raises ModelError if the file is not a
    readable model, or if external data is missing, too short or not allowed.
    """
    size = local.path.stat().st_size
    chosen = format_of(local.path)
    _require_extra(chosen, source.shown)
    if source.key and not chosen.has_networks:
        raise ModelError(f"{source.shown}: expected no --key: a file of {chosen.name} has one network; leave it out")
    # Absolute, because the fork server keeps the working directory in which it was started.
    path = str(local.path.absolute())
    about = {"key": source.key, "order": source.order, "path": path, "parts": local.present([local.path.name])}
    request = {**request, **about, "named": source.shown, "memory": limits.memory}
    with sandbox(chosen.reader).reading(source.shown, size, limits) as channel:
        channel.send(request)
        needed = _needed(_answer(channel, local)["external"])
        try:
            companions = local.companions(needed)
        except ModelError as error:
            raise _CompanionError(str(error)) from error
        channel.allow(limits.cpu(size + sum(companions.values())), local.present([local.path.name, *companions]))
        yield channel, list(companions)


def _require_extra(chosen: Format, shown: str) -> None:
    """Raise MissingExtraError if a module that the format needs is not installed."""
    for module in chosen.modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"{shown}: reading {chosen.name} needs the extra: pip install 'filterdb[{chosen.extra}]'"
            )


def _needed(answer: Any) -> dict[str, int]:
    """Return the external data files that the child says the model needs, and the bytes of each."""
    if not isinstance(answer, dict) or not all(type(size) is int and size >= 0 for size in answer.values()):
        raise NoAnswerError("files that are no names and sizes")
    return answer


def received(channel: Channel, local: LocalInput) -> Any:
    """Return the child's next message, after fetching the parts of the file that it asks for before that."""
    for _ in range(MAX_FETCHES):
        message = channel.receive()
        if not isinstance(message, dict) or "missing" not in message:
            return message
        channel.send({"parts": local.fetch(_parts(message["missing"], local))})
    raise NoAnswerError("too many requests for parts of the file")


def _parts(wanted: Any, local: LocalInput) -> dict[str, list[tuple[int, int]]]:
    """Return the parts of files that the child asks for, of which each must be inside its file."""
    try:
        ranges = {str(name): [(start, stop) for start, stop in as_list(spans)] for name, spans in wanted.items()}
    except (ValueError, AttributeError) as error:
        raise NoAnswerError("parts that are no ranges") from error
    for name, spans in ranges.items():
        size = local.partial[name].size if name in local.partial else 0
        if not all(type(start) is type(stop) is int and 0 <= start < stop <= size for start, stop in spans):
            raise NoAnswerError("parts that are outside the file")
    return ranges


def _answer(
    channel: Channel, local: LocalInput, layers: list[np.ndarray] | None = None, spool: Spool | None = None
) -> dict[str, Any]:
    """Return the child's answer. Raises ModelError with the child's reason if it rejects the file.

    Before the answer, a child sends the filters of layers, if `spool` has room. They are added to `layers`.
    """
    answer = received(channel, local)
    while layers is not None and spool is not None and isinstance(answer, dict) and "filters" in answer:
        if len(layers) == MAX_LAYERS:
            raise NoAnswerError("filters of too many layers")
        rows = spool.reserve(*filters_shape(answer["filters"]))
        channel.send({"send": rows is not None})
        if rows is not None:
            channel.receive_into(rows)
            layers.append(rows)
        answer = received(channel, local)
    if not isinstance(answer, dict):
        raise NoAnswerError("an answer that is no object")
    if "rejected" in answer:
        raise ModelError(shortened(str(answer["rejected"]), MAX_REASON))
    return answer
