"""The real models of the demo: counts that were measured independently, weights against onnx.numpy_helper."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from filterdb.models.catalog import ModelSource, parse_catalog
from filterdb.models.onnx.layers import read_model
from filterdb.models.sandbox import Limits
from filterdb.models.scan import scan

# 3×3 convolutions with one group, their filters; depthwise ones; all Conv nodes
COUNTS = {
    "mtcnn-pnet": (3, 702, 0, 5),
    "mtcnn-rnet": (2, 1_428, 0, 3),
    "mtcnn-onet": (3, 6_240, 0, 4),
    "ppocr-v4-det": (6, 11_568, 6, 62),
    "ppocr-v4-rec": (1, 48, 6, 38),
    "ppocr-v2-cls": (1, 24, 3, 53),
    "basic-pitch": (1, 33, 0, 32),
    "thin-resnet50": (16, 314_368, 0, 53),
}


@pytest.fixture(scope="module")
def sources(demo_catalog: Path) -> dict[str, ModelSource]:
    return {source.id: source for source in parse_catalog(demo_catalog.read_bytes(), str(demo_catalog))}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(sources: dict[str, ModelSource], name: str) -> None:
    found = read_model(Path(sources[name].url))
    dense = [layer for layer in found.layers if not layer.row["depthwise"]]
    filters = sum(len(layer.weight().filters) for layer in dense)
    ledger = Counter(skip.code for skip in found.skipped)
    convolutions = len(found.layers) + ledger["kernel"]
    assert (len(dense), filters, len(found.layers) - len(dense), convolutions) == COUNTS[name]


def test_speech_models_are_one_dimensional(sources: dict[str, ModelSource]) -> None:
    """Convolutions inside If bodies, and without kernel_shape."""
    silero = [source for name, source in sources.items() if name.startswith("silero")]
    assert len(silero) == 6
    for source in silero:
        found = read_model(Path(source.url))
        assert not found.layers
        assert found.skipped
        assert {skip.code for skip in found.skipped} == {"rank"}


def test_models_without_weights(sources: dict[str, ModelSource]) -> None:
    light = [source for name, source in sources.items() if name.startswith("light")]
    assert len(light) == 9
    for source in light:
        found = read_model(Path(source.url))
        proto = onnx.load(source.url)
        convolutions = sum(node.op_type == "Conv" for node in proto.graph.node)
        assert not found.layers
        assert Counter(skip.code for skip in found.skipped) == {"generated": convolutions}


@pytest.mark.parametrize("name", ["mtcnn-onet", "thin-resnet50", "ppocr-v4-det"])
def test_weights(sources: dict[str, ModelSource], name: str) -> None:
    """As many layers, each with the very numbers of the model's tensors."""
    proto = onnx.load(sources[name].url)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant"}
    expected = []
    for node in proto.graph.node:
        if node.op_type == "Conv" and list(tensors[node.input[1]].dims)[2:] == [3, 3]:
            expected.append(numpy_helper.to_array(tensors[node.input[1]]).reshape(-1, 9))
    found = [layer.weight().filters for layer in read_model(Path(sources[name].url)).layers]
    assert len(found) == len(expected)
    order = {filters.tobytes(): None for filters in found}
    assert order.keys() == {filters.tobytes() for filters in expected}
    np.testing.assert_equal(sum(map(len, found)), sum(map(len, expected)))


def convolutions(graph: onnx.GraphProto, outer: dict[str, onnx.TensorProto]) -> Iterator[np.ndarray]:
    """The weights of the Conv nodes of a graph and of its bodies, by onnx alone."""
    tensors = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from convolutions(attribute.g, tensors)
        if node.op_type == "Conv" and node.input[1] in tensors:
            yield numpy_helper.to_array(tensors[node.input[1]])


def test_every_shape_of_every_model(sources: dict[str, ModelSource]) -> None:
    """Kernels and hashes of layers are those of an independent reader; the 3×3 ones are the same if asked for alone."""
    total: Counter[str] = Counter()
    for source in sources.values():
        full, three = (scan(source, None, Limits(), kernels=kernels) for kernels in (None, ((3, 3),)))
        expected = Counter(
            (
                "x".join(map(str, (1, *weight.shape[2:])[-2:])),
                weight.ndim - 2,
                hashlib.sha256(weight.tobytes()).hexdigest(),
            )
            for weight in convolutions(onnx.load(source.url).graph, {})
        )
        rows = [*full.rows, *full.others]
        assert Counter((row["kernel"], row["rank"], row["hash"]) for row in rows) == expected
        assert {skip.code for skip in full.skipped} <= {"generated", "transposed"}
        np.testing.assert_equal(three.rows, [row for row in full.rows if (row["kernel"], row["rank"]) == ("3x3", 2)])
        assert three.facts == full.facts and not three.others
        assert len(three.rows) + len(three.skipped) == len(rows) + len(full.skipped)
        for row in rows:
            total[row["kernel"]] += row["row_size"]
    assert total["3x3"] == 335_243
    assert sum(total.values()) > 10 * total["3x3"] and {"1x1", "5x5", "1x3", "7x7"} <= total.keys()
