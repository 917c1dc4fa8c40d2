"""How layers are connected, how deep they are, and what each convolution's weight and batch normalisation are."""

from __future__ import annotations

from pathlib import Path

import networkx
import numpy as np
import pytest

from filterdb.errors import ModelError
from filterdb.models.model import Model, Request
from filterdb.models.openvino import constants
from filterdb.models.openvino.reading import OpenVinoFile
from filterdb.models.parse_errors import NotStoredError
from tests.models import weights
from tests.models.openvino import Net

W = weights(4, 3)


def read(net: Net, folder: Path) -> Model:
    return OpenVinoFile.parse(net.write(folder / "m.xml"), Request("m.xml", 2**31)).model()


def with_weight(net: Net, weight: int, kind: str = "Convolution") -> Net:
    net.add("Result", [net.conv(net.input(), weight, kind=kind)])
    return net


def reason_of(net: Net, folder: Path) -> tuple[str, str]:
    """The code and the reason for which the only convolution is not stored."""
    model = read(net, folder)
    if model.skipped:
        (skip,) = model.skipped
        return skip.code, skip.reason
    (layer,) = model.layers
    with pytest.raises(NotStoredError) as caught:
        layer.weight()
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize(
    ("edge", "reason"),
    [
        ((9, 0, 2, 0), "an edge names the layer 9, which is missing"),
        ((0, 0, 9, 0), "an edge names the layer 9, which is missing"),
        ((0, 5, 3, 0), "port 5 of layer 'Parameter_0', which is not among its outputs"),
        ((0, 0, 2, 5), "port 5 of layer 'ReLU_2', which is not among its inputs"),
        ((1, 1, 2, 0), "layer 'ReLU_2': expected one edge to input port 0, got two"),
        ((-1, 0, 2, 0), "an edge names the layer -1"),
    ],
)
def test_edges_to_nowhere(tmp_path: Path, edge: tuple[int, int, int, int], reason: str) -> None:
    net = Net()
    last = net.add("ReLU", [net.add("ReLU", [net.input()])])
    net.add("Result", [last])
    net.edge(*edge)
    with pytest.raises(ModelError, match=reason):
        read(net, tmp_path)


def test_a_cycle_is_rejected(tmp_path: Path) -> None:
    net = Net()
    first = net.add("Add", [net.input()], inside='<input><port id="7"/></input>')
    second = net.add("ReLU", [first])
    net.edge(second, 1, first, 7)
    with pytest.raises(ModelError, match="is on or behind a cycle"):
        read(net, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_depth_is_that_of_the_longest_path(tmp_path: Path, seed: int) -> None:
    """Random graphs, in which constants have expressions longer than any path; networkx is the oracle."""
    rng = np.random.default_rng(seed)
    net, oracle = Net(), networkx.DiGraph()
    weight = net.const(W[:, [0, 1, 2, 0]])
    for _ in range(30):
        weight = net.add("Convert", [weight], destination_type="f32")
    values = [net.input(), net.input()]
    for name in map(str, range(25)):
        sources = [int(n) for n in rng.choice(values, size=rng.integers(1, 4))]
        joined = net.add("Concat", sources)
        oracle.add_node(joined)
        oracle.add_edges_from((source, joined) for source in sources if source not in values[:2])
        values.append(net.conv(joined, weight, name))
        oracle.add_edge(joined, values[-1])
    model = read(net, tmp_path)
    lengths: dict[int, int] = {}
    for node in networkx.topological_sort(oracle):
        lengths[node] = 1 + max((lengths[before] for before in oracle.predecessors(node)), default=0)
    expected = {str(i): lengths[value] for i, value in enumerate(values[2:])}
    assert {layer.name: layer.row["graph_depth"] for layer in model.layers} == expected
    ranks = {length: rank for rank, length in enumerate(sorted(set(expected.values())))}
    assert {layer.name: layer.row["conv_depth"] for layer in model.layers} == {n: ranks[v] for n, v in expected.items()}


def test_a_convolution_of_constants_is_unreachable(tmp_path: Path) -> None:
    net = Net()
    net.conv(net.const(np.ones((1, 3, 8, 8), np.float32)), net.const(W))
    assert reason_of(net, tmp_path)[0] == "unreachable"


def test_a_weight_from_an_input_is_computed(tmp_path: Path) -> None:
    net = Net()
    assert reason_of(with_weight(net, net.add("ReLU", [net.input()])), tmp_path)[0] == "computed"
    net = Net()
    assert reason_of(with_weight(net, net.input()), tmp_path)[0] == "computed"


def test_nothing_connected_is_missing(tmp_path: Path) -> None:
    net = Net()
    net.add("Convolution", [net.input()], inside='<input><port id="1"/></input>')
    assert reason_of(net, tmp_path)[0] == "missing"


def test_an_operator_that_is_not_evaluated(tmp_path: Path) -> None:
    net = Net()
    code, reason = reason_of(with_weight(net, net.add("Sin", [net.const(W)])), tmp_path)
    assert code == "unsupported" and "Sin" in reason
    # With a kernel that is not stored anyway, the ledger says that instead: a check is not incomplete.
    net = Net()
    weight = net.add("Sin", [net.const(W)])
    net.layers[weight] = net.layers[weight].replace(
        '<port id="1"/>', '<port id="1"><dim>4</dim><dim>3</dim><dim>1</dim><dim>1</dim></port>'
    )
    assert reason_of(with_weight(net, weight), tmp_path) == ("kernel", "the kernel of Convolution is 1×1")


@pytest.mark.parametrize(
    ("facts", "code", "reason"),
    [
        ({"offset": -1}, "unreadable", "bytes from -1"),
        ({"offset": "x"}, "unreadable", "expected an integer, got 'x'"),
        ({"size": -5}, "unreadable", "-5 bytes"),
        ({"size": W.nbytes - 1}, "unreadable", f"{W.nbytes - 1} bytes from 0"),
        ({"size": "9" * 30}, "unreadable", "expected an integer"),
        ({"shape": "4, 3, 3, -3"}, "unreadable", "says that it has shape"),
        ({"shape": "4, 3, 3, 4"}, "unreadable", "takes 576"),
        ({"shape": "2147483647, 2147483647, 3, 3"}, "unreadable", "says that it has shape"),
        ({"shape": "4, 3, , 3"}, "unreadable", "expected an integer, got ' '"),
        ({"shape": ", ".join("1" * 100)}, "unreadable", "says that it has shape"),
        ({"shape": "4, 3, 3"}, "rank", "rank 3"),
        ({"shape": "0, 3, 3, 3"}, "empty", "shape (0, 3, 3, 3)"),
        ({"shape": "4"}, "unreadable", "the weight of Convolution has shape (4,)"),
        ({"element_type": "string"}, "dtype", "'string'"),
        ({"element_type": ""}, "dtype", "''"),
    ],
)
def test_constants_that_lie(tmp_path: Path, facts: dict[str, object], code: str, reason: str) -> None:
    net = Net()
    found = reason_of(with_weight(net, net.const(W, **facts)), tmp_path)
    assert found[0] == code and reason in found[1]


def test_constants_may_overlap_and_be_shared(tmp_path: Path) -> None:
    """Two convolutions share bytes and are told apart from one that has part of them."""
    net = Net()
    weight = net.const(W)
    same = net.const(W[:0], shape="4, 3, 3, 3", offset=0, size=W.nbytes)
    part = net.const(W[:0], shape="3, 3, 3, 3", offset=36, size=W.nbytes - 36)
    source = net.input()
    for name, constant in (("a", weight), ("b", same), ("c", part)):
        net.conv(source, constant, name)
    layers = {layer.name: layer for layer in read(net, tmp_path).layers}
    assert layers["a"].stored_weight == layers["b"].stored_weight != layers["c"].stored_weight
    np.testing.assert_array_equal(layers["c"].weight().filters, W.reshape(-1, 9)[1:10])


def test_equal_bytes_with_another_scale_are_another_weight(tmp_path: Path) -> None:
    net = Net()
    weight, source = net.const(W), net.input()
    for name, scale in (("a", 2.0), ("b", 3.0)):
        net.conv(source, net.add("Multiply", [weight, net.const(np.array([scale], np.float32))]), name)
    layers = read(net, tmp_path).layers
    assert layers[0].stored_weight != layers[1].stored_weight
    for layer, scale in zip(layers, (2, 3), strict=True):
        np.testing.assert_array_equal(layer.weight().filters, scale * W.reshape(-1, 9))


def test_broadcasting_is_bounded(tmp_path: Path) -> None:
    net = Net()
    row = net.const(np.zeros((60_000, 1, 1, 1), np.float16))
    weight = net.add("Multiply", [row, net.const(np.zeros((60_000, 1, 1), np.float16))])
    assert "has 3,600,000,000 numbers" in reason_of(with_weight(net, weight), tmp_path)[1]


@pytest.mark.parametrize(("limit", "reason"), [("MAX_STEPS", "steps to compute"), ("MAX_OPERATIONS", "operations")])
def test_doubling_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str) -> None:
    """Each layer uses the one before twice, and none is kept as if it were large."""
    monkeypatch.setattr(constants, "CACHEABLE_BYTES", 0)
    monkeypatch.setattr(constants, limit, 5_000)
    net = Net()
    value = net.const(W)
    for _ in range(60):
        value = net.add("Add", [value, value])
    assert reason in reason_of(with_weight(net, value), tmp_path)[1]


def test_chains_are_bounded(tmp_path: Path) -> None:
    net = Net()
    value = net.const(W)
    for _ in range(150):
        value = net.add("Convert", [value], destination_type="f32")
    assert "behind more than 100 layers" in reason_of(with_weight(net, value), tmp_path)[1]


@pytest.mark.parametrize("target", [[4, 3, 3, 4], [-1, -1, 3, 3], [4, 3, 3, -2], [1] * 70, [0, 3, 3, 3]])
def test_reshapes_that_do_not_fit(tmp_path: Path, target: list[int]) -> None:
    net = Net()
    weight = net.add("Reshape", [net.const(W), net.const(np.array(target))], special_zero="false")
    code, reason = reason_of(with_weight(net, weight), tmp_path)
    assert code == "unreadable" and "which does not fit" in reason


def test_each_weight_has_its_own_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "MAX_STEPS", 5)
    net = Net()
    source = net.input()
    for _ in range(20):
        net.conv(source, net.add("Reshape", [net.const(W), net.const(np.array(W.shape))]))
    assert len(read(net, tmp_path).layers) == 20


@pytest.mark.parametrize(("kind", "inputs"), [("Multiply", 0), ("Multiply", 1), ("Reshape", 1), ("FakeQuantize", 4)])
def test_layers_with_too_few_inputs(tmp_path: Path, kind: str, inputs: int) -> None:
    net = Net()
    few = net.add(kind, [net.const(W)] * inputs)
    net = with_weight(net, net.add("Multiply", [few, few]))
    code, reason = reason_of(net, tmp_path)
    assert code == "unreadable" and f"{kind} has {inputs} inputs, expected" in reason


def test_integers_without_a_scale_are_not_stored(tmp_path: Path) -> None:
    net = Net()
    assert reason_of(with_weight(net, net.const(np.ones(W.shape, np.int8))), tmp_path)[0] == "dtype"


def test_operands_of_different_types_do_not_fit(tmp_path: Path) -> None:
    net = Net()
    weight = net.add("Multiply", [net.const(W), net.const(np.array([2], np.float16))])
    assert reason_of(with_weight(net, weight), tmp_path)[0] == "unreadable"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], "none"),
        ([("Add", (1, 4, 1, 1))], "unknown"),
        ([("Add", (1,))], "none"),  # part of an activation, such as hard swish
        ([("Multiply", (1, 4, 1, 1))], "none"),
        ([("Multiply", (4, 1, 1)), ("Add", (1, 4, 1, 1))], "unfolded"),
        ([("Add", (4, 1, 1)), ("Multiply", (4, 1, 1)), ("Add", (1, 4, 1, 1))], "unfolded"),
        ([("Multiply", (1,)), ("Add", (1, 4, 1, 1))], "none"),
        ([("BatchNormInference", (4,))], "unfolded"),
        ([("Add", (1, 4, 1, 1)), ("BatchNormInference", (4,))], "unfolded"),
        ([("ReLU", None), ("BatchNormInference", (4,))], "none"),
        ([("Convert", None), ("Add", (1, 4, 1, 1))], "unknown"),
    ],
)
def test_batch_normalisation(tmp_path: Path, after: list[tuple[str, tuple[int, ...] | None]], expected: str) -> None:
    net = Net()
    value = net.conv(net.input(), net.const(W))
    for kind, shape in after:
        inputs = [value] if shape is None else [value, net.const(np.ones(shape, np.float32))]
        value = net.add(kind, inputs)
    net.add("Result", [value])
    (layer,) = read(net, tmp_path).layers
    assert layer.row["batch_norm"] == expected
