"""Every way in which a weight can stand in a model, decoded and compared with the true float weights."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from filterdb.models.model import Layer
from filterdb.models.onnx.external import external_files
from filterdb.models.onnx.graph import parse
from filterdb.models.onnx.layers import read_model
from tests.models import OPSET, conv, model, save, tensor, weights


def only_layer(tmp_path: Path, proto: onnx.ModelProto) -> Layer:
    found = read_model(save(tmp_path / "m.onnx", proto))
    assert not found.skipped, found.skipped
    (layer,) = found.layers
    return layer


def check(tmp_path: Path, proto: onnx.ModelProto, expected: np.ndarray, *path: str) -> Layer:
    """The one layer's filters are exactly `expected` in C order, reached by `path`."""
    layer = only_layer(tmp_path, proto)
    weight = layer.weight()
    assert weight.filters.dtype == np.float32
    np.testing.assert_array_equal(weight.filters, expected.astype(np.float32).reshape(-1, 9))
    if path:
        assert weight.path == path
    return layer


W = weights()


def test_initializer(tmp_path: Path) -> None:
    layer = check(tmp_path, model([conv("x", "w", "y", "c")], [tensor("w", W)]), W, "initializer")
    assert (layer.row["out_channels"], layer.row["in_channels"], layer.row["groups"]) == (4, 3, 1)


def test_initializer_that_is_also_a_graph_input(tmp_path: Path) -> None:
    proto = model([conv("x", "w", "y")], [tensor("w", W)], inputs=("x", "w"))
    layer = check(tmp_path, proto, W, "initializer")
    assert layer.row["graph_depth"] == 1


def test_kernel_shape_may_be_absent_or_present(tmp_path: Path) -> None:
    check(tmp_path, model([conv("x", "w", "y", kernel_shape=[3, 3])], [tensor("w", W)]), W)
    check(tmp_path, model([conv("x", "w", "y")], [tensor("w", W)]), W)


def test_constant_node(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W))
    check(tmp_path, model([constant, conv("x", "w", "y")]), W, "Constant")


def test_constant_node_of_floats_behind_reshape(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["flat"], value_floats=W.ravel().tolist()),
        helper.make_node("Constant", [], ["shape"], value_ints=[0 + 4, -1, 3, 3]),
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
        conv("x", "w", "y"),
    ]
    check(tmp_path, model(nodes), W, "Constant", "Reshape")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_float_types(tmp_path: Path, dtype: type) -> None:
    stored: np.ndarray = W.astype(dtype)
    layer = check(tmp_path, model([conv("x", "w", "y")], [tensor("w", stored)]), stored.astype(np.float32))
    assert layer.weight().source_dtype == np.dtype(dtype).name


def test_behind_identity_cast_transpose_and_reshape(tmp_path: Path) -> None:
    half = W.astype(np.float16)
    stored = np.ascontiguousarray(half.transpose(2, 3, 1, 0)).reshape(9, -1)  # as tf2onnx keeps them
    nodes = [
        helper.make_node("Identity", ["w0"], ["w1"]),
        helper.make_node("Reshape", ["w1", "shape"], ["w2"]),
        helper.make_node("Transpose", ["w2"], ["w3"], perm=[3, 2, 0, 1]),
        helper.make_node("Cast", ["w3"], ["w4"], to=TensorProto.FLOAT),
        conv("x", "w4", "y"),
    ]
    shape = tensor("shape", np.array([3, 3, 3, -1], np.int64))
    path = ("initializer", "Identity", "Reshape", "Transpose", "Cast(float32)")
    check(tmp_path, model(nodes, [tensor("w0", stored), shape]), half.astype(np.float32), *path)


def test_reshape_with_zero_keeps_the_dimension(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["w0", "shape"], ["w"]), conv("x", "w", "y")]
    shape = tensor("shape", np.array([0, 0, 3, 3], np.int64))
    check(tmp_path, model(nodes, [tensor("w0", W.reshape(4, 3, 9)), shape]), W)


def test_cast_to_half_rounds_as_onnx_does(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["w0"], ["w"], to=TensorProto.FLOAT16), conv("x", "w", "y")]
    check(tmp_path, model(nodes, [tensor("w0", W)]), W.astype(np.float16).astype(np.float32))


def quantised(axis: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """int8 weights, scale, zero point and the float weights that they stand for."""
    rng = np.random.default_rng(7)
    q = rng.integers(-128, 128, W.shape).astype(np.int8)
    size = () if axis is None else (W.shape[axis],)
    scale = rng.uniform(0.001, 0.1, size).astype(np.float32)
    zero = rng.integers(-20, 20, size).astype(np.int8)
    along = [-1 if i == axis else 1 for i in range(4)]
    s, z = (scale, zero) if axis is None else (scale.reshape(along), zero.reshape(along))
    return q, scale, zero, (q.astype(np.float32) - z.astype(np.float32)) * s


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dequantize_linear(tmp_path: Path, axis: int | None) -> None:
    q, scale, zero, expected = quantised(axis)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes), conv("x", "w", "y")]
    proto = model(nodes, [tensor("q", q), tensor("s", scale), tensor("z", zero)])
    layer = check(tmp_path, proto, expected, "initializer", "DequantizeLinear")
    assert layer.weight().source_dtype == "int8"


def test_dequantize_linear_without_zero_point_and_negative_axis(tmp_path: Path) -> None:
    q, scale, _, _ = quantised(0)
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=-4), conv("x", "w", "y")]
    expected = q.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
    check(tmp_path, model(nodes, [tensor("q", q), tensor("s", scale)]), expected)


def test_dequantize_linear_of_four_bits_in_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    q = rng.integers(-8, 8, (4, 6, 3, 3)).astype(ml_dtypes.int4)
    scale = rng.uniform(0.01, 1, (4, 3, 3, 3)).astype(np.float32)
    packed = helper.make_tensor("q", TensorProto.INT4, q.shape, q.astype(np.int8).ravel())
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=2), conv("x", "w", "y")]
    expected = q.astype(np.float32) * np.repeat(scale, 2, axis=1)
    check(tmp_path, model(nodes, [packed, tensor("s", scale)]), expected)


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinearconv(tmp_path: Path, per_channel: bool) -> None:
    q, scale, zero, expected = quantised(0 if per_channel else None)
    names = ["x", "xs", "xz", "q", "s", "z", "ys", "yz"]
    node = helper.make_node("QLinearConv", names, ["y"], name="qc")
    one, none = np.array(0.5, np.float32), np.array(0, np.uint8)
    extra = [tensor("xs", one), tensor("xz", none), tensor("ys", one), tensor("yz", none)]
    proto = model([node], [tensor("q", q), tensor("s", scale), tensor("z", zero), *extra])
    layer = check(tmp_path, proto, expected, "initializer", "QLinearConv")
    assert layer.row["operator"] == "QLinearConv"


def conv_integer(*tail: onnx.NodeProto, zero: np.ndarray, more: list[onnx.TensorProto]) -> onnx.ModelProto:
    q = quantised(None)[0]
    node = helper.make_node("ConvInteger", ["x", "q", "xz", "z"], ["acc"], name="ci")
    inits = [tensor("q", q), tensor("xz", np.array(3, np.uint8)), tensor("z", zero), *more]
    return model([node, *tail], inits, outputs=("y",) if tail else ("acc",), inputs=("x", "x_scale"))


def test_conv_integer_minus_its_zero_point(tmp_path: Path) -> None:
    zero = np.array([1, -2, 3, 4], np.int8)
    q = quantised(None)[0].astype(np.float32) - zero.astype(np.float32).reshape(-1, 1, 1, 1)
    layer = check(tmp_path, conv_integer(zero=zero, more=[]), q, "initializer", "ConvInteger")
    assert not layer.weight().scale_known


@pytest.mark.parametrize("per_channel", [False, True])
def test_conv_integer_with_the_scale_downstream(tmp_path: Path, per_channel: bool) -> None:
    """As dynamic quantisation exports it: Cast, then Mul by x_scale · w_scale, of which only the latter is constant."""
    zero = np.array(5, np.int8)
    scale = np.array([0.5, 0.25, 2, 4], np.float32).reshape(1, 4, 1, 1) if per_channel else np.array(0.125, np.float32)
    tail = [
        helper.make_node("Mul", ["x_scale", "w_scale"], ["both"]),
        helper.make_node("Cast", ["acc"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "both"], ["y"]),
    ]
    q = quantised(None)[0].astype(np.float32) - 5
    expected = q * (scale.reshape(-1, 1, 1, 1) if per_channel else scale)
    layer = check(tmp_path, conv_integer(*tail, zero=zero, more=[tensor("w_scale", scale)]), expected)
    assert layer.weight().scale_known


def test_conv_integer_whose_scale_is_an_input_has_none(tmp_path: Path) -> None:
    tail = [helper.make_node("Mul", ["acc", "x_scale"], ["y"])]
    layer = only_layer(tmp_path, conv_integer(*tail, zero=np.array(0, np.int8), more=[]))
    assert not layer.weight().scale_known


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = model([conv("x", "w", "y")], [tensor("w", W)])
    onnx.save_model(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert external_files(parse(path)) == {"m.data": (path.parent / "m.data").stat().st_size}
    (layer,) = read_model(path).layers
    np.testing.assert_array_equal(layer.weight().filters, W.reshape(-1, 9))


def test_shared_weight_is_stored_for_each_node(tmp_path: Path) -> None:
    square = weights(3, 3)
    nodes = [conv("x", "w", "h", "first"), conv("h", "w", "y", "second")]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, [tensor("w", square)])))
    assert [layer.name for layer in found.layers] == ["first", "second"]
    for layer in found.layers:
        np.testing.assert_array_equal(layer.weight().filters, square.reshape(-1, 9))


@pytest.mark.parametrize(("groups", "into", "depthwise"), [(2, 2, False), (4, 1, True), (1, 1, False)])
def test_groups(tmp_path: Path, groups: int, into: int, depthwise: bool) -> None:
    w = weights(4, into)
    layer = check(tmp_path, model([conv("x", "w", "y", group=groups, strides=[2, 2])], [tensor("w", w)]), w)
    row = layer.row
    assert (row["in_channels"], row["groups"], row["depthwise"]) == (into, groups, depthwise)
    assert row["strides"] == "[2, 2]"


def body(nodes: list[onnx.NodeProto], name: str, initializers: list[onnx.TensorProto] | None = None) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [out], initializers or [])


def test_inside_the_branches_of_if(tmp_path: Path) -> None:
    """One weight is the branch's own, the other comes from outside."""
    inner = weights(seed=5)
    then = body([conv("x", "v", "then_out", "in_then")], "then", [tensor("v", inner)])
    other = body([conv("x", "w", "else_out", "in_else")], "else")
    node = helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other)
    found = read_model(save(tmp_path / "m.onnx", model([node], [tensor("w", W)], inputs=("x", "cond"))))
    layers = {layer.name: layer for layer in found.layers}
    np.testing.assert_array_equal(layers["in_then"].weight().filters, inner.reshape(-1, 9))
    np.testing.assert_array_equal(layers["in_else"].weight().filters, W.reshape(-1, 9))
    assert {layer.row["graph_depth"] for layer in found.layers} == {2}  # the If, then the convolution


def test_inside_loop_and_scan(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    square = weights(3, 3)
    loop = helper.make_graph(
        [conv("state", "w", "next", "in_loop"), helper.make_node("Identity", ["go"], ["go_on"])],
        "loop",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("state", TensorProto.FLOAT, None)],
        [info("go_on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None)],
    )
    scan = helper.make_graph(
        [conv("carried", "w", "after", "in_scan"), helper.make_node("Identity", ["row"], ["row_out"])],
        "scan",
        [info("carried", TensorProto.FLOAT, None), info("row", TensorProto.FLOAT, None)],
        [info("after", TensorProto.FLOAT, None), info("row_out", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Loop", ["", "cond", "x"], ["h"], body=loop),
        helper.make_node("Scan", ["h", "x"], ["y", "rows"], body=scan, num_scan_inputs=1),
    ]
    found = read_model(save(tmp_path / "m.onnx", model(nodes, [tensor("w", square)], inputs=("x", "cond"))))
    depths = {layer.name: layer.row["graph_depth"] for layer in found.layers}
    assert depths == {"in_loop": 2, "in_scan": 4}  # Loop, conv, Scan, conv
    for layer in found.layers:
        np.testing.assert_array_equal(layer.weight().filters, square.reshape(-1, 9))


def test_inside_a_local_function_with_attribute_references(tmp_path: Path) -> None:
    """Called twice, with other weights; strides come from the call, the group from the function's default."""
    node = helper.make_node("Conv", ["a", "b"], ["c"], name="inner")
    strides = node.attribute.add(name="strides", ref_attr_name="by", type=onnx.AttributeProto.INTS)
    assert strides.ref_attr_name
    node.attribute.add(name="group", ref_attr_name="parts", type=onnx.AttributeProto.INT)
    function = helper.make_function(
        "own", "Block", ["a", "b"], ["c"], [node], [helper.make_opsetid("", OPSET)], attributes=["by"],
        attribute_protos=[helper.make_attribute("parts", 1)],
    )  # fmt: skip
    calls = [
        helper.make_node("Block", ["x", "w"], ["h"], domain="own", by=[2, 2]),
        helper.make_node("Block", ["h", "v"], ["y"], domain="own", by=[1, 1]),
    ]
    v = weights(2, 4, seed=9)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
    proto = model(calls, [tensor("w", W), tensor("v", v)], functions=[function], opset_imports=opsets)
    found = read_model(save(tmp_path / "m.onnx", proto))
    assert [(layer.name, layer.row["strides"]) for layer in found.layers] == [
        ("inner", "[2, 2]"),
        ("inner#2", "[1, 1]"),
    ]
    np.testing.assert_array_equal(found.layers[0].weight().filters, W.reshape(-1, 9))
    np.testing.assert_array_equal(found.layers[1].weight().filters, v.reshape(-1, 9))
    assert [layer.row["graph_depth"] for layer in found.layers] == [2, 4]


@pytest.mark.parametrize("inner", ["value", "value_floats"])
def test_a_weight_that_is_an_attribute_of_a_call(tmp_path: Path, inner: str) -> None:
    """Constant(value=@weight) in a local function; the call names it as it likes, even like another attribute."""
    constant = helper.make_node("Constant", [], ["flat"])
    kind = onnx.AttributeProto.TENSOR if inner == "value" else onnx.AttributeProto.FLOATS
    constant.attribute.add(name=inner, ref_attr_name="value_int", type=kind)
    nodes = [constant, helper.make_node("Reshape", ["flat", "s"], ["w"]), conv("a", "w", "c", "inner")]
    function = helper.make_function(
        "own", "F", ["a", "s"], ["c"], nodes, [helper.make_opsetid("", OPSET)], attributes=["value_int"]
    )
    call = helper.make_node("F", ["x", "shape"], ["y"], domain="own")
    given = numpy_helper.from_array(W.ravel()) if inner == "value" else W.ravel().tolist()
    call.attribute.append(helper.make_attribute("value_int", given))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
    shape = tensor("shape", np.array([4, 3, 3, 3]))
    check(tmp_path, model([call], [shape], functions=[function], opset_imports=opsets), W)


def test_conv_integer_whose_scales_are_multiplied_one_after_the_other(tmp_path: Path) -> None:
    tail = [
        helper.make_node("Cast", ["acc"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "x_scale"], ["half"]),
        helper.make_node("Mul", ["half", "w_scale"], ["y"]),
    ]
    scale = tensor("w_scale", np.array(0.25, np.float32))
    expected = quantised(None)[0].astype(np.float32) * np.float32(0.25)
    layer = check(tmp_path, conv_integer(*tail, zero=np.array(0, np.int8), more=[scale]), expected)
    assert layer.weight().scale_known


def test_cast_of_the_first_opsets_names_its_type(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["w0"], ["w"], to="FLOAT"), conv("x", "w", "y")]
    check(tmp_path, model(nodes, [tensor("w0", W.astype(np.float64))]), W)


def test_c_order_of_out_and_in(tmp_path: Path) -> None:
    """Filter i·into + j is slice (i, j), row-major."""
    counted = np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 3, 3)
    filters = only_layer(tmp_path, model([conv("x", "w", "y")], [tensor("w", counted)])).weight().filters
    np.testing.assert_array_equal(filters[1 * 3 + 2], counted[1, 2].ravel())


def test_one_block_that_is_longer_than_the_axis(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=2**60), conv("x", "w", "y")]
    scale = np.arange(1, 37, dtype=np.float32).reshape(4, 1, 3, 3)
    q = np.full((4, 6, 3, 3), 3, np.int8)
    check(tmp_path, model(nodes, [tensor("q", q), tensor("s", scale)]), q * scale)


PACKED = ["int4", "uint4", "float4_e2m1fn", "int2", "uint2", "float6_e2m3fn"]
WHOLE = ["float8_e4m3fn", "bfloat16", "int8", "uint16", "int64", "float16", "float64", "bool"]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", [*PACKED, *WHOLE])
def test_data_is_as_long_as_the_shape_says(tmp_path: Path, dtype: str, raw: bool) -> None:
    """An odd number of numbers, as many to the byte as there are; as other writers put it into either field."""
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    values = (np.arange(9 * 3) % 2).reshape(3, 1, 3, 3).astype(kind)
    code = helper.np_dtype_to_tensor_dtype(kind)
    proto = numpy_helper.from_array(values, "v")
    if not raw:
        proto = helper.make_tensor("v", code, values.shape, values.astype(np.float32).ravel())
    nodes = [helper.make_node("Cast", ["v"], ["w"], to=TensorProto.FLOAT), conv("x", "w", "y")]
    assert proto.HasField("raw_data") == raw
    check(tmp_path, model(nodes, [proto]), values.astype(np.float32))
