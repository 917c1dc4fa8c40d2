"""What the child process does with a model's file: parse, look at each layer, hand out filters.

Runs in the sandbox: it imports no store, has no credentials, and answers in JSON and plain bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import onnx
import onnx.reference  # now, and not in each child that evaluates an expression

from filterdb.errors import ModelError
from filterdb.models.onnx.constants import ODD, NotStoredError, one_line
from filterdb.models.onnx.convolution import Weight, weight_value
from filterdb.models.onnx.external import external_files
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import Layer, Model, read_model, shape_facts, weight_row
from filterdb.models.sandbox import Channel, allow_cpu
from filterdb.numerics import layer as whole
from filterdb.numerics.eigen import decompose
from filterdb.numerics.quality import orthogonality, variance_entropy
from filterdb.schema import KERNEL, WEIGHTS


def serve(channel: Channel) -> None:
    """Answer one request: {"do": a name of _ANSWERS, "path", "named": how the file is called, "memory": bytes, …}."""
    request = channel.receive()
    path = Path(request["path"])
    try:
        proto = parse(path, request["memory"])
        channel.send({"external": external_files(proto)})
        allow_cpu(channel.receive()["cpu"])
        answer = channel.receive()
        if answer["go"]:
            _ANSWERS[request["do"]](channel, path, proto, request)
    except ModelError as error:
        channel.send({"rejected": str(error).replace(str(path), request["named"])})
    except MemoryError:
        raise
    except ODD as error:
        reason = one_line(error, path.parent)
        channel.send({"rejected": f"{request['named']}: not readable as a model: {reason}"})


def _scan(channel: Channel, path: Path, proto: onnx.ModelProto, request: dict[str, Any]) -> None:
    """Facts, rows and their filters' checksums, what is skipped; no filters."""
    model = read_model(path, proto)
    rows, checksums, shapes = [], [], model.shapes
    skipped = [[skip.layer, skip.code, skip.reason] for skip in model.skipped]
    for layer in model.layers:
        try:
            weight = layer.weight()
            row, checksum = _row(layer, weight), filters_checksum(weight.filters)
        except NotStoredError as error:
            skipped.append([layer.name, error.code, error.reason])
            # What cannot be read has the filters that its head speaks of no more than any others.
            shapes[KERNEL] -= layer.filters if error.code == "unreadable" else 0
            continue
        except MemoryError:
            skipped.append([layer.name, "memory", "its weight takes more memory than reading a model may take"])
            continue
        except ODD as error:
            reason = one_line(error, path.parent)
            skipped.append([layer.name, "unreadable", f"its weight cannot be read: {reason}"])
            shapes[KERNEL] -= layer.filters
            continue
        rows.append(row)
        checksums.append(checksum)
    facts = {**model.facts, **shape_facts(shapes)}
    channel.send({"facts": facts, "rows": rows, "checksums": checksums, "skipped": skipped})


def _row(layer: Layer, weight: Weight) -> dict[str, Any]:
    """A layer's complete row; what needs the layer whole is computed here, where it is."""
    return {
        **layer.row,
        **weight_row(weight),
        "orthogonality": orthogonality(weight.filters, layer.row["out_channels"]),
    }


def _examine(channel: Channel, path: Path, proto: onnx.ModelProto, request: dict[str, Any]) -> None:
    """Of every layer what a check needs, one layer in memory at a time; no filters, no checksums.

    A layer with NaN or infinities is among the rows, without numbers.
    """
    model = read_model(path, proto)
    rows = []
    skipped = [[skip.layer, skip.code, skip.reason] for skip in model.skipped]
    stored: dict[int, str] = {}
    for layer in model.layers:
        facts = {**layer.row, "shared_with": stored.get(_origin(layer), "")}
        stored.setdefault(_origin(layer), layer.name)
        try:
            rows.append({**facts, **_measured(layer.weight(), layer.row["out_channels"])})
        except NotStoredError as error:
            if error.code == "nonfinite":
                rows.append({**facts, **_UNMEASURED, "row_size": layer.filters, "nonfinite": error.reason})
            else:
                skipped.append([layer.name, error.code, error.reason])
        except MemoryError:
            skipped.append([layer.name, "memory", "its weight takes more memory than reading a model may take"])
        except ODD as error:
            skipped.append([layer.name, "unreadable", f"its weight cannot be read: {one_line(error, path.parent)}"])
    channel.send({"rows": rows, "skipped": skipped})


_UNMEASURED = {
    **dict.fromkeys(
        ("sparse_filters", "duplicate_filters", "prunable_filters", "zero_channels", "small_channels"),
        0,
    ),
    **dict.fromkeys(("peak", "variance_entropy", "outlier_ratio"), math.nan),
    **{"scale_known": True, "hash": ""},
}


def _measured(weight: Weight, out_channels: int) -> dict[str, Any]:
    """What a check needs of a weight. A filter that is sparse is not counted as a duplicate as well."""
    facts = weight_row(weight)
    peaks = whole.filter_peaks(weight.filters)
    sparse = whole.sparse_filters(peaks, facts["peak"])
    return {
        **{name: facts[name] for name in ("row_size", "scale_known", "hash", "peak")},
        **whole.channels(peaks, out_channels)._asdict(),
        "sparse_filters": int(sparse.sum()),
        "duplicate_filters": int((whole.repeated_filters(weight.filters) & ~sparse).sum()),
        "variance_entropy": float(variance_entropy(decompose(whole.moments(weight.filters)).explained_variance_ratio)),
        "nonfinite": "",
    }


_PASSED = {"Identity", "Cast", "DequantizeLinear", "Reshape", "Transpose"}


def _origin(layer: Layer) -> int:
    """Where a layer's weight is stored: the same for all the layers that share it.

    By what stands in the file: a constant inside of a local function has a value of its own for each call.
    """
    value = weight_value(layer.node)
    while value is not None and value.producer is not None and value.producer.op_type in _PASSED:
        value = value.producer.input(0)
    if value is not None and value.producer is not None and "value" in value.producer.attributes:
        return id(value.producer.attributes["value"])
    return id(value if value is None or value.tensor is None else value.tensor)


def _filters(channel: Channel, path: Path, proto: onnx.ModelProto, request: dict[str, Any]) -> None:
    """For each of the wanted [name, first, last]: its checksum and size, then its rows [first, last)."""
    layers = layers_by_name(read_model(path, proto))
    for name, first, last in request["wanted"]:
        try:
            filters = layers[name].weight().filters
        except (KeyError, NotStoredError):
            filters = np.empty((0, WEIGHTS), np.float32)
        channel.send({"rows": len(filters), "checksum": filters_checksum(filters)})
        channel.send_array(filters[first:last])


_ANSWERS = {"scan": _scan, "examine": _examine, "filters": _filters}


def filters_checksum(filters: np.ndarray) -> int:
    """CRC32C of filters (n, 9): enough to notice a file that has changed, and next to free."""
    return int(crc32c.crc32c(np.ascontiguousarray(filters, dtype="<f4").data.cast("B")))


def layers_by_name(model: Model) -> dict[str, Layer]:
    """The layers of a model by their unique names."""
    return {layer.name: layer for layer in model.layers}
