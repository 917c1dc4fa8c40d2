"""OpenVINO models whose XML lies or blows up, and whose data file leads out of the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.case import GOOD, MIB, Case, End, Family, W, Writer, sparse
from tests.models.openvino import Net


def two(**odd: Any) -> Net:
    """The good convolution, and beside it the odd one; `odd` is stated of its constant."""
    net = Net()
    source = net.input()
    net.conv(source, net.const(GOOD), "good")
    net.conv(source, net.const(W, **odd), "odd")
    return net


def put(writer: Writer, name: str, text: str | bytes, data: bytes | None, end: End, **kwargs: Any) -> Path:
    """A case with this XML and data; gives the path of the data file, which is not written if there is no data."""
    path = writer.place(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    beside = path.with_suffix(".bin")
    if data is not None:
        beside.write_bytes(data)
    writer.cases[name] = Case(path, end, **kwargs)
    return beside


def _data_files(writer: Writer) -> None:
    """Ways out of the folder, and data files that are no files."""
    text, data = two().text(), bytes(two().data)
    for kind in ("symlink", "relative symlink", "symlink over a folder"):
        name = f"openvino/{kind} outside"
        target = writer.canary(name)
        beside = put(writer, name, text, None, "rejected", reason="link", canary=target)
        if kind == "symlink":
            beside.symlink_to(target)
        elif kind == "relative symlink":
            beside.symlink_to(Path("../../../outside") / target.name)
        else:
            (beside.parent / "sub").symlink_to(target.parent)
            beside.symlink_to(f"sub/{target.name}")
    make: dict[str, Callable[[Path], object]] = {
        "symlink to a device": lambda path: path.symlink_to("/dev/zero"),
        "symlink to memory": lambda path: path.symlink_to("/proc/self/mem"),
        "symlink to itself": lambda path: path.symlink_to(path.name),
        "fifo": os.mkfifo,
        "folder": Path.mkdir,
        "missing": lambda path: None,
        "empty": Path.touch,
        "cut": lambda path: path.write_bytes(data[:-1]),
    }
    for kind, write in make.items():
        write(put(writer, f"openvino/data file {kind}", text, None, "rejected", reason="external data"))
    for kind, link in (("link beside", "blob"), ("link below", "sub/../sub/blob")):
        beside = put(writer, f"openvino/{kind}", text, None, "stored")
        (beside.parent / "sub").mkdir()
        (beside.parent / "sub" / "blob").write_bytes(data)
        (beside.parent / "blob").write_bytes(data)
        beside.symlink_to(link)


def _lies(writer: Writer) -> None:
    beyond = {"offset": ("1000000", str(2**63), str(2**64), "9" * 19), "size": ("1000000", str(2**63), str(2**62))}
    skipped = {
        "offset": ("-1", "abc", "", "0.5", "nan", "9" * 5_000),
        "size": ("-1", "0", str(W.nbytes - 1), "0x1b0", ""),
        "shape": (
            "-4, 3, 3, 3",
            f"{2**31}, {2**31}, 3, 3",
            ", ".join("1" * 1_000),
            "4, 3, 3, x",
            "4, 3, 3, 4",
            "9" * 99,
        ),
        "element_type": ("string", "f99", "x" * 100_000),
    }
    ends: tuple[tuple[End, dict[str, tuple[str, ...]]], ...] = (("rejected", beyond), ("skipped", skipped))
    for end, lies in ends:
        for key, values in lies.items():
            for value in values:
                net = two(**{key: value})
                put(writer, f"openvino/{key} {value[:30]}", net.text(), bytes(net.data), end, reason="")
    net = two()
    net.edges[-1] = net.edges[-2]
    put(writer, "openvino/two edges to a port", net.text(), bytes(net.data), "rejected", reason="two")
    put(writer, "openvino/sound", two().text(), bytes(two().data), "stored")
    nan = bytes(two().data)[: GOOD.nbytes] + np.full_like(W, np.nan).tobytes()
    put(writer, "openvino/not finite", two().text(), nan, "skipped", reason="NaN")
    shared = two(offset=0)
    put(writer, "openvino/overlapping constants", shared.text(), bytes(shared.data), "stored", odd=(GOOD,))


def _texts(writer: Writer) -> None:
    """What is wrong in the XML."""
    text, data = two().text(), bytes(two().data)
    last = len(two().layers) - 1
    changed: dict[str, tuple[str, str]] = {
        "repeated id": (f'<layer id="{last}"', '<layer id="0"'),
        "edge from nowhere": ('from-layer="0"', 'from-layer="99"'),
        "edge to nowhere": (f'to-layer="{last}"', 'to-layer="99"'),
        "edge to no port": ('to-port="1"', 'to-port="7"'),
        "cycle": ('from-layer="0" from-port="0" to-layer="2"', 'from-layer="2" from-port="2" to-layer="2"'),
        "old version": ('version="11"', 'version="7"'),
        "future version": ('version="11"', 'version="12"'),
        "cut": ("</edges></net>", ""),
        "undeclared entity": ('name="odd"', 'name="&odd;"'),
        "control character": ('name="odd"', 'name="odd&#27;[2J"'),
        "nul": ('name="odd"', 'name="odd&#0;"'),
        "attribute twice": ('name="odd"', 'name="odd" name="even"'),
        "id of 5,000 digits": (f'<layer id="{last}"', f'<layer id="{"9" * 5_000}"'),
    }
    for kind, (old, new) in changed.items():
        assert old in text
        put(writer, f"openvino/{kind}", text.replace(old, new), data, "rejected", reason="")
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))
    target = writer.canary("openvino/external entity")
    for kind, declared, canary in (
        ("billion laughs", f'[<!ENTITY l0 "ha">{laughs}]', None),
        ("quadratic blowup", f'[<!ENTITY l29 "{"a" * 1_000_000}">]', None),
        ("external entity", f'[<!ENTITY l29 SYSTEM "file://{target}">]', target),
        ("external parameter entity", f'[<!ENTITY % l SYSTEM "file://{target}"> %l;]', target),
        ("external document type", f'SYSTEM "file://{target}"', target),
    ):
        # Between two comments, for which it looks like a model.
        document = f"<!-- a --><!DOCTYPE net {declared}><!-- b --><net"
        bomb = text.replace("<net", document, 1).replace('name="odd"', f'name="{"&l29;" * 100}"')
        put(writer, f"openvino/{kind}", bomb, data, "rejected", reason="", canary=canary)
    put(writer, "openvino/no utf-8", text.encode().replace(b"odd", b"\xff\xfe\x80"), data, "rejected", reason="")
    for kind, name in (
        ("turned name", "odd\u202e\u2028"),
        ("long name", "o" * 2**20),
        ("escaped name", "&lt;odd&#10;&gt;"),
    ):
        put(writer, f"openvino/{kind}", text.replace('name="odd"', f'name="{name}"'), data, "stored")
    nested = "<a>" * 100_000
    put(
        writer,
        "openvino/deep nesting",
        text.replace("<layers>", f"<layers>{nested}"),
        data,
        "rejected",
        reason="nested|well",
    )
    inner = two().body()
    for _ in range(100):
        inner = f'<layers><layer id="0" name="l" type="Loop"><body>{inner}</body></layer></layers><edges/>'
    bodies = f'<net name="m" version="11">{inner}</net>'
    put(writer, "openvino/deep bodies", bodies, data, "rejected", reason="nested")


def _bombs(writer: Writer) -> None:
    data, head = bytes(two().data), two().text().partition("<layers>")[0]

    def case(kind: str, layers: str, edges: str = "", end: End = "rejected", **kwargs: Any) -> None:
        text = f"{head}<layers>{layers}</layers><edges>{edges}</edges></net>"
        put(writer, f"bomb/{kind}", text, data, end, bomb=True, reason="", **kwargs)

    nothing: dict[str, Any] = {"end": "stored", "kept": (), "odd": ()}
    case("20 MB of empty elements", "<a/>" * 5_000_000)
    case("100 MB of spaces", " " * 100_000_000, **nothing)
    case("a million XML layers", "".join(f'<layer id="{i}"/>' for i in range(1_000_000)))
    case("2 million edges", "", '<edge from-layer="0" from-port="0" to-layer="0" to-port="0"/>' * 2_000_000)
    case("100 MB in a name", f'<layer id="0" type="Const" name="{"n" * 100_000_000}"/>', **nothing)
    attributes = " ".join(f'a{i}=""' for i in range(5_000_000))
    case("5 million attributes", f'<layer id="0"><data {attributes}/></layer>', **nothing | {"or_else": ("rejected",)})
    ports = "<port id='1'/>" * 2_000_000
    case("2 million ports", f'<layer id="0" type="x"><output>{ports}</output></layer>', **nothing)
    many = "".join(f'<layer id="{i}" type="Convolution" name="c"/>' for i in range(299_999))
    case("299,999 convolutions of XML", many, or_else=("rejected",), end="skipped", kept=(), layer="c")
    net = Net()
    source, weight = net.input(), net.const(np.zeros((500, 500, 3, 3), np.float32))
    for i in range(2_000):
        net.conv(source, weight, f"c{i}")
    put(
        writer,
        "bomb/9 MB shared by 2,000 XML layers",
        net.text(),
        bytes(net.data),
        "rejected",
        bomb=True,
        or_else=("skipped",),
    )
    net = Net()
    source, value = net.input(), net.const(np.zeros((512, 512, 3, 3), np.float32))
    for _ in range(60):
        value = net.add("Add", [value, value])
    net.conv(source, value, "odd")
    put(
        writer, "bomb/doubling of 9 MB", net.text(), bytes(net.data), "skipped", bomb=True, or_else=("rejected",),
        reason="steps|operations|memory|time", kept=(),
    )  # fmt: skip
    net = Net()
    size = 2**25
    weight = net.const(np.empty(0, np.float16), shape=f"{size}, 1, 3, 3", size=18 * size)
    net.conv(net.input(), net.add("Convert", [weight], destination_type="f32"), "odd")
    beside = put(
        writer, "bomb/600 MB constant as 1.2 GB", net.text(), None, "skipped", bomb=True, or_else=("rejected",),
        reason="memory|constant|shape", kept=(),
    )  # fmt: skip
    sparse(beside, 18 * size)
    path = writer.place("bomb/3 GB of XML")
    sparse(path, 3 * 1024 * MIB, two().text().encode())
    writer.cases["bomb/3 GB of XML"] = Case(path, "rejected", "limit", bomb=True, unread=True)


FAMILIES: tuple[Family, ...] = (_data_files, _lies, _texts, _bombs)
