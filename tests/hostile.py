"""Hostile models: files that lie, hang, blow up, or reach for what lies outside their folder.

`write_corpus` writes them all, in seconds and with little disk: what is big is sparse or the same bytes many times. A
case says how its ingest should end. Each name is `family/kind`.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.models import chain, conv, model, save, tensor, weights

End = Literal["rejected", "skipped", "stored"]

GOOD = weights(4, 3, seed=7)
"""The convolution that stands beside the odd one and has to be kept."""

W = weights(4, 3, seed=8)
"""The odd convolution's weight, where it has one."""

CANARY = b"CANARY!!"
"""Two float32 that no model of ours has: content of the files that no model may reach."""

CANARY_FLOATS = np.frombuffer(CANARY, "<f4")

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """A file and the expected end of its ingest: the file rejected, a layer skipped (the model kept), all stored."""

    path: Path
    end: End
    reason: str = ""
    """A regular expression that the reason has, ignoring case."""
    or_else: tuple[End, ...] = ()
    """Ends that are as good."""
    layer: str = "odd"
    """The layer that stands in the ledger where `end` is skipped."""
    kept: tuple[np.ndarray, ...] = (GOOD,)
    """Weights of the layers that are stored unless the file is rejected."""
    odd: tuple[np.ndarray, ...] | None = (W,)
    """Weights that are stored besides, where nothing is skipped. None: they are not judged."""
    bomb: bool = False
    """It attacks time or memory: to be run alone."""
    canary: Path | None = None
    """The file outside that it points at."""
    unread: bool = False
    """It is to be refused by its size, without reading it."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The corpus while it is written."""

    folder: Path
    cases: dict[str, Case] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """Where the model of a case goes: a folder of its own."""
        path = self.folder / "models" / name.replace(" ", "-") / "m.onnx"
        path.parent.mkdir(parents=True)
        return path

    def canary(self, name: str) -> Path:
        """A file outside every model's folder, as long as the odd weight and longer."""
        path = self.folder / "outside" / f"{name.replace(' ', '-').replace('/', '-')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CANARY * (len(W.tobytes()) // len(CANARY)))
        return path

    def bytes(self, name: str, data: bytes, end: End, **kwargs: Any) -> None:
        """A case with these bytes."""
        path = self.place(name)
        path.write_bytes(data)
        self.cases[name] = Case(path, end, **kwargs)

    def beside(
        self,
        name: str,
        nodes: list[onnx.NodeProto],
        initializers: Iterable[onnx.TensorProto],
        end: End,
        extra: bytes = b"",
        **kwargs: Any,
    ) -> Path:
        """A case whose nodes stand beside the good convolution; `extra`: more bytes of the ModelProto."""
        self.bytes(name, beside(nodes, initializers).SerializeToString() + extra, end, **kwargs)
        return self.cases[name].path


def write_corpus(folder: Path) -> dict[str, Case]:
    """Write every hostile model below `folder`; gives the cases by name."""
    writer = Writer(folder)
    for write in _FAMILIES:
        write(writer)
    assert {name for name, case in writer.cases.items() if case.bomb} == set(BOMBS)
    return writer.cases


def healthy(path: Path, seed: int = 1) -> dict[str, np.ndarray]:
    """A sound model at `path`; gives its weights by layer name."""
    layers = [weights(8, 3, seed), weights(16, 8, seed + 1)]
    chain(path, *layers)
    return {f"conv{i}": layer for i, layer in enumerate(layers)}


def beside(nodes: list[onnx.NodeProto], initializers: Iterable[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """A model of the good convolution and these nodes."""
    return model([conv("x", "good", "y", "good"), *nodes], [tensor("good", GOOD), *initializers])


def odd(weight: str = "w", op: str = "Conv", **attributes: Any) -> onnx.NodeProto:
    """The convolution that is named `odd`."""
    return helper.make_node(op, ["x", weight], ["odd_y"], name="odd", **attributes)


# Protobuf by hand: a field that occurs again is merged, so that bytes can be added to a whole message.


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def part(number: int, data: bytes) -> bytes:
    """A field with bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(position: int, value: int) -> bytes:
    """A field with an integer."""
    return varint(position << 3) + varint(value % 2**64)


GRAPH, FUNCTION, NODE, INITIALIZER = 7, 25, 1, 5


def raw_node(
    op: bytes, inputs: Iterable[bytes], outputs: Iterable[bytes], name: bytes = b"", extra: bytes = b""
) -> bytes:
    """A node as a field of a graph."""
    body = b"".join(part(1, i) for i in inputs) + b"".join(part(2, o) for o in outputs)
    return part(NODE, body + part(3, name) + part(4, op) + extra)


MARK = b"NNNNNN"


def numbered(piece: bytes, count: int) -> bytes:
    """`piece` so many times, each MARK in it replaced by the turn's number in hexadecimal."""
    rows = np.tile(np.frombuffer(piece, np.uint8), (count, 1))
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    turn = np.arange(count)
    start = piece.find(MARK)
    while start >= 0:
        for place in range(len(MARK)):
            rows[:, start + place] = digits[turn >> 4 * (len(MARK) - 1 - place) & 15]
        start = piece.find(MARK, start + 1)
    return rows.tobytes()


# External data


def external(**entries: str) -> TensorProto:
    """The odd weight, whose data lies elsewhere."""
    found = TensorProto(name="w", dims=W.shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        found.external_data.add(key=key, value=value)
    return found


def _traversals(writer: Writer) -> None:
    """Ways out of the model's folder, each to a canary of its own."""
    ways: dict[str, Callable[[Path, Path], str]] = {
        "dots": lambda _, target: f"../../../outside/{target.name}",
        "dots after a dot": lambda _, target: f"./../../../outside/{target.name}",
        "dots below a folder": lambda _, target: f"sub/../../../../outside/{target.name}",
        "dots with backslashes": lambda _, target: f"..\\..\\..\\outside\\{target.name}",
        "dots in percent": lambda _, target: f"%2e%2e/%2e%2e/%2e%2e/outside/{target.name}",
        "slashes in percent": lambda _, target: f"..%2f..%2f..%2foutside%2f{target.name}",
        "fullwidth dots": lambda _, target: f"．．/．．/．．/outside/{target.name}",
        "two dot leader": lambda _, target: f"‥/‥/‥/outside/{target.name}",
        "overlong slashes": lambda _, target: f"..//..//..//outside//{target.name}",
        "absolute": lambda _, target: str(target),
        "absolute twice": lambda _, target: f"/{target}",
        "file url": lambda _, target: f"file://{target}",
        "nul at the end": lambda _, target: f"{target}\0.txt",
        "blank before": lambda _, target: f" {target}",
    }
    for kind, way in ways.items():
        _traversal(writer, kind, way)
    _traversal(writer, "symlink", lambda folder, target: _linked(folder / "data.bin", target))
    _traversal(writer, "relative symlink", _relative_symlink)
    _traversal(writer, "symlink to a symlink", _two_symlinks)
    _traversal(writer, "symlinked folder", lambda folder, target: _linked(folder / "sub", target.parent, target.name))
    _traversal(writer, "hardlink", _hardlink)


def _traversal(writer: Writer, kind: str, way: Callable[[Path, Path], str]) -> None:
    name = f"external/{kind}"
    target = writer.canary(name)
    path = writer.place(name)
    (path.parent / "sub").mkdir() if "below" in kind else None
    save(path, beside([odd()], [external(location=way(path.parent, target))]))
    writer.cases[name] = Case(path, "skipped", r"cannot be read|external|outside|link", canary=target)


def _linked(link: Path, target: Path, below: str = "") -> str:
    link.symlink_to(target)
    return f"{link.name}/{below}" if below else link.name


def _relative_symlink(folder: Path, target: Path) -> str:
    return _linked(folder / "data.bin", Path("../../../outside") / target.name)


def _two_symlinks(folder: Path, target: Path) -> str:
    _linked(folder / "first", target)
    return _linked(folder / "data.bin", folder / "first")


def _hardlink(folder: Path, target: Path) -> str:
    (folder / "data.bin").hardlink_to(target)
    return "data.bin"


def _hidden_traversals(writer: Writer) -> None:
    """The same, where one might not look."""

    def case(kind: str, make: Callable[[Path], tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]) -> None:
        name = f"external/{kind}"
        target = writer.canary(name)
        writer.beside(name, *make(target), "skipped", canary=target)

    def link(target: Path) -> str:
        return f"../../../outside/{target.name}"

    def basepath(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        return [odd()], [external(location=target.name, basepath=str(target.parent))]

    def twice(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        found = external(location="m.onnx")
        found.external_data.add(key="location", value=link(target))
        return [odd()], [found]

    def first(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        found = external(location=link(target))
        found.external_data.add(key="location", value="missing.bin")
        return [odd()], [found]

    def node(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        return [helper.make_node("Constant", [], ["w"], value=external(location=str(target))), odd()], []

    def scale(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        found = external(location=link(target))
        found.name = "s"
        return [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), odd()], [
            tensor("q", np.ones(W.shape, np.int8)),
            found,
        ]

    def shape(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        found = TensorProto(name="s", dims=[4], data_type=TensorProto.INT64, data_location=TensorProto.EXTERNAL)
        found.external_data.add(key="location", value=link(target))
        return [helper.make_node("Reshape", ["v", "s"], ["w"]), odd()], [tensor("v", W), found]

    def body(target: Path) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        inside = helper.make_graph([odd()], "b", [], [], [external(location=link(target))])
        return [helper.make_node("If", ["x"], ["z"], then_branch=inside)], []

    for kind, make in {
        "basepath": basepath,
        "location twice": twice,
        "location twice, outside first": first,
        "of a Constant node": node,
        "of a scale": scale,
        "of a shape": shape,
        "of a body": body,
    }.items():
        case(kind, make)


def _devices(writer: Writer) -> None:
    """Data files that are no files, or no names."""
    for kind, location in {
        "device": "/dev/zero",
        "environment": "/proc/self/environ",
        "dot": ".",
        "empty location": "",
        "folder": "folder",
        "missing": "gone.bin",
        "long name": "n" * 300,
        "longer than a path": "n/" * 4_000,
        "nul": "a\0b",
        "inside a file": "m.onnx/inside",
        "home": "~/.bashrc",
    }.items():
        path = writer.beside(f"external/{kind}", [odd()], [external(location=location)], "skipped")
        if kind == "folder":
            (path.parent / kind).mkdir()
    writer.beside("external/no location", [odd()], [external(offset="0")], "skipped")
    for kind, target in {"symlink to a device": "/dev/zero", "symlink to memory": "/proc/self/mem"}.items():
        path = writer.beside(f"external/{kind}", [odd()], [external(location="data.bin", length="432")], "skipped")
        (path.parent / "data.bin").symlink_to(target)
    path = writer.beside("external/symlink to itself", [odd()], [external(location="data.bin")], "skipped")
    (path.parent / "data.bin").symlink_to("data.bin")
    path = writer.beside("external/fifo", [odd()], [external(location="data.bin")], "skipped")
    os.mkfifo(path.parent / "data.bin")
    data = beside([odd()], [external(location="LOCATION")]).SerializeToString()
    writer.bytes("external/no utf-8", data.replace(b"LOCATION", b"\xff\xfe\x80_.bin"), "skipped")


def _lies(writer: Writer) -> None:
    """Offsets and lengths that are not so; the data file is there and would do."""
    size = str(W.nbytes)
    lies: dict[str, dict[str, str]] = {
        "offset beyond": {"offset": "1000000"},
        "offset at the end": {"offset": str(W.nbytes * 2)},
        "offset negative": {"offset": "-1"},
        "offset 2**63": {"offset": str(2**63), "length": size},
        "offset 2**64": {"offset": str(2**64), "length": size},
        "offset of 5,000 digits": {"offset": "9" * 5_000},
        "offset no number": {"offset": "abc", "length": size},
        "offset empty": {"offset": "", "length": size},
        "offset a fraction": {"offset": "0.5", "length": size},
        "offset nan": {"offset": "nan", "length": size},
        "length beyond": {"length": "1000000"},
        "length negative": {"length": "-1"},
        "length zero": {"length": "0"},
        "length 2**63": {"length": str(2**63)},
        "length 2**62": {"length": str(2**62)},
        "length no number": {"length": "0x1b0"},
        "length too short": {"length": str(W.nbytes - 4)},
        "length odd": {"length": str(W.nbytes - 1)},
        "length too long": {"length": str(W.nbytes + 36)},
        "sum overflows": {"offset": str(2**63 - 1), "length": str(2**63 - 1)},
        "sum wraps to the start": {"offset": str(2**64 - W.nbytes), "length": str(W.nbytes * 2)},
        "sum beyond": {"offset": str(W.nbytes + 4), "length": size},
    }
    for kind, entries in lies.items():
        path = writer.beside(f"external/{kind}", [odd()], [external(location="data.bin", **entries)], "skipped")
        (path.parent / "data.bin").write_bytes(W.tobytes() * 2)
    # The file that a harmless model needs is read, whatever else is said of it.
    path = writer.beside(
        "external/unknown key", [odd()], [external(location="data.bin", **{"\x1b[31m\nevil": "1"})], "stored"
    )
    (path.parent / "data.bin").write_bytes(W.tobytes())
    path = writer.beside("external/data file empty", [odd()], [external(location="data.bin")], "skipped")
    (path.parent / "data.bin").touch()


# Files that are no models


class _Exploit:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _no_models(writer: Writer) -> None:
    whole = beside([odd()], [tensor("w", W)]).SerializeToString()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("m.onnx", whole)
    rng = np.random.default_rng(0)
    files = {
        "empty": b"",
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n",
        "random": rng.bytes(100_000),
        "random, short": rng.bytes(10),
        "zeros": bytes(1_000),
        "zip": archive.getvalue(),
        "gzip": gzip.compress(whole),
        "pickle": pickle.dumps(_Exploit(writer.folder / "outside" / "unpickled")),
        "html": b"<!DOCTYPE html><html><body>404 \x1b[31mNot Found</body></html>",
        "json": b'{"graph": {}}',
        "text": b'ir_version: 8\ngraph { node { op_type: "Conv" } }\n',
        "tflite": b"\x1c\x00\x00\x00TFL3" + bytes(100),
        "no graph": onnx.ModelProto(ir_version=8, producer_name="tests").SerializeToString(),
        "escapes at the start": b"\x1b]0;owned\x07\x1b[2J\n\n\r" + bytes(20),
        "endless varint": b"\xff" * 64,
        "length beyond the file": part(GRAPH, whole)[:3] + b"\xff\xff\xff\xff\x07",
        "groups in groups": b"\x0b" * 200_000,
        "model in a model": part(GRAPH, part(GRAPH, whole)),
    }
    for kind, data in files.items():
        writer.bytes(f"file/{kind}", data, "rejected", reason="model")
    places = (1, 2, 3, 10, 40, len(whole) // 4, len(whole) // 2, 3 * len(whole) // 4, len(whole) - 5, len(whole) - 1)
    for length in places:
        writer.bytes(f"file/truncated at {length}", whole[:length], "rejected", reason="model")
    path = writer.place("file/sparse 3 GB")
    _sparse(path, 3 * 10**9)
    writer.cases["file/sparse 3 GB"] = Case(path, "rejected", r"size|large|byte|GiB|GB|limit", bomb=True, unread=True)
    path = writer.place("file/symlinked")
    save(path.parent / "blob", beside([odd()], [tensor("w", W)]))
    path.symlink_to("blob")
    writer.cases["file/symlinked"] = Case(path, "stored")
    for kind, text in {
        "control characters": "new\nline\x1b[31m\x9b2J\r.onnx",
        "no utf-8": os.fsdecode(b"caf\xe9.onnx"),
    }.items():
        for end, data in (("rejected", b"junk"), ("stored", whole)):
            path = writer.place(f"file/name {kind} {end}").parent / text
            path.write_bytes(data)
            writer.cases[f"file/name {kind} {end}"] = Case(path, end)  # type: ignore[arg-type]


def _sparse(path: Path, size: int, head: bytes = b"", tail: bytes = b"") -> None:
    """A file with a hole between head and tail."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
        file.seek(0, io.SEEK_END)
        file.write(tail)


# Tensors


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


# Folding


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


# Attributes


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


# Names


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


# Graphs


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
        functions = b"".join(_function(i, [f"f{calls[i]}"]) for i in range(2))
        call = make("f0", ["x"], ["z"], domain="own")
        writer.beside(f"graph/functions that call {kind}", [call], [], "rejected", functions, reason="itself|recurs")
    functions = b"".join(_function(i, [f"f{i + 1}"]) for i in range(5_000))
    call = make("f0", ["x"], ["z"], domain="own")
    writer.beside("graph/5,000 functions deep", [call], [], "rejected", functions, or_else=("stored",), odd=())
    for levels in (20, 50, 99, 150, 3_000):
        end: End = "stored" if levels == 20 else "rejected"  # protobuf's own limit lies between 20 and 50
        nest = part(GRAPH, _nested(levels, odd().SerializeToString()))
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


def _function(index: int, calls: list[str]) -> bytes:
    """A local function own::f<index> that calls others, one after the other."""
    nodes = [
        helper.make_node(call, ["a" if not k else f"t{k}"], ["b" if k == len(calls) - 1 else f"t{k + 1}"], domain="own")
        for k, call in enumerate(calls)
    ]
    found = helper.make_function("own", f"f{index}", ["a"], ["b"], nodes, [helper.make_opsetid("own", 1)])
    return part(FUNCTION, found.SerializeToString())


def _nested(levels: int, innermost: bytes) -> bytes:
    """A graph with a node inside as many bodies."""
    graph = part(NODE, innermost)
    for level in range(levels):
        body = part(1, b"then_branch") + part(6, graph) + number(20, AttributeProto.GRAPH)
        graph = raw_node(b"If", [b"x"], [b"if%d" % level], extra=part(5, body))
    return graph


# Bombs


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
    functions = b"".join(_function(i, [f"f{i + 1}"] * 2) for i in range(levels))
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
        _sparse(path.parent / "data.bin", size)

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
    _sparse(path.parent / "data.bin", gigabytes)
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
    _sparse(path, len(start) + size, start)
    writer.cases[name] = Case(path, "rejected", or_else=("skipped",), bomb=True)


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
    points = [tensor("w", weights(kernel=(1, 1)))]
    case("50,000 convolutions of one name", [], points, "skipped", extra=convs(50_000, "w", name=b"same"), **shared)
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
    inside = _nested(25, make("Sum", names, ["s"]).SerializeToString())
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
    "bomb/9 MB shared by 2,000 convolutions",
    "bomb/a million channels",
    "bomb/50,000 kernel shapes",
    "bomb/30,000 layers",
    "bomb/300,000 nodes that consume one value",
    "bomb/25 bodies that capture 200,000 names",
    "bomb/50,000 calls with 100,000 arguments",
    "bomb/300,000 empty bodies",
)
"""The cases that are to be run alone."""

_FAMILIES: tuple[Callable[[Writer], None], ...] = (
    _traversals,
    _hidden_traversals,
    _devices,
    _lies,
    _no_models,
    _tensors,
    _dtypes,
    _folds,
    _constants,
    _attributes,
    _names,
    _graphs,
    _count_bombs,
    _size_bombs,
    _work_bombs,
)
