"""Weights that lie: shapes, data, types, and what they are computed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from onnx import AttributeProto, TensorProto, helper

from tests.hostile.case import Family, W, Writer, beside, odd
from tests.models import tensor


def _tensors(writer: Writer) -> None:
    raw = W.tobytes()

    def lying(dims: Iterable[int], data: bytes = raw, kind: int = TensorProto.FLOAT) -> TensorProto:
        return TensorProto(name="w", dims=list(dims), data_type=kind, raw_data=data)

    shapes: dict[str, tuple[int, ...]] = {
        "negative": (-4, 3, 3, 3),
        "minus one": (-1, 3, 3, 3),
        "minus one inside": (4, -1, 3, 3),
        "two minus ones": (-1, -1, 3, 3),
        "two negatives": (-4, -3, 3, 3),
        "zero": (0, 3, 3, 3),
        "zero and huge": (0, 2**62, 3, 3),
        "one more": (5, 3, 3, 3),
        "one less": (3, 3, 3, 3),
        "2**63-1": (2**63 - 1, 1, 3, 3),
        "-2**63": (-(2**63), 1, 3, 3),
        "wraps to 0": (2**32, 2**32, 3, 3),
        "wraps to the size": (4 + 2**62, 3, 3, 3),
        "many and no data": (2**18, 2**18, 3, 3),
        "five": (4, 3, 3, 3, 1),
        "none": (),
    }
    for kind, dims in shapes.items():
        writer.beside(f"tensor/dims {kind}", [odd()], [lying(dims)], "skipped")
        held = lying(dims)
        held.name = "v"
        node = helper.make_node("Identity", ["v"], ["w"])
        writer.beside(f"tensor/dims {kind}, behind Identity", [node, odd()], [held], "skipped")
        node = helper.make_node("Constant", [], ["w"], value=lying(dims))
        writer.beside(f"tensor/dims {kind}, in a Constant", [node, odd()], [], "skipped")
    data = {
        "short": raw[:-4],
        "long": raw + bytes(36),
        "not whole": raw[:-1],
        "empty": b"",
        "twice": raw * 2,
    }
    for kind, content in data.items():
        writer.beside(f"tensor/data {kind}", [odd()], [lying(W.shape, content)], "skipped")
    # 108 numbers of 4 bits are 54 bytes, of 2 bits 27, of 6 bits 81.
    for kind, dtype, size in (("int4", TensorProto.INT4, 54), ("float4", TensorProto.FLOAT4E2M1, 54), ("int2", 26, 27)):
        writer.beside(f"tensor/data long {kind}", [odd()], [lying(W.shape, bytes(size * 3), dtype)], "skipped")
        writer.beside(f"tensor/data short {kind}", [odd()], [lying(W.shape, bytes(size - 1), dtype)], "skipped")
    few = TensorProto(name="w", dims=W.shape, data_type=TensorProto.FLOAT, float_data=[1.0, 2.0])
    writer.beside("tensor/float_data short", [odd()], [few], "skipped")
    both = lying(W.shape)
    both.float_data.append(1.0)
    writer.beside("tensor/data in two fields", [odd()], [both], "stored", or_else=("skipped",))
    segment = lying(W.shape)
    segment.segment.begin, segment.segment.end = 0, 2**62
    writer.beside("tensor/segment", [odd()], [segment], "skipped")
    for kind, code in {"undefined": 0, "unknown": 99, "negative": -1, "2**31-1": 2**31 - 1}.items():
        writer.beside(f"tensor/type {kind}", [odd()], [lying(W.shape, kind=code)], "skipped")
    for kind, value in {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}.items():
        spoiled = W.copy()
        spoiled[1, 2, 0, 1] = value
        writer.beside(f"tensor/{kind}", [odd()], [tensor("w", spoiled)], "skipped", reason="NaN|infinite")
    writer.beside("tensor/float64 beyond float32", [odd()], [tensor("w", W.astype("f8") * 1e300)], "skipped")


def _dtypes(writer: Writer) -> None:
    text = np.full(W.shape, "a", dtype=object)
    for kind, values in {
        "string": text,
        "bool": W > 0,
        "complex64": W.astype("c8"),
        "complex128": W.astype("c16"),
    }.items():
        writer.beside(f"dtype/{kind}", [odd()], [tensor("w", values)], "skipped")
        cast = helper.make_node("Cast", ["v"], ["w"], to=TensorProto.STRING)
        writer.beside(f"dtype/{kind} cast to string", [cast, odd()], [tensor("v", values)], "skipped")
    for dtype in (
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "int4",
        "uint4",
        "float4_e2m1fn",
    ):
        values = np.clip(W, 0 if dtype == "uint4" else -2, 2).astype(getattr(ml_dtypes, dtype))
        expected = values.astype(np.float32)
        writer.beside(f"dtype/{dtype}", [odd()], [tensor("w", values)], "stored", odd=(expected,))
    whole = np.arange(108, dtype=np.uint64).reshape(W.shape) + np.uint64(2**60)
    writer.beside("dtype/uint64", [odd()], [tensor("w", whole)], "stored", odd=(whole.astype("f4"),))
    tiny = (W * 1e-42).astype(np.float32)
    writer.beside("dtype/subnormal", [odd()], [tensor("w", tiny)], "stored", odd=(tiny,))
    for kind, dims in {"huge": [2**40] * 4, "small": list(W.shape), "negative": [-1, 3, 3, 3], "none": []}.items():
        proto = beside([odd()])
        proto.graph.sparse_initializer.append(
            helper.make_sparse_tensor(tensor("w", np.ones(1, np.float32)), tensor("i", np.array([2**60])), dims)
        )
        writer.bytes(f"dtype/sparse {kind}", proto.SerializeToString(), "skipped", reason="sparse")


def _folds(writer: Writer) -> None:
    make = helper.make_node
    shape = {
        "two minus ones": [-1, -1, 3, 3],
        "too many": [4, 3, 3, 4],
        "huge": [2**40, 2**20, 3, 3],
        "-2**63": [-(2**63), 3, 3, 3],
        "zeros beyond": [0, 0, 0, 0, 0, 0],
        "rank 100": [1] * 100,
        "a million": [1] * 1_000_000,
    }
    held = [tensor("v", W)]
    for kind, dims in shape.items():
        node = make("Reshape", ["v", "s"], ["w"])
        writer.beside(f"fold/reshape {kind}", [node, odd()], [*held, tensor("s", np.array(dims, "i8"))], "skipped")
    writer.beside("fold/reshape to itself", [make("Reshape", ["v", "v"], ["w"]), odd()], held, "skipped")
    writer.beside("fold/reshape without a shape", [make("Reshape", ["v"], ["w"]), odd()], held, "skipped")
    orders = {
        "short": [0, 1],
        "repeated": [0, 0, 1, 2],
        "beyond": [9, 9, 9, 9],
        "negative": [-9, 1, 2, 3],
        "2**62": [2**62, 1, 2, 3],
        "a million": [0] * 1_000_000,
    }
    for kind, order in orders.items():
        writer.beside(f"fold/transpose {kind}", [make("Transpose", ["v"], ["w"], perm=order), odd()], held, "skipped")
    for kind, count in {"10**15": [10**15], "10**15 by 9": [10**14, 10, 3, 3], "-1": [-1, 1, 3, 3]}.items():
        filled = make("ConstantOfShape", ["n"], ["big"])
        size = tensor("n", np.array(count, "i8"))
        writer.beside(f"fold/constant of shape {kind}", [filled, odd("big")], [size], "skipped")
        nodes = [filled, make("Reshape", ["v", "big"], ["w"]), odd()]
        writer.beside(f"fold/constant of shape {kind} as a shape", nodes, [*held, size], "skipped")
        nodes = [make("ConstantOfShape", ["n"], ["n2"]), make("ConstantOfShape", ["n2"], ["w"]), odd()]
        writer.beside(f"fold/constant of shape {kind} of itself", nodes, [size], "skipped")
    for kind, op in {"Expand": "Expand", "Tile": "Tile"}.items():
        nodes = [make(op, ["v", "n"], ["w"]), odd()]
        writer.beside(f"fold/{kind}", nodes, [*held, tensor("n", np.array([2**40, 1, 1, 1]))], "skipped")
    quantised = [tensor("q", np.full(W.shape, 3, np.int8)), tensor("s4", np.full((4, 1, 3, 3), 0.5, np.float32))]
    for kind, block in {"-3": -3, "2**60": 2**60, "2**63-1": 2**63 - 1, "-2**63": -(2**63)}.items():
        nodes = [make("DequantizeLinear", ["q", "s4"], ["w"], block_size=block), odd()]
        whole = (np.full(W.shape, 1.5, np.float32),)
        writer.beside(f"fold/block size {kind}", nodes, quantised, "skipped", or_else=("stored",), odd=whole)
    for kind, axis in {"2**62": 2**62, "-2**63": -(2**63), "4": 4}.items():
        nodes = [make("DequantizeLinear", ["q", "s4"], ["w"], axis=axis), odd()]
        writer.beside(f"fold/axis {kind}", nodes, quantised, "skipped")
    scales = {"overflows": 3e38, "nan": np.nan, "inf": np.inf}
    for kind, scale in scales.items():
        nodes = [make("DequantizeLinear", ["q", "s"], ["w"]), odd()]
        writer.beside(f"fold/scale {kind}", nodes, [quantised[0], tensor("s", np.float32(scale))], "skipped")
    nodes = [make("DequantizeLinear", ["q", "s"], ["w"]), odd()]
    writer.beside("fold/scale beyond float32", nodes, [quantised[0], tensor("s", np.float64(1e300))], "skipped")
    for kind, target in {"99": 99, "0": 0, "-1": -1, "2**62": 2**62}.items():
        writer.beside(f"fold/cast to {kind}", [make("Cast", ["v"], ["w"], to=target), odd()], held, "skipped")
    casts = [make("Cast", [f"v{i}" if i else "v"], [f"v{i + 1}"], to=1) for i in range(100_000)]
    writer.beside("fold/100,000 casts", [*casts, odd("v100000")], held, "skipped", or_else=("stored",), bomb=True)


def _constants(writer: Writer) -> None:
    """Constant nodes with each kind of value, also a wrong one."""
    make = helper.make_node
    kinds: dict[str, Any] = {
        "value_string": b"a",
        "value_strings": [b"a", b"b"],
        "value_float": 1.0,
        "value_floats": [1.0] * 108,
        "value_int": 2**62,
        "value_ints": [1] * 108,
        "sparse_value": helper.make_sparse_tensor(
            tensor("w", np.ones(1, "f4")), tensor("i", np.zeros(1, "i8")), [2**40]
        ),
        "value_junk": 1,
        "value": TensorProto(),
        "empty": None,
    }
    for name, value in kinds.items():
        node = make("Constant", [], ["w"], **({} if value is None else {name: value}))
        writer.beside(f"constant/{name}", [node, odd()], [], "skipped")
    graph = helper.make_graph([], "g", [], [])
    wrong: dict[str, Any] = {
        "value": 7,
        "value_float": [1.0, 2.0],
        "value_floats": b"text",
        "value_ints": graph,
        "value_int": tensor("t", W),
    }
    for name, value in wrong.items():
        writer.beside(
            f"constant/{name} of another type", [make("Constant", [], ["w"], **{name: value}), odd()], [], "skipped"
        )
    typeless = AttributeProto(name="value_ints", type=AttributeProto.UNDEFINED)
    node = make("Constant", [], ["w"])
    node.attribute.append(typeless)
    writer.beside("constant/no type", [node, odd()], [], "skipped")
    nodes = [make("Constant", [], ["v"], value_floats=[0.5] * 108), make("Reshape", ["v", "s"], ["w"]), odd()]
    halves = (np.full(W.shape, 0.5, np.float32),)
    writer.beside("constant/value_floats reshaped", nodes, [tensor("s", np.array(W.shape))], "stored", odd=halves)


FAMILIES: tuple[Family, ...] = (_tensors, _dtypes, _folds, _constants)
