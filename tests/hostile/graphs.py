"""Graphs that lie: attributes, names, cycles, functions and bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from tests.hostile.case import MIB, End, Family, W, Writer, beside, odd
from tests.hostile.wire import FUNCTION, GRAPH, NODE, number, part, raw_node
from tests.models import model, tensor


def _attributes(writer: Writer) -> None:
    values: dict[str, dict[str, Any]] = {
        "strides as floats": {"strides": [1.0, 2.0]},
        "strides as text": {"strides": "two"},
        "strides as a graph": {"strides": helper.make_graph([], "g", [], [])},
        "strides of extremes": {"strides": [2**63 - 1, -(2**63)]},
        "strides of none": {"strides": 0},
        "dilations as a tensor": {"dilations": tensor("t", W)},
        "kernel_shape wrong": {"kernel_shape": [5, 5]},
        "kernel_shape negative": {"kernel_shape": [-3, -3]},
        "kernel_shape as floats": {"kernel_shape": [3.0, 3.0]},
        "auto_pad junk": {"auto_pad": b"\xff\x1b[31m\n"},
        "auto_pad as a number": {"auto_pad": 3},
        "pads of 2**62": {"pads": [2**62] * 4},
        "junk": {"\x1b[31m\nname": 3},
    }
    for kind, given in values.items():
        writer.beside(f"attribute/{kind}", [odd(**given)], [tensor("w", W)], "stored")
    groups = {"as text": "three", "0": 0, "-1": -1, "2**62": 2**62, "-2**63": -(2**63), "as a float": 2.5, "7 of 4": 7}
    for kind, group in groups.items():
        # Its filters are whole; whoever says that such a convolution is none is right as well.
        writer.beside(f"attribute/group {kind}", [odd(group=group)], [tensor("w", W)], "stored", or_else=("skipped",))
    twice = odd(strides=[1, 1])
    twice.attribute.add(name="strides", ints=[2, 2], type=AttributeProto.INTS)
    writer.beside("attribute/twice", [twice], [tensor("w", W)], "stored", or_else=("skipped", "rejected"))
    for kind, attribute in {
        "reference to nothing": AttributeProto(name="strides", ref_attr_name="nothing", type=AttributeProto.INTS),
        "nameless": AttributeProto(ints=[1, 1], type=AttributeProto.INTS),
    }.items():
        node = odd()
        node.attribute.append(attribute)
        writer.beside(f"attribute/{kind}", [node], [tensor("w", W)], "stored")
    for kind, inputs in {
        "no weight": ["x"],
        "no input": [],
        "empty weight": ["x", ""],
        "of nothing": ["x", "nothing"],
    }.items():
        node = helper.make_node("Conv", inputs, ["odd_y"], name="odd")
        writer.beside(f"attribute/{kind}", [node], [], "skipped")
    quantised = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    node = helper.make_node("QLinearConv", quantised, ["odd_y"], name="odd")
    signed = [tensor("w", np.ones(W.shape, np.int8)), tensor("ws", np.float32(1)), tensor("wz", np.uint8(0))]
    writer.beside("attribute/zero point of another type", [node], signed, "skipped")


NASTY = {
    "escapes": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "newlines": "a\nb\r\nc\u2028d\u0085e",
    "nul": "a\0b\0",
    "c1": "\x9b31m\x90q\x9c",
    "delete": "a\x7f\x08\x08b",
    "bidi": "a\u202egpj.exe\u2066",
    "zero width": "a\u200bb\ufeff",
    "markup": "<script>alert(1)</script>[bold red]x[/]",
    "formula": "=cmd|' /C calc'!A0",
    "path": "../../../etc/passwd",
    "slashes": "/a//b/",
    "numbered": "odd#2",
    "astral": "\U0001f4a5\U0010ffff",
    "blank": " ",
    "1 MB": "L" * MIB,
}


def _names(writer: Writer) -> None:
    for kind, text in NASTY.items():
        node = helper.make_node("Conv", ["x", "w"], ["z"], name=text)
        writer.beside(f"name/{kind} of a node", [node], [tensor("w", W)], "stored")
        node = helper.make_node("Conv", ["x", text], [f"{text}!"])
        writer.beside(f"name/{kind} of a weight and an output", [node], [tensor(text, W)], "stored")
        proto = beside([odd()], [tensor("w", W)])
        proto.producer_name, proto.producer_version, proto.graph.name, proto.domain = text, text, text, text
        proto.graph.input[0].name, proto.graph.output[0].name = text, text
        proto.graph.node[0].input[0], proto.graph.node[1].input[0] = text, text
        proto.metadata_props.add(key=text, value=text)
        proto.opset_import.add(domain=text, version=-(2**63))
        writer.bytes(f"name/{kind} of all else", proto.SerializeToString(), "stored")
        node = helper.make_node(f"Conv{text}", ["x", "w"], ["z"], name="odd", domain=text)
        writer.beside(f"name/{kind} of an operator", [node], [tensor("w", W)], "skipped")
        nodes = [helper.make_node(text, ["v"], ["w"], name=text), odd()]
        writer.beside(f"name/{kind} of a weight's operator", nodes, [tensor("v", W)], "skipped")
    mark = b"MARKMARK"
    for kind, put in {"no utf-8": b"\xff\xfe\x80\xc0\xaf\xf5N!", "surrogate": b"\xed\xa0\x80\xed\xb0\x80ab"}.items():
        node = helper.make_node("Conv", ["x", "MARKMARK"], ["z"], name="MARKMARK")
        proto = beside([node], [tensor("MARKMARK", W)])
        proto.producer_name = proto.graph.name = "MARKMARK"
        writer.bytes(f"name/{kind}", proto.SerializeToString().replace(mark, put), "stored")
        proto = beside([helper.make_node("ConvMARKMARK", ["x", "w"], ["z"], name="odd")], [tensor("w", W)])
        writer.bytes(f"name/{kind} of an operator", proto.SerializeToString().replace(mark, put), "skipped")
    call = helper.make_node("\x1b[31mF\n", ["x"], ["z"], domain="\x1b\n")
    function = helper.make_function(
        "\x1b\n", "\x1b[31mF\n", ["a"], ["b"], [helper.make_node("\x1b[31mF\n", ["a"], ["b"], domain="\x1b\n")], []
    )
    extra = part(FUNCTION, function.SerializeToString())
    writer.beside("name/escapes of a function that calls itself", [call], [], "rejected", extra, reason="itself|recurs")


def _graphs(writer: Writer) -> None:
    make = helper.make_node
    weight = [tensor("w", W)]
    cycles = {
        "cycle": [make("Relu", ["a"], ["b"]), make("Relu", ["b"], ["a"])],
        "self-loop": [make("Relu", ["a"], ["a"])],
        "convolution of itself": [make("Conv", ["odd_y", "w"], ["odd_y"], name="odd")],
        "weight of itself": [make("Identity", ["w2"], ["w2"]), odd("w2")],
        "long cycle": [make("Relu", [f"c{i}"], [f"c{(i + 1) % 5_000}"]) for i in range(5_000)],
    }
    for kind, nodes in cycles.items():
        writer.beside(f"graph/{kind}", nodes, weight, "rejected", reason="cycle")
    body = helper.make_graph([make("Identity", ["z"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, None)])
    writer.beside("graph/cycle by a body", [make("If", ["x"], ["z"], then_branch=body)], [], "rejected", reason="cycle")
    both = [odd(), make("Conv", ["x", "w"], ["odd_y"], name="odd")]
    writer.beside(
        "graph/node names and outputs twice", both, weight, "stored", or_else=("rejected", "skipped"), odd=None
    )
    twins = [odd(), make("Conv", ["x", "w"], ["z"], name="odd")]
    writer.beside("graph/node names twice", twins, weight, "stored", odd=(W, W))
    other = [*weight, tensor("w", W * 2)]
    writer.beside("graph/initializers twice", [odd()], other, "stored", or_else=("rejected", "skipped"), odd=None)
    writer.beside("graph/no nodes", [], [], "stored", odd=())
    writer.bytes("graph/nothing at all", model([], outputs=()).SerializeToString(), "stored", kept=(), odd=())
    for kind, calls in {"itself": [0, 0], "each other": [1, 0]}.items():
        functions = b"".join(local_function(i, [f"f{calls[i]}"]) for i in range(2))
        call = make("f0", ["x"], ["z"], domain="own")
        writer.beside(f"graph/functions that call {kind}", [call], [], "rejected", functions, reason="itself|recurs")
    functions = b"".join(local_function(i, [f"f{i + 1}"]) for i in range(5_000))
    call = make("f0", ["x"], ["z"], domain="own")
    writer.beside("graph/5,000 functions deep", [call], [], "rejected", functions, or_else=("stored",), odd=())
    for levels in (20, 50, 99, 150, 3_000):
        end: End = "stored" if levels == 20 else "rejected"  # protobuf's own limit lies between 20 and 50
        nest = part(GRAPH, nested(levels, odd().SerializeToString()))
        writer.beside(f"graph/{levels} bodies deep", [], weight, end, nest, or_else=() if levels == 20 else ("stored",))
    inside = helper.make_graph([make("If", ["x"], ["q"])], "b", [], [])
    inside.node[0].attribute.add(name="then_branch", ref_attr_name="then_branch", type=AttributeProto.GRAPH)
    again = make("If", ["a"], ["b"])
    again.attribute.add(name="then_branch", ref_attr_name="body", type=AttributeProto.GRAPH)
    inside.node[0].attribute[0].ref_attr_name = "body"
    functions = part(
        FUNCTION, helper.make_function("own", "f", ["a"], ["b"], [again], [], ["body"]).SerializeToString()
    )
    call = make("f", ["x"], ["z"], domain="own", body=inside)
    writer.beside("graph/body that refers to itself", [call], [], "rejected", functions, or_else=("stored",), odd=())
    unknown = part(1_000, bytes(1_000_000)) + part(GRAPH, part(1_000, bytes(1_000_000)))
    writer.beside("graph/unknown fields", [odd()], weight, "stored", unknown)
    writer.beside(
        "graph/opsets of extremes", [odd()], weight, "stored", part(8, number(2, 2**63 - 1)), or_else=("rejected",)
    )
    listed = [odd(), *(make("Relu", ["x"], [""]) for _ in range(100))]
    writer.beside("graph/outputs without names", listed, weight, "stored")


def local_function(index: int, calls: list[str]) -> bytes:
    """A local function own::f<index> that calls others, one after the other."""
    nodes = [
        helper.make_node(call, ["a" if not k else f"t{k}"], ["b" if k == len(calls) - 1 else f"t{k + 1}"], domain="own")
        for k, call in enumerate(calls)
    ]
    found = helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, [helper.make_opsetid("own", 1)])
    return part(FUNCTION, found.SerializeToString())


def nested(levels: int, innermost: bytes) -> bytes:
    """A graph with a node inside as many bodies."""
    graph = part(NODE, innermost)
    for level in range(levels):
        body = part(1, b"then_branch") + part(6, graph) + number(20, AttributeProto.GRAPH)
        graph = raw_node(b"If", [b"x"], [b"if%d" % level], extra=part(5, body))
    return graph


FAMILIES: tuple[Family, ...] = (_attributes, _names, _graphs)
