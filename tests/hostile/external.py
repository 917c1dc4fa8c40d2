"""External data: ways out of the model's folder, data files that are no files, offsets and lengths that lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.case import Case, End, Family, W, Writer, beside, odd
from tests.models import save, tensor


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


def _traversal(writer: Writer, kind: str, way: Callable[[Path, Path], str]) -> None:
    name = f"external/{kind}"
    target = writer.canary(name)
    path = writer.place(name)
    (path.parent / "sub").mkdir() if "below" in kind else None
    save(path, beside([odd()], [external(location=way(path.parent, target))]))
    writer.cases[name] = Case(path, "rejected", r"cannot be read|external|outside|link", canary=target)


def _linked(link: Path, target: Path, below: str = "") -> str:
    link.symlink_to(target)
    return f"{link.name}/{below}" if below else link.name


def _relative_symlink(folder: Path, target: Path) -> str:
    return _linked(folder / "data.bin", Path("../../../outside") / target.name)


def _two_symlinks(folder: Path, target: Path) -> str:
    _linked(folder / "first", target)
    return _linked(folder / "data.bin", folder / "first")


def _hidden_traversals(writer: Writer) -> None:
    """The same, where one might not look."""

    def case(kind: str, make: Callable[[Path], tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]) -> None:
        name = f"external/{kind}"
        target = writer.canary(name)
        writer.beside(name, *make(target), "rejected", canary=target)

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
        path = writer.beside(f"external/{kind}", [odd()], [external(location=location)], "rejected")
        if kind == "folder":
            (path.parent / kind).mkdir()
    writer.beside("external/no location", [odd()], [external(offset="0")], "rejected")
    for kind, target in {"symlink to a device": "/dev/zero", "symlink to memory": "/proc/self/mem"}.items():
        path = writer.beside(f"external/{kind}", [odd()], [external(location="data.bin", length="432")], "rejected")
        (path.parent / "data.bin").symlink_to(target)
    path = writer.beside("external/symlink to itself", [odd()], [external(location="data.bin")], "rejected")
    (path.parent / "data.bin").symlink_to("data.bin")
    path = writer.beside("external/fifo", [odd()], [external(location="data.bin")], "rejected")
    os.mkfifo(path.parent / "data.bin")
    data = beside([odd()], [external(location="LOCATION")]).SerializeToString()
    writer.bytes("external/no utf-8", data.replace(b"LOCATION", b"\xff\xfe\x80_.bin"), "rejected")


def _lies(writer: Writer) -> None:
    """Offsets and lengths that are not so; the data file is there and would do.

    What lies beyond the end of the file rejects the model: nobody can tell it from a file that is cut off.
    """
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
        beyond = any(word in kind for word in ("beyond", "at the end", "2**6", "sum "))
        end: End = "rejected" if beyond else "skipped"
        path = writer.beside(f"external/{kind}", [odd()], [external(location="data.bin", **entries)], end)
        (path.parent / "data.bin").write_bytes(W.tobytes() * 2)
    # The file that a harmless model needs is read, whatever else is said of it.
    path = writer.beside(
        "external/unknown key", [odd()], [external(location="data.bin", **{"\x1b[31m\nevil": "1"})], "stored"
    )
    (path.parent / "data.bin").write_bytes(W.tobytes())
    for kind in ("hard link", "link to a file beside", "link below the folder", "link over a linked folder"):
        path = writer.beside(f"external/{kind}", [odd()], [external(location="data.bin")], "stored")
        blob = path.parent / "sub" / "blob"
        blob.parent.mkdir()
        blob.write_bytes(W.tobytes())
        if kind == "hard link":
            (path.parent / "data.bin").hardlink_to(blob)
        elif kind == "link to a file beside":
            blob.rename(path.parent / "blob")
            (path.parent / "data.bin").symlink_to("blob")
        else:
            (path.parent / "again").symlink_to("sub/../sub")
            (path.parent / "data.bin").symlink_to("again/blob" if "linked" in kind else "./sub/../sub//blob")
    path = writer.beside("external/data file empty", [odd()], [external(location="data.bin")], "rejected")
    (path.parent / "data.bin").touch()


FAMILIES: tuple[Family, ...] = (_traversals, _hidden_traversals, _devices, _lies)
