"""Serve requests about a model file of any format: parse it, describe its layers, send filters.

This module runs in a child process of the sandbox. It imports no store, has no credentials, and answers with JSON and
plain bytes.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from filterdb.errors import ModelError
from filterdb.models import parts
from filterdb.models.model import (
    Layer,
    Model,
    ModelFile,
    Request,
    Weight,
    filters_checksum,
    shape_facts,
    stored_facts,
    weight_row,
)
from filterdb.models.parse_errors import PARSE_ERRORS, NotStoredError, one_line
from filterdb.models.sandbox import Channel, allow_cpu
from filterdb.numerics import layer as whole
from filterdb.numerics.directions import directions
from filterdb.numerics.eigen import variance_ratio
from filterdb.numerics.measures import centre_energy
from filterdb.numerics.pointwise import channel_p_value
from filterdb.numerics.quality import orthogonality, variance_entropy
from filterdb.numerics.spectrum import second_moments
from filterdb.numerics.sphericity import p_value, relative_spread
from filterdb.schema import KERNEL, WEIGHTS, kernel_name


def serve(channel: Channel, open_file: Callable[[Path, Request], ModelFile]) -> None:
    """Answer one request about one file.

    The request is {"do": a name in _ANSWERS, "path", "named": the file's name in messages, "memory": bytes, "key",
    "order", "kernels": shapes as [rows, columns], or null for all, …}. `open_file(path, request)` parses a file, and
    raises ModelError if it is not a readable model.
    """
    request = channel.receive()
    path = Path(request["path"])
    parts.begin(channel, path.parent, request.get("parts", {}))
    try:
        file = open_file(path, _asked(request))
        channel.send({"external": file.external_files()})
        allowed = channel.receive()
        allow_cpu(allowed["cpu"])
        parts.add(allowed.get("parts", {}))
        answer = channel.receive()
        if answer["go"]:
            _ANSWERS[request["do"]](channel, file.model(), request)
    except ModelError as error:
        channel.send({"rejected": str(error).replace(str(path), request["named"])})
    except MemoryError:
        raise
    except PARSE_ERRORS as error:
        reason = one_line(error, path.parent)
        channel.send({"rejected": f"{request['named']}: not readable as a model: {reason}"})


def _asked(request: dict[str, Any]) -> Request:
    """Return what a request says of the file and of what is read of it."""
    kernels = request.get("kernels", [KERNEL])
    return Request(
        request["named"],
        request["memory"],
        request.get("key", ""),
        tuple(request.get("order", ())),
        None if kernels is None else tuple((rows, columns) for rows, columns in kernels),
    )


@contextmanager
def _reading_weight(folder: Path) -> Iterator[None]:
    """Turn errors of reading a weight into NotStoredError, which has the ledger's code and reason."""
    try:
        yield
    except MemoryError:
        raise NotStoredError("memory", "its weight takes more memory than reading a model may take") from None
    except PARSE_ERRORS as error:
        raise NotStoredError("unreadable", f"its weight cannot be read: {one_line(error, folder)}") from error


def _scan(channel: Channel, model: Model, request: dict[str, Any]) -> None:
    """Send the model's facts, layer rows, checksums of the layers' filters, other layers' rows, and skipped layers.

    With `keep` in the request, send also the filters, layer by layer, as long as the parent process wants them.
    """
    folder, keep = Path(request["path"]).parent, request["keep"]
    rows, checksums, shapes = [], [], model.shapes
    parts.fetch_weights([*model.layers, *model.others])
    skipped = [[skip.layer, skip.code, skip.reason] for skip in model.skipped]
    for layer in model.layers:
        try:
            with _reading_weight(folder):
                weight = layer.weight()
                row, checksum = _row(layer, weight), filters_checksum(weight.filters)
        except NotStoredError as error:
            skipped.append([layer.name, error.code, error.reason])
            _discount(layer, error, shapes)
            continue
        rows.append(row)
        checksums.append(checksum)
        if keep:
            channel.send({"filters": weight.filters.shape})
            keep = channel.receive()["send"]
        if keep:
            channel.send_array(np.ascontiguousarray(weight.filters))
    others = _others(model, folder, skipped, lambda layer, weight: {})
    facts = {**model.facts, **shape_facts(shapes)}
    channel.send({"facts": facts, "rows": rows, "checksums": checksums, "others": others, "skipped": skipped})


def _discount(layer: Layer, error: NotStoredError, shapes: Counter[tuple[int, ...]]) -> None:
    """Count the filters of an unreadable weight no more, because the file's metadata may be wrong about it."""
    if error.code == "unreadable" and layer.rank == 2:
        shapes[layer.kernel] -= layer.filters


def _others(
    model: Model, folder: Path, skipped: list[list[str]], more: Callable[[Layer, Weight], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of the layers whose filters no bank has, with `more` values of each.

    What cannot be read is added to `skipped`.
    """
    rows = []
    for layer in model.others:
        try:
            with _reading_weight(folder):
                weight = layer.weight()
                rows.append({**_other_row(layer, weight), **more(layer, weight)})
        except NotStoredError as error:
            skipped.append([layer.name, error.code, error.reason])
            _discount(layer, error, model.shapes)
    return rows


def _other_row(layer: Layer, weight: Weight) -> dict[str, Any]:
    return {
        **_shaped(layer),
        **layer.row,
        **stored_facts(weight),
        **whole.contents(weight.filters, layer.row["out_channels"])._asdict(),
        "fingerprint": "",
        "orthogonality": math.nan,
    }


def _shaped(layer: Layer) -> dict[str, Any]:
    return {"kernel": kernel_name(layer.kernel), "rank": layer.rank}


def _row(layer: Layer, weight: Weight) -> dict[str, Any]:
    """Return a layer's complete row, with the values that need the whole layer in memory."""
    return {
        **_shaped(layer),
        **layer.row,
        **weight_row(weight, layer.row["out_channels"]),
        "orthogonality": orthogonality(weight.filters, layer.row["out_channels"]),
    }


def _examine(channel: Channel, model: Model, request: dict[str, Any]) -> None:
    """Send what a check needs of every layer, and skipped layers. One layer is in memory at a time.

    A layer with NaN or infinities has a row without measurements. With `first` in the request, a row has so many of
    its first filters, and the answer has the model's facts.
    """
    folder, first = Path(request["path"]).parent, request.get("first", 0)
    rows = []
    skipped = [[skip.layer, skip.code, skip.reason] for skip in model.skipped]
    stored: dict[int, str] = {}
    parts.fetch_weights([*model.layers, *model.others])
    for layer in model.layers:
        facts = {**_shaped(layer), **layer.row, "shared_with": stored.get(layer.stored_weight, "")}
        stored.setdefault(layer.stored_weight, layer.name)
        try:
            with _reading_weight(folder):
                weight = layer.weight()
                rows.append({**facts, **_measured(layer, weight), "first_filters": _encoded(weight.filters[:first])})
        except NotStoredError as error:
            if error.code == "nonfinite":
                rows.append({**facts, **_UNMEASURED, "row_size": layer.filters, "nonfinite": error.reason})
            else:
                skipped.append([layer.name, error.code, error.reason])
    # Counted before weights are read: a check names what the file says that it has.
    shapes = shape_facts(model.shapes)["filter_shapes"]

    def more(layer: Layer, weight: Weight) -> dict[str, Any]:
        shared = stored.get(layer.stored_weight, "")
        stored.setdefault(layer.stored_weight, layer.name)
        p = channel_p_value(weight.filters, layer.row["out_channels"])
        return {"shared_with": shared, "channel_p_value": p, "norm": whole.norm(weight.filters)}

    others = _others(model, folder, skipped, more)
    about = {"facts": {**model.facts, **shape_facts(model.shapes)}} if first else {}
    channel.send({"rows": rows, "others": others, "skipped": skipped, "filter_shapes": shapes, **about})


def _encoded(filters: np.ndarray) -> str:
    """Return filters as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(filters, "<f4").tobytes()).decode()


_UNMEASURED = {
    **dict.fromkeys(
        ("sparse_filters", "duplicate_filters", "prunable_filters", "zero_channels", "small_channels", "direction"),
        0,
    ),
    **dict.fromkeys(
        (
            *("peak", "variance_entropy", "p_value", "relative_spread", "outlier_ratio", "direction_share"),
            *("centre_energy", "norm"),
        ),
        math.nan,
    ),
    **{"scale_known": True, "hash": "", "fingerprint": "", "source_dtype": "", "first_filters": ""},
}


def _measured(layer: Layer, weight: Weight) -> dict[str, Any]:
    """Return what a check needs of a weight. Sparse filters are not counted as duplicates."""
    out_channels = layer.row["out_channels"]
    facts = weight_row(weight, out_channels)
    peaks = whole.filter_peaks(weight.filters)
    sparse = whole.sparse_filters(peaks, facts["peak"])
    raw = whole.moments(weight.filters)
    direction = directions(raw, layer.kernel)
    second = second_moments(raw)
    return {
        **{name: facts[name] for name in ("row_size", "scale_known", "hash", "fingerprint", "peak", "source_dtype")},
        **whole.channels(peaks, out_channels)._asdict(),
        "sparse_filters": int(sparse.sum()),
        "duplicate_filters": int((whole.repeated_filters(weight.filters) & ~sparse).sum()),
        "variance_entropy": float(variance_entropy(variance_ratio(raw))),
        "direction": int(direction.code),
        "direction_share": float(direction.share),
        "p_value": float(p_value(whole.moments(weight.filters, peaks))),
        "relative_spread": float(relative_spread(raw)),
        "centre_energy": centre_energy(second, layer.kernel),
        "norm": math.sqrt(float(np.trace(second)) * len(weight.filters)),
        "nonfinite": "",
    }


def _filters(channel: Channel, model: Model, request: dict[str, Any]) -> None:
    """Send, for each [name, first, last] of the request, the layer's checksum and size, then rows [first, last)."""
    layers = {layer.name: layer for layer in model.layers}
    parts.fetch_weights(layers[name] for name, _, _ in request["wanted"] if name in layers)
    for name, first, last in request["wanted"]:
        try:
            filters = layers[name].weight().filters
        except (KeyError, NotStoredError):
            filters = np.empty((0, WEIGHTS), np.float32)
        channel.send({"rows": len(filters), "checksum": filters_checksum(filters)})
        channel.send_array(filters[first:last])


_ANSWERS = {"scan": _scan, "examine": _examine, "filters": _filters}
