"""Depths, names, order and facts of a model's graph."""

from __future__ import annotations

import json
from pathlib import Path

import networkx
import numpy as np
import onnx
import pytest
from onnx import helper

from filterdb.models.onnx.graph import build_graph
from filterdb.models.onnx.layers import read_model
from tests.models import conv, model, save, tensor, weights

SQUARE = weights(3, 3)
INITS = [tensor("w", SQUARE), tensor("p", weights(3, 3, kernel=(1, 1)))]


def test_conv_depth_ranks_distinct_longest_paths_of_all_kernels(tmp_path: Path) -> None:
    """x → a(3×3) → relu → b(1×1) → c(3×3), d(3×3) parallel to c. Ranks: a 0, b 1, c and d 2."""
    nodes = [
        conv("x", "w", "a_", "a"),
        helper.make_node("Relu", ["a_"], ["r"]),
        conv("r", "p", "b_", "b"),
        conv("b_", "w", "y", "c"),
        conv("b_", "w", "z", "d"),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    rows = {layer.name: layer.row for layer in found.layers}
    assert {name: row["conv_depth"] for name, row in rows.items()} == {"a": 0, "c": 2, "d": 2}
    assert {name: row["conv_depth_norm"] for name, row in rows.items()} == {"a": 0.0, "c": 1.0, "d": 1.0}
    assert {name: row["graph_depth"] for name, row in rows.items()} == {"a": 1, "c": 4, "d": 4}
    assert found.facts["model_depth"] == 4
    assert json.loads(found.facts["filter_shapes"]) == {"(1, 1)": 9, "(3, 3)": 27}
    assert (found.facts["total_filters"], found.facts["share_3x3"]) == (27, 1.0)
    assert json.loads(found.facts["operators"]) == {"Conv": 4, "Relu": 1}


def test_the_longest_of_several_paths_counts(tmp_path: Path) -> None:
    nodes = [
        conv("x", "w", "s", "short"),
        helper.make_node("Relu", ["x"], ["r1"]),
        helper.make_node("Relu", ["r1"], ["r2"]),
        helper.make_node("Add", ["s", "r2"], ["sum"]),
        conv("sum", "w", "y", "end"),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    assert [layer.row["graph_depth"] for layer in found.layers] == [1, 4]


def test_one_depth_only_is_zero(tmp_path: Path) -> None:
    nodes = [conv("x", "w", "y", "a"), conv("x", "w", "z", "b")]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    assert [(layer.name, layer.row["conv_depth_norm"]) for layer in found.layers] == [("a", 0.0), ("b", 0.0)]


def test_computed_weights_count_for_the_ranks(tmp_path: Path) -> None:
    """A two-dimensional convolution whose weight is computed is skipped, but has its depth."""
    nodes = [
        conv("x", "w", "h", "a"),
        helper.make_node("Relu", ["h"], ["made"]),
        helper.make_node("Conv", ["h", "made"], ["k"], name="skipped", kernel_shape=[3, 3]),
        conv("k", "w", "y", "b"),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    assert {layer.name: layer.row["conv_depth"] for layer in found.layers} == {"a": 0, "b": 2}


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [conv("h", "w", "y", "late"), conv("x", "w", "h", "early")]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    assert [layer.name for layer in found.layers] == ["early", "late"]


def test_names_are_unique(tmp_path: Path) -> None:
    """A repeated name gets #k; one that is another's own name is left to it; without a name the first output serves."""
    nodes = [
        conv("x", "w", "o1", "c"),
        conv("x", "w", "o2", "c"),
        conv("x", "w", "o3", "c#2"),
        conv("x", "w", "o4", "c"),
        conv("x", "w", "plain"),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, INITS)))
    assert [layer.name for layer in found.layers] == ["c", "c#3", "c#2", "c#4", "plain"]


def test_numbered_nodes_are_named_after_their_weights(tmp_path: Path) -> None:
    """As PyTorch 2.13 exports with dynamo=True: nodes have numbers, and initializers the names of the state dict."""
    names = {
        "node_Conv_12": ("layer1.0.conv1.weight", "layer1.0.conv1"),
        "node_conv2d_3": ("head", "head"),
        "node_conv2d": ("0.weight", "0"),
        "node_Conv_13": ("val_4", "node_Conv_13"),  # a weight that the exporter computed
        "node_Conv_14": ("onnx::Conv_7", "node_Conv_14"),
        "node_Conv_15": ("weight", "node_Conv_15"),
        "/layer2/conv/Conv": ("layer2.conv.weight", "/layer2/conv/Conv"),  # as exported with dynamo=False
        "convolution": ("last.weight", "convolution"),
    }
    nodes = [conv("x", weight, f"y{i}", name) for i, (name, (weight, _)) in enumerate(names.items())]
    # Shared by a second node, and behind a cast.
    nodes += [conv("x", "head", "y8", "node_conv2d_9"), conv("x", "cast", "y9", "node_conv2d_10")]
    nodes.append(helper.make_node("Cast", ["stem.conv.weight"], ["cast"], to=onnx.TensorProto.FLOAT))
    inits = [tensor(weight, weights()) for weight, _ in names.values()]
    inits.append(tensor("stem.conv.weight", weights().astype(np.float16)))
    found = read_model(save(tmp_path / "m.onnx", model(nodes, inits)))
    expected = [*(name for _, name in names.values()), "head#2", "stem.conv"]
    assert sorted(layer.name for layer in found.layers) == sorted(expected)


def test_batch_normalization_is_seen(tmp_path: Path) -> None:
    scale = [tensor(name, np.ones(3, np.float32)) for name in "sbmv"]
    nodes = [
        conv("x", "w", "h", "followed"),
        helper.make_node("BatchNormalization", ["h", "s", "b", "m", "v"], ["n"]),
        conv("n", "w", "y", "folded"),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, [*INITS, *scale])))
    assert {layer.name: layer.row["bn_folded"] for layer in found.layers} == {"followed": False, "folded": True}


def test_opset_and_producer(tmp_path: Path) -> None:
    proto = model([conv("x", "w", "y")], INITS, producer_version="7")
    facts = read_model(save(tmp_path / "m.onnx", proto)).facts
    assert (facts["opset"], facts["producer"]) == (21, "tests 7")


@pytest.mark.parametrize("name", ["thin-resnet50", "mtcnn-onet", "ppocr-v4-det", "light-densenet121"])
def test_depths_of_real_models_equal_networkx(demo_catalog: Path, name: str) -> None:
    """Longest paths from the graph inputs, by another library's topological sort, on models without bodies."""
    from filterdb.models.catalog import parse_catalog

    (source,) = [s for s in parse_catalog(demo_catalog.read_bytes(), str(demo_catalog)) if s.id == name]
    proto = onnx.load(source.url)
    weights_of = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info.name for info in proto.graph.input if info.name not in weights_of]
    graph = networkx.DiGraph()
    for i, node in enumerate(proto.graph.node):
        graph.add_edges_from((value, ("node", i)) for value in node.input if value)
        graph.add_edges_from((("node", i), value) for value in node.output if value)
    longest: dict[object, int] = dict.fromkeys(inputs, 0)
    for vertex in networkx.topological_sort(graph):
        before = [longest[v] for v in graph.predecessors(vertex) if v in longest]
        if before:
            longest[vertex] = max(before) + (isinstance(vertex, tuple))
    expected = [longest.get(("node", i)) for i in range(len(proto.graph.node))]
    assert [node.length for node in build_graph(proto).nodes] == expected
    assert build_graph(proto).depth == len({length for length in expected if length is not None})
