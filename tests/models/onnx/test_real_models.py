"""The real models of the demo: counts that were measured independently, weights against onnx.numpy_helper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from filterdb.models.catalog import ModelSource, parse_catalog
from filterdb.models.onnx.layers import read_model

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
