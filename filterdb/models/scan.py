"""Scan a model file: ask a child process for its rows and ledger, and validate the answer."""

from __future__ import annotations

import importlib.util
import math
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from filterdb.models.catalog import ModelSource
from filterdb.models.file_kinds import recognise
from filterdb.models.fingerprint import SourceRecord, identify, is_unchanged
from filterdb.models.formats import ONNX, Format, format_of, format_of_kind
from filterdb.models.hub_files import pinned
from filterdb.models.inputs import LocalInput, local_copy
from filterdb.models.model import MAX_FILTERS, Skip
from filterdb.models.parse_errors import MAX_NAME, PARSE_ERRORS, one_line, shortened
from filterdb.models.sandbox import Channel, Limits, NoAnswerError, sandbox
from filterdb.models.spool import Spool
from filterdb.store import download
from filterdb.store.ranged import again_if_changed
from filterdb.store.remote import is_remote

MAX_REASON = 2 * MAX_NAME
"""Most characters of a reason, which may begin with a path."""

MAX_FETCHES = 10_000
"""Most times that a child may ask for parts of a file before it answers."""

MAX_LAYERS = 100_000
"""Most layers whose filters a child may send before it answers."""

MAX_TEXT = 2**22
"""Most characters of a text in a table. The longest are a model's operators and filter shapes."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan.

    `checksums` are those of the rows' filters; the write compares them. `rejected` is why the file is not a readable
    model, and `error` the error if the file was not read at all. `known` is true if the store has this content.
    `identities` identify the content of a remote file and its companions (see `fingerprint`); {} if nothing does.
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


class _CompanionError(ModelError):
    """A model's external data cannot be used. It may be repaired while the model's own file stays the same."""


def scan(
    source: ModelSource,
    known_hash: str | None,
    limits: Limits,
    records: Sequence[SourceRecord] = (),
    spool: Spool | None = None,
) -> Scan:
    """Read a model. If its hash is `known_hash`, the store has this content under this id, and no more is read.

    The filters are kept in `spool` as long as it has room for them, so that the write need not read the file again.
    The result has the source with a URL that names a commit, if it is one of the hub. A remote file is not even fetched
    if it has not changed since one of the `records`. If it cannot be fetched, it is rejected, because the other models
    of a run may be elsewhere. Raises InputError if a local file is missing.
    """
    if not is_remote(source.url):
        return _scan_file(source, known_hash, limits, spool)[0]
    try:
        source = _pinned(source)
        identity = download.identity(source.url)
        for record in records:
            if is_unchanged(record, source.url, identity):
                rejected = record.rejected or None
                return Scan(source, record.file_hash, rejected=rejected, known=not rejected)
        result, companions = again_if_changed(lambda: _scan_file(source, known_hash, limits, spool))
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
    source: ModelSource, known_hash: str | None, limits: Limits, spool: Spool | None
) -> tuple[Scan, list[str] | None]:
    """Read a model, and return the result and the companions on which it depends; None if they are not all known."""
    try:
        with local_copy(source.url) as local:
            refused = _refused(local.path, source.shown)
            if refused:
                return _rejected(source, "", refused), []
            try:
                return _scan_or_reject(source, local, known_hash, limits, spool)
            except StoreError as error:
                if local.origin is not None or isinstance(error, StoreMissingError):
                    raise
                return _rejected(source, "", _unreadable(source.shown, error.__cause__)), None
    except StoreMissingError as error:
        raise InputError(f"model {source.id!r}: expected a file at {source.shown}, found none") from error


def _scan_or_reject(
    source: ModelSource, local: LocalInput, known_hash: str | None, limits: Limits, spool: Spool | None
) -> tuple[Scan, list[str] | None]:
    companions: list[str] = []
    try:
        return _scan(source, local, known_hash, limits, companions, spool), companions
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
) -> Scan:
    """Scan a file on this machine, and add the names of its external data files to `companions`."""
    layers: list[np.ndarray] = []
    request = {"do": "scan", "keep": spool is not None and spool.room > 0}
    with reading(source, local, limits, request) as (channel, names):
        companions += names
        digest = local.digest(companions, source.key, source.order)
        channel.send({"go": digest != known_hash})
        if digest == known_hash:
            return Scan(source, digest, known=True)
        answer = _answer(channel, local, layers, spool)
    try:
        facts, rows, checksums, skipped = checked(answer)
    except PARSE_ERRORS as error:
        raise ModelError(
            f"{source.shown}: has facts that no table can hold: {one_line(error, local.path.parent)}"
        ) from error
    if spool is not None and [len(layer) for layer in layers] == [row["row_size"] for row in rows]:
        spool.keep(source.id, [row["layer_name"] for row in rows], layers)
    return Scan(source, digest, facts, rows, checksums, skipped)


EXAMINED = (
    *(v for v in schema.LAYER_VARIABLES if v.name in {
        "layer_name", "row_size", "conv_depth", "conv_depth_norm", "in_channels", "out_channels", "groups",
        "depthwise", "operator", "scale_known", "hash", "fingerprint", "peak",
    }),
    schema.Variable("variance_entropy", ("layer",), "float64", "H of the layer's own raw PCA (P1 eq. 7)"),
    schema.Variable("direction", ("layer",), "int64", "code of the direction that the filters share"),
    schema.Variable("direction_share", ("layer",), "float64", "share of the filters' energy in this direction"),
    schema.Variable("p_value", ("layer",), "float64", "of the test whether filters are isotropic noise"),
    schema.Variable("relative_spread", ("layer",), "float64", "spread of filters / norm of their mean"),
    schema.Variable("sparse_filters", ("layer",), "int64", "filters whose |w| are all below peak/100", "1"),
    schema.Variable("duplicate_filters", ("layer",), "int64", "filters that equal an earlier one of the layer", "1"),
    schema.Variable("prunable_filters", ("layer",), "int64", "filters below a hundredth of their channel", "1"),
    schema.Variable("zero_channels", ("layer",), "int64", "output channels whose weights are all zero", "1"),
    schema.Variable("small_channels", ("layer",), "int64", "other output channels that lie below peak/100", "1"),
    schema.Variable("outlier_ratio", ("layer",), "float64", "peak / upper quartile of the channels' peaks", "1"),
    schema.Variable("shared_with", ("layer",), "str", "earlier layer that uses the same stored weight, or empty"),
    schema.Variable("nonfinite", ("layer",), "str", "how many weights are NaN or infinite, or empty"),
)  # fmt: skip
"""What `examine` returns for each layer."""


class Examination(NamedTuple):
    """Hold EXAMINED of a model's layers, its skipped layers, and its filters by kernel shape as JSON."""

    rows: list[dict[str, Any]]
    skipped: list[Skip]
    filter_shapes: str


def examine(source: ModelSource, limits: Limits) -> Examination:
    """Return what a check needs of a model. Needs no database.

    Raises ModelError if the file is not a readable model or exceeds the limits, InputError if it is missing.
    """
    answer = again_if_changed(lambda: _examine_once(source, limits))
    try:
        rows = [_row(row, EXAMINED, ()) for row in _list(answer["rows"])]
        skipped = [Skip(*_skipped(entry)) for entry in _list(answer["skipped"])]
        shapes: str = _checked(answer["filter_shapes"], "str")
    except PARSE_ERRORS as error:
        raise ModelError(f"{source.shown}: expected an answer of the process that reads it, got nonsense") from error
    return Examination(rows, skipped, shapes)


def _examine_once(source: ModelSource, limits: Limits) -> dict[str, Any]:
    try:
        source = pinned(source)
        with local_copy(source.url) as local:
            refused = _refused(local.path, source.shown)
            if refused:
                raise ModelError(refused)
            if not local.path.is_file():
                raise InputError(f"{source.shown}: expected a file, found none")
            with reading(source, local, limits, {"do": "examine"}) as (channel, _):
                channel.send({"go": True})
                return _answer(channel, local)
    except StoreMissingError as error:
        raise InputError(f"{source.shown}: expected a file, found none") from error


@contextmanager
def reading(
    source: ModelSource, local: LocalInput, limits: Limits, request: dict[str, Any]
) -> Iterator[tuple[Channel, list[str]]]:
    """Yield the channel to a child that has parsed the model, and the names of its external data files.

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
        ranges = {str(name): [(start, stop) for start, stop in _list(spans)] for name, spans in wanted.items()}
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
        rows = spool.reserve(_natural(answer["filters"]))
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


def _natural(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise NoAnswerError("a number of filters that is none")
    return value


Checked = tuple[dict[str, Any], list[dict[str, Any]], list[int], list[Skip]]


def checked(answer: dict[str, Any]) -> Checked:
    """Return the facts, rows, checksums and skipped layers of an answer, and ignore anything else in it.

    The child may be controlled by the file that it reads. It can lie about the model, but do nothing else. Raises one
    of PARSE_ERRORS for missing values, and for values that their variables cannot hold.
    """
    facts = _row(answer["facts"], schema.MODEL_VARIABLES, _OURS)
    rows = [_row(row, schema.LAYER_VARIABLES, {"model_index"}) for row in _list(answer["rows"])]
    checksums = [_checked(value, "int64") for value in _list(answer["checksums"])]
    skipped = [Skip(*_skipped(entry)) for entry in _list(answer["skipped"])]
    if len(checksums) != len(rows) or len({row["layer_name"] for row in rows}) < len(rows):
        raise ValueError("layers without a checksum or a name of their own")
    sizes = [row["row_size"] for row in rows]
    if min(sizes, default=1) < 1 or sum(sizes) > MAX_FILTERS:
        raise ValueError("layers without filters, or with too many")
    if not all(0 <= row["peak"] < math.inf for row in rows):
        raise ValueError("weights that are not finite")
    return facts, rows, checksums, skipped


_OURS = {"model", "file_hash", "duplicate_of", "extra", *schema.LABELS}
"""Variables of a model that this process and the catalog provide, not the child."""

_TYPES: dict[str, tuple[type, ...]] = {"int64": (int,), "float64": (float, int), "bool": (bool,), "str": (str,)}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list that is a {type(value).__name__}")
    return value


def _row(values: Any, variables: tuple[schema.Variable, ...], elsewhere: Collection[str]) -> dict[str, Any]:
    return {
        variable.name: _checked(values[variable.name], variable.dtype)
        for variable in variables
        if variable.name not in elsewhere
    }


def _checked(value: Any, dtype: str) -> Any:
    """Return `value` if a variable of this type can hold it. Raises TypeError, OverflowError or ValueError."""
    if type(value) not in _TYPES[dtype] or (dtype == "str" and len(value) > MAX_TEXT):
        raise TypeError(f"{dtype}: {shortened(repr(value), 100)}")
    if dtype == "int64" and not -(2**63) <= value < 2**63:
        raise OverflowError(f"{dtype}: {value}")
    if dtype == "str":
        value.encode()  # raises ValueError for a lone surrogate
    return value


def _skipped(entry: Any) -> tuple[str, str, str]:
    layer, code, reason = (_checked(value, "str") for value in entry)
    if not code.removesuffix("?").isalpha() or len(code) > 20 or code == schema.REJECTED:
        raise ValueError(f"a code {code[:20]!r}")
    return layer, code, shortened(reason, MAX_REASON)
