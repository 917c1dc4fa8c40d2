"""The forms of convolution that optimisers and quantisers write: weights, depths, batch normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from filterdb.models.onnx.convolution import FORMS
from filterdb.models.onnx.layers import read_model
from tests.models import conv, model, save, tensor, weights

W = weights(4, 3, seed=11)
OPSETS = [
    helper.make_opsetid("", 17),
    *(helper.make_opsetid(domain, 1) for domain in ("com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc")),
]
LEVELS = np.random.default_rng(0).integers(-128, 128, W.shape).astype(np.int8)
SCALE = np.array([0.5, 0.25, 2, 4], np.float32)
ZERO = np.array([1, -2, 3, 0], np.int8)
ALONG = (-1, 1, 1, 1)


def convolution(domain: str, op: str, x: str, y: str, name: str) -> tuple[list[onnx.NodeProto], np.ndarray]:
    """The node of a form, and the float weight that it stands for; its tensors are those of INITS."""
    attributes: dict[str, Any] = {"domain": domain, "name": name}
    exact = LEVELS.astype(np.float32) - ZERO.astype(np.float32).reshape(ALONG)
    if op == "QLinearConv":
        names = [x, "xs", "xz", "q", "s", "z", "ys", "yz"]
        attributes |= {"channels_last": 1} if domain == "com.microsoft" else {}
        return [helper.make_node(op, names, [y], **attributes)], exact * SCALE.reshape(ALONG)
    if op == "ConvInteger":
        nodes = [
            helper.make_node(op, [x, "q", "xz", "z"], [f"{y}_sum"], **attributes),
            helper.make_node("Cast", [f"{y}_sum"], [f"{y}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{y}_float", "s4"], [y]),
        ]
        return nodes, exact * SCALE.reshape(ALONG)
    weight = "nhwc" if op == "NhwcConv" else "w"
    more = ["bias", "residual"] if "Fused" in op else []
    return [helper.make_node(op, [x, weight, *more], [y], **attributes)], W


INITS = [
    tensor("w", W),
    tensor("nhwc", W.transpose(0, 2, 3, 1).copy()),
    tensor("bias", np.zeros(4, np.float32)),
    tensor("residual", np.zeros((1, 4, 1, 1), np.float32)),
    tensor("q", LEVELS),
    tensor("s", SCALE),
    tensor("s4", SCALE.reshape(1, 4, 1, 1)),
    tensor("z", ZERO),
    tensor("point", weights(3, 4, kernel=(1, 1))),
    tensor("xs", np.array(0.5, np.float32)),
    tensor("xz", np.array(0, np.uint8)),
    tensor("ys", np.array(0.5, np.float32)),
    tensor("yz", np.array(0, np.uint8)),
    tensor("ones", np.ones(4, np.float32)),
    tensor("wide", np.ones((1, 4, 1, 1), np.float32)),
]


@pytest.mark.parametrize(("domain", "op"), FORMS, ids=lambda value: value or "onnx")
def test_weights_and_depths(tmp_path: Path, domain: str, op: str) -> None:
    """The form stands between two plain convolutions, a 1×1 one before it: its weight is read, all depths are right."""
    nodes, expected = convolution(domain, op, "b", "c", "form")
    both = [conv("x", "w", "a", "first"), conv("a", "point", "b", "point"), *nodes, conv("c", "w", "y", "last")]
    read = read_model(save(tmp_path / "m.onnx", model(both, INITS, opset_imports=OPSETS)))
    assert [(skip.layer, skip.code) for skip in read.skipped] == [("point", "kernel")]
    depths = {layer.name: (layer.row["conv_depth"], layer.row["in_channels"]) for layer in read.layers}
    assert depths == {"first": (0, 3), "form": (2, 3), "last": (3, 3)}
    weight = next(layer for layer in read.layers if layer.name == "form").weight()
    np.testing.assert_array_equal(weight.filters, expected.reshape(-1, 9))
    assert weight.scale_known


@pytest.mark.parametrize(("kernel", "code"), [(3, "operator"), (1, "kernel")])
def test_a_blocked_weight_is_not_read_and_has_its_depth(tmp_path: Path, kernel: int, code: str) -> None:
    """As ONNX Runtime's layout optimisation writes them: out-channels padded to the block, kernel in the shape."""
    blocked = tensor("blocked", np.zeros((16, 8, kernel, kernel), np.float32))
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["r"], domain="com.microsoft.nchwc"),
        helper.make_node("Conv", ["r", "blocked"], ["n"], "hidden", domain="com.microsoft.nchwc"),
        helper.make_node("ReorderOutput", ["n"], ["o"], domain="com.microsoft.nchwc", channels=4),
        conv("o", "w", "y", "last"),
    ]
    read = read_model(save(tmp_path / "m.onnx", model(nodes, [*INITS, blocked], opset_imports=OPSETS)))
    ((skip,), (layer,)) = read.skipped, read.layers
    assert (skip.layer, skip.code, layer.row["conv_depth"]) == ("hidden", code, 1)
    assert kernel == 1 or "before ONNX Runtime optimised it" in skip.reason


@pytest.mark.parametrize(("domain", "op"), [("", "DequantizeLinear"), ("com.microsoft", "DequantizeLinear")])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
def test_dequantised_weights(tmp_path: Path, domain: str, op: str, dtype: str) -> None:
    levels = np.random.default_rng(4).integers(0, 127, W.shape).astype(dtype)
    node = helper.make_node(op, ["levels", "s"], ["v"], domain=domain, axis=0)
    opsets = [helper.make_opsetid("", 21), *OPSETS[1:]]
    proto = model([node, conv("x", "v", "y")], [*INITS, tensor("levels", levels)], opset_imports=opsets)
    (layer,) = read_model(save(tmp_path / "m.onnx", proto)).layers
    expected = levels.astype(np.float32) * SCALE.reshape(ALONG)
    np.testing.assert_array_equal(layer.weight().filters, expected.reshape(-1, 9))


@pytest.mark.parametrize("before", [True, False], ids=["integer bias", "float bias"])
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_the_scale_of_an_integer_convolution_behind_a_bias(tmp_path: Path, before: bool, op: str) -> None:
    bias = tensor("b", np.arange(4, dtype=np.int32 if before else np.float32).reshape(1, 4, 1, 1))
    tail = [
        helper.make_node(op, ["i", "b"], ["j"]),
        helper.make_node("Cast", ["j" if before else "i0"], ["f" if before else "i"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["dynamic", "s4"], ["both"]),
        helper.make_node("Mul", ["f" if before else "j", "both"], ["y"]),
    ]
    integer = helper.make_node("ConvInteger", ["x", "q", "xz", "z"], ["i" if before else "i0"])
    proto = model([integer, *tail], [*INITS, bias], inputs=("x", "dynamic"))
    (layer,) = read_model(save(tmp_path / "m.onnx", proto)).layers
    weight = layer.weight()
    expected = (LEVELS.astype(np.float32) - ZERO.reshape(ALONG)) * SCALE.reshape(ALONG)
    assert weight.scale_known
    np.testing.assert_array_equal(weight.filters, expected.reshape(-1, 9))


def step(op: str, *more: str, domain: str = "", **attributes: Any) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    return op, more, {"domain": domain, **attributes}


THROUGH = {
    "nothing": [],
    "a cast": [step("Cast", to=TensorProto.FLOAT16), step("Cast", to=TensorProto.FLOAT)],
    "an identity": [step("Identity")],
    "dropout": [step("Dropout")],
    "quantisation": [step("QuantizeLinear", "ys", "yz"), step("DequantizeLinear", "ys", "yz")],
    "quantisation of ONNX Runtime": [
        step("QuantizeLinear", "ys", "yz", domain="com.microsoft"),
        step("DequantizeLinear", "ys", "yz", domain="com.microsoft"),
    ],
    "padding": [step("Pad", "pads")],
    "a bias": [step("Add", "wide")],
    "a bias that is subtracted": [step("Sub", "wide")],
    "another layout and back": [step("Transpose", perm=[0, 2, 3, 1]), step("Transpose", perm=[0, 3, 1, 2])],
    "all of them": [step("Add", "wide"), step("Cast", to=10), step("Identity"), step("Dropout"), step("Cast", to=1)],
}
NOT_THROUGH = {
    "an activation": [step("Relu")],
    "a pooling": [step("MaxPool", kernel_shape=[2, 2])],
    "a sum with the input": [step("Add", "x")],
    "another convolution": [step("Conv", "point")],
}


@pytest.mark.parametrize("name", [*THROUGH, *NOT_THROUGH])
@pytest.mark.parametrize("in_function", [False, True])
def test_batch_normalisation_behind_the_convolution(tmp_path: Path, name: str, in_function: bool) -> None:
    nodes = [conv("x", "w", "v0", "c")]
    for i, (op, more, attributes) in enumerate((THROUGH | NOT_THROUGH)[name]):
        nodes.append(helper.make_node(op, [f"v{i}", *more], [f"v{i + 1}"], **attributes))
    last = f"v{len(nodes) - 1}"
    normal = helper.make_node("BatchNormalization", ["t", "ones", "ones", "ones", "ones"], ["u"])
    functions = []
    if in_function:
        functions = [helper.make_function("own", "Norm", ["t", "ones"], ["u"], [normal], [helper.make_opsetid("", 17)])]
        nodes.append(helper.make_node("Norm", [last, "ones"], ["y"], domain="own"))
    else:
        nodes.append(helper.make_node("BatchNormalization", [last, "ones", "ones", "ones", "ones"], ["y"]))
    inits = [*INITS, tensor("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))]
    opsets = [*OPSETS, helper.make_opsetid("own", 1)]
    read = read_model(save(tmp_path / "m.onnx", model(nodes, inits, functions=functions, opset_imports=opsets)))
    (layer,) = read.layers
    assert layer.row["bn_folded"] == (name in NOT_THROUGH)
