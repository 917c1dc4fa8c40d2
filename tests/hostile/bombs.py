"""Bombs: much of something in few bytes, bytes that grow, endless work. They are run alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.hostile.case import GOOD, MIB, Case, End, Family, W, Writer, beside, odd, sparse
from tests.hostile.graphs import local_function, nested
from tests.hostile.wire import FUNCTION, GRAPH, INITIALIZER, MARK, NODE, number, numbered, part, raw_node, varint
from tests.models import save, tensor, weights


def _count_bombs(writer: Writer) -> None:
    """Much of something in few bytes."""

    def case(kind: str, extra: bytes, end: End, **kwargs: Any) -> None:
        writer.beside(f"bomb/{kind}", [], [], end, extra, bomb=True, odd=(), **kwargs)

    case("4 MB of empty nodes", part(GRAPH, part(NODE, b"") * 2_000_000), "rejected")
    case("64 MB of empty nodes", part(GRAPH, part(NODE, b"") * 32_000_000), "rejected")
    nodes = numbered(raw_node(b"Conv", (b"x", b"good"), (b"c" + MARK,)), 1_100_000)
    case("a million convolutions", part(GRAPH, nodes), "rejected")
    either: dict[str, Any] = {"or_else": ("stored",)}
    case("functions of 2**40 nodes", _doubling(40), "rejected", reason="node|function|time|memory|limit")
    case("2,000,000 empty initializers", part(GRAPH, part(INITIALIZER, b"") * 2_000_000), "rejected", **either)
    case("2,000,000 empty attributes", part(GRAPH, part(NODE, part(5, b"") * 2_000_000)), "rejected", **either)
    case("2,000,000 empty functions", part(FUNCTION, b"") * 2_000_000, "rejected", **either)
    case("10,000,000 empty inputs", part(GRAPH, part(11, b"") * 10_000_000), "rejected", **either)
    piece = part(INITIALIZER, number(1, 1) + number(2, 1) + part(8, b"i" + MARK) + part(9, b"abcd"))
    named = numbered(piece, 300_000)
    case("300,000 initializers", part(GRAPH, named), "stored")
    inputs = numbered(part(1, MARK), 5_000_000)
    case("a node with 5,000,000 inputs", part(GRAPH, part(NODE, inputs + part(4, b"Relu"))), "rejected", **either)
    head = b"".join(number(1, 1) for _ in range(8)) * 1_000_000 + number(2, 1) + part(8, b"w")
    weight = part(INITIALIZER, head) + part(NODE, odd().SerializeToString())
    case("8,000,000 dims", part(GRAPH, weight), "skipped", or_else=("rejected",))
    strides = part(1, b"strides") + number(8, 1) * 1_000_000 + number(20, AttributeProto.INTS)
    many = numbered(raw_node(b"Conv", (b"x", b"good"), (b"c" + MARK,), extra=part(5, strides)), 20)
    writer.beside(
        "bomb/a million strides",
        [],
        [],
        "stored",
        part(GRAPH, many),
        bomb=True,
        odd=(GOOD,) * 20,
        or_else=("rejected", "skipped"),
        layer="c000000",
    )


def _doubling(levels: int) -> bytes:
    """Functions each of which calls the next one twice, and the first call."""
    last = helper.make_function("own", f"f{levels}", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    functions = b"".join(local_function(i, [f"f{i + 1}"] * 2) for i in range(levels))
    call = part(GRAPH, raw_node(b"f0", (b"x",), (b"z",), extra=part(7, b"own")))
    return functions + part(FUNCTION, last.SerializeToString()) + call


def _size_bombs(writer: Writer) -> None:
    """Bytes that grow when they are read."""
    make = helper.make_node
    ones = [tensor("q", np.ones(W.shape, np.int8)), tensor("s4", np.ones((4, 1, 3, 3), np.float32))]
    nodes = [make("DequantizeLinear", ["q", "s4"], ["w"], block_size=2**26), odd()]
    whole = (np.ones(W.shape, np.float32),)
    writer.beside("bomb/block size 2**26", nodes, ones, "skipped", or_else=("stored",), odd=whole, bomb=True)
    text = TensorProto(name="w", dims=[120, 1, 3, 3], data_type=TensorProto.STRING)
    text.string_data.extend([b"x" * MIB, *[b""] * 1_079])
    writer.beside("bomb/strings as wide as the widest", [odd()], [text], "skipped", or_else=("rejected",), bomb=True)
    many = TensorProto(name="w", dims=[10**6, 1, 3, 3], data_type=TensorProto.STRING)
    many.string_data.extend([b""] * 9_000_000)
    writer.beside("bomb/9,000,000 strings", [odd()], [many], "skipped", or_else=("rejected",), bomb=True)

    def data(kind: str, size: int, dims: list[int], dtype: int, nodes: list[onnx.NodeProto], **kwargs: Any) -> None:
        held = TensorProto(name="w", dims=dims, data_type=dtype, data_location=TensorProto.EXTERNAL)
        held.external_data.add(key="location", value="data.bin")
        inits = [held, tensor("s", np.float32(1))]
        path = writer.beside(f"bomb/{kind}", nodes, inits, "skipped", or_else=("rejected",), bomb=True, **kwargs)
        sparse(path.parent / "data.bin", size)

    gigabytes = 3 * 10**9
    data("3 GB of data for 10 GB", gigabytes, [2**28, 1, 3, 3], TensorProto.FLOAT, [odd()])
    cast = [make("Cast", ["w"], ["w2"], to=TensorProto.FLOAT), odd("w2")]
    data("2.4 GB of int8 as 10 GB", 2**28 * 9, [2**28, 1, 3, 3], TensorProto.INT8, cast)
    dequantize = [make("DequantizeLinear", ["w", "s"], ["w2"]), odd("w2")]
    data("300 MB of int8 as 2.4 GB", 2**25 * 9, [2**25, 1, 3, 3], TensorProto.INT8, dequantize)
    path = writer.beside(
        "bomb/one data file under 1,000 names", [], [], "rejected", or_else=("stored",), odd=(), bomb=True
    )
    held = []
    for i in range(1_000):
        held.append(TensorProto(name=f"e{i}", dims=[1], data_type=1, data_location=TensorProto.EXTERNAL))
        held[-1].external_data.add(key="location", value=f"{'./' * i}data.bin")
    save(path, beside([], held))
    sparse(path.parent / "data.bin", gigabytes)
    # A model of 1.6 GB, which protobuf can hold, all hole.
    name, size = "bomb/initializer of 1.6 GB", 2**24 * 25 * 4
    path = writer.place(name)
    start = (
        number(1, 2**24)
        + number(1, 1)
        + number(1, 5) * 2
        + number(2, 1)
        + part(8, b"w")
        + varint(9 << 3 | 2)
        + varint(size)
    )
    start = varint(INITIALIZER << 3 | 2) + varint(len(start) + size) + start
    start = beside([odd()]).SerializeToString() + varint(GRAPH << 3 | 2) + varint(len(start) + size) + start
    sparse(path, len(start) + size, start)
    writer.cases[name] = Case(path, "rejected", or_else=("skipped",), bomb=True)


def _expression_bombs(writer: Writer) -> None:
    """Constants that operators make large, or work on for ever."""
    make = helper.make_node

    def case(kind: str, nodes: list[onnx.NodeProto], inits: list[TensorProto]) -> None:
        writer.beside(f"bomb/{kind}", [*nodes, odd()], inits, "skipped", or_else=("rejected",), bomb=True)

    value, square = tensor("v", weights(1, 1)), tensor("v", np.ones((6_000, 6_000), np.float32))
    far = tensor("s", np.array([2**33, 1, 3, 3]))
    case("expanded to 2**33 filters", [make("Expand", ["v", "s"], ["w"])], [value, far])
    case("tiled to 2**33 filters", [make("Tile", ["v", "s"], ["w"])], [value, tensor("s", np.array([2**33, 1, 1, 1]))])
    case("padded by 2**40", [make("Pad", ["v", "s"], ["w"])], [value, tensor("s", np.array([0] * 7 + [2**40]))])
    case("filled with 2**60 numbers", [make("ConstantOfShape", ["s"], ["w"])], [tensor("s", np.array([2**30] * 2))])
    ends = [tensor(name, np.int64(number)) for name, number in (("a", 0), ("b", 2**62), ("c", 1))]
    case("a range of 2**62", [make("Range", ["a", "b", "c"], ["w"])], ends)
    product = [make("MatMul", [f"v{i}" if i else "v"] * 2, [f"v{i + 1}"]) for i in range(100)]
    case("100 products of 6,000 rows", [*product, make("Identity", ["v100"], ["w"])], [square])
    einsum = make("Einsum", ["v"] * 4, ["w"], equation="ab,cd,ef,gh->aceg")
    case("an einsum of eight indices", [einsum], [tensor("v", np.ones((300, 300), np.float32))])
    doubled = [make("Add", [f"v{i}" if i else "v"] * 2, [f"v{i + 1}"]) for i in range(60)]
    wide = tensor("v", weights(256, 256))  # more than is kept between its uses
    case("60 sums by themselves", [*doubled, make("Identity", ["v60"], ["w"])], [wide])
    kernel = make("Conv", ["v", "v"], ["w"])
    case("a convolution of constants", [kernel], [tensor("v", np.ones((64, 64, 200, 200), np.float32))])
    resized = make("Resize", ["v", "", "s"], ["w"])
    case("resized 2**20 times", [resized], [value, tensor("s", np.full(4, 2.0**20, np.float32))])


def _work_bombs(writer: Writer) -> None:
    """Little to read, endless to do, where an algorithm is quadratic or exponential."""
    make = helper.make_node

    def case(kind: str, nodes: list[onnx.NodeProto], inits: list[TensorProto], end: End, **kwargs: Any) -> None:
        writer.beside(f"bomb/{kind}", nodes, inits, end, bomb=True, **kwargs)

    def convs(count: int, weight: str, **kwargs: Any) -> bytes:
        name = kwargs.get("name", b"")
        return part(GRAPH, numbered(raw_node(b"Conv", (b"x", weight.encode()), (b"c" + MARK,), name), count))

    one, unit = tensor("d0", np.ones((), np.float32)), tensor("d0", np.ones(1, np.int64))
    doubled = [make("DequantizeLinear", [f"d{i}", f"d{i}"], [f"d{i + 1}"]) for i in range(40)]
    case("40 dequantizations by themselves", [*doubled, odd("d40")], [one], "skipped", or_else=("rejected",))
    reshaped = [make("Reshape", [f"d{i}", f"d{i}"], [f"d{i + 1}"]) for i in range(40)]
    case("40 reshapes by themselves", [*reshaped, odd("d40")], [unit], "skipped", or_else=("rejected",))
    integers = np.ones(W.shape, np.int8)
    tree = [make("Relu", ["x"], ["m0"]), *(make("Mul", [f"m{i}"] * 50, [f"m{i + 1}"]) for i in range(16))]
    scaled = [odd(op="ConvInteger"), *tree, make("Mul", ["odd_y", "m16"], ["z"])]
    floats = (integers.astype(np.float32),)
    case("a scale behind 50**16 products", scaled, [tensor("w", integers)], "stored", odd=floats, or_else=("rejected",))
    casts = [make("Cast", [f"v{i}" if i else "v"], [f"v{i + 1}"], to=(1, 11)[i % 2]) for i in range(400)]
    wide = [tensor("v", weights(64, 64, kernel=(5, 5)))]
    shared: dict[str, Any] = {"or_else": ("rejected",), "layer": "c000000"}
    case("400 casts for 3,000 convolutions", casts, wide, "skipped", extra=convs(3_000, "v400"), **shared)
    shared["layer"] = "same"
    cubes = [tensor("w", weights(kernel=(1, 1, 1)))]
    case("50,000 convolutions of one name", [], cubes, "skipped", extra=convs(50_000, "w", name=b"same"), **shared)
    points = [tensor("w", weights(kernel=(1, 1)))]
    either: dict[str, Any] = {"or_else": ("skipped",), "layer": "c000000", "odd": ()}
    case("50,000 layers without filters", [], points, "stored", extra=convs(50_000, "w"), **either)
    mine = [tensor("w", weights(500, 500))]  # 9 MB
    case("9 MB shared by 2,000 convolutions", [], mine, "rejected", extra=convs(2_000, "w"))
    million = weights(2**20, 1)
    case(
        "a million channels",
        [odd(group=2**20)],
        [tensor("w", million)],
        "stored",
        odd=(million,),
        or_else=("rejected", "skipped"),
    )
    kernels = b"".join(
        part(INITIALIZER, number(1, 1) * 2 + number(1, i + 1) + number(1, 2) + number(2, 1) + part(8, b"k%06x" % i))
        + raw_node(b"Conv", (b"x", b"k%06x" % i), (b"c%06x" % i,))
        for i in range(50_000)
    )
    shared["layer"] = "c000000"
    case("50,000 kernel shapes", [], [], "skipped", extra=part(GRAPH, kernels), **shared)
    small = numbered(raw_node(b"Conv", (b"x", b"s"), (b"c" + MARK,)), 30_000)
    one_filter = weights(1, 1)
    case(
        "30,000 layers",
        [],
        [tensor("s", one_filter)],
        "stored",
        extra=part(GRAPH, small),
        or_else=("rejected",),
        odd=(one_filter,) * 30_000,
    )
    taken = part(NODE, part(1, b"y") + part(4, b"Relu")) * 300_000
    case("300,000 nodes that consume one value", [], [], "stored", extra=part(GRAPH, taken), odd=())
    names = [f"n{i}" for i in range(200_000)]
    made = make("Split", ["x"], names)
    inside = nested(25, make("Sum", names, ["s"]).SerializeToString())
    case(
        "25 bodies that capture 200,000 names",
        [made],
        [],
        "stored",
        extra=part(GRAPH, inside),
        or_else=("rejected",),
        odd=(),
    )
    args = [f"a{i}" for i in range(100_000)]
    function = part(FUNCTION, helper.make_function("own", "f", args, args, [], []).SerializeToString())
    calls = part(GRAPH, raw_node(b"f", (), (), extra=part(7, b"own")) * 50_000)
    case("50,000 calls with 100,000 arguments", [], [], "stored", extra=function + calls, or_else=("rejected",), odd=())
    bodies = part(NODE, make("Sum", names[:100_000], ["s"]).SerializeToString())
    branch = part(1, b"then_branch") + part(6, b"") + number(20, AttributeProto.GRAPH)
    loops = part(NODE, part(4, b"If") + part(5, branch)) * 300_000
    case("300,000 empty bodies", [], [], "stored", extra=part(GRAPH, bodies + loops), or_else=("rejected",), odd=())


BOMBS = (
    "file/sparse 3 GB",
    "fold/100,000 casts",
    "bomb/4 MB of empty nodes",
    "bomb/64 MB of empty nodes",
    "bomb/a million convolutions",
    "bomb/functions of 2**40 nodes",
    "bomb/2,000,000 empty initializers",
    "bomb/2,000,000 empty attributes",
    "bomb/2,000,000 empty functions",
    "bomb/10,000,000 empty inputs",
    "bomb/300,000 initializers",
    "bomb/a node with 5,000,000 inputs",
    "bomb/8,000,000 dims",
    "bomb/a million strides",
    "bomb/block size 2**26",
    "bomb/strings as wide as the widest",
    "bomb/9,000,000 strings",
    "bomb/3 GB of data for 10 GB",
    "bomb/2.4 GB of int8 as 10 GB",
    "bomb/300 MB of int8 as 2.4 GB",
    "bomb/one data file under 1,000 names",
    "bomb/initializer of 1.6 GB",
    "bomb/40 dequantizations by themselves",
    "bomb/40 reshapes by themselves",
    "bomb/a scale behind 50**16 products",
    "bomb/400 casts for 3,000 convolutions",
    "bomb/50,000 convolutions of one name",
    "bomb/50,000 layers without filters",
    "bomb/9 MB shared by 2,000 convolutions",
    "bomb/a million channels",
    "bomb/50,000 kernel shapes",
    "bomb/30,000 layers",
    "bomb/300,000 nodes that consume one value",
    "bomb/25 bodies that capture 200,000 names",
    "bomb/50,000 calls with 100,000 arguments",
    "bomb/300,000 empty bodies",
    "bomb/expanded to 2**33 filters",
    "bomb/tiled to 2**33 filters",
    "bomb/padded by 2**40",
    "bomb/filled with 2**60 numbers",
    "bomb/a range of 2**62",
    "bomb/100 products of 6,000 rows",
    "bomb/an einsum of eight indices",
    "bomb/60 sums by themselves",
    "bomb/a convolution of constants",
    "bomb/resized 2**20 times",
    "bomb/20 MB of empty elements",
    "bomb/100 MB of spaces",
    "bomb/a million XML layers",
    "bomb/2 million edges",
    "bomb/100 MB in a name",
    "bomb/5 million attributes",
    "bomb/2 million ports",
    "bomb/299,999 convolutions of XML",
    "bomb/9 MB shared by 2,000 XML layers",
    "bomb/doubling of 9 MB",
    "bomb/600 MB constant as 1.2 GB",
    "bomb/3 GB of XML",
)
"""The cases that are to be run alone."""


FAMILIES: tuple[Family, ...] = (_count_bombs, _size_bombs, _expression_bombs, _work_bombs)
