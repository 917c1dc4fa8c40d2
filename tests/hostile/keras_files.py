"""Hostile files of Keras: HDF5 that reaches for other files or lies about sizes, configs and archives that blow up."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.hostile.case import CANARY, GOOD, MIB, Case, End, W
from tests.models.keras.files import WEIGHTS, conv, layer, sequential, tree, write_h5, write_keras

GOOD_KERNEL, ODD_KERNEL = (np.ascontiguousarray(w.transpose(2, 3, 1, 0)) for w in (GOOD, W))
CONFIG = sequential(conv("good", GOOD_KERNEL), conv("odd", ODD_KERNEL))
TREE = {"layers/conv2d": [GOOD_KERNEL], "layers/conv2d_1": [ODD_KERNEL]}
ODD = "model_weights/odd/odd/kernel:0"

BOMBS = ("chunks of zeros", "one compressed kernel in 300 layers", "a 1 GB member of zeros", "calls of calls of calls",
         "a config of 200 MB of spaces", "100,000 nested lists", "a million members")  # fmt: skip


@dataclass(frozen=True, slots=True)
class KerasWriter:
    """The corpus while it is written."""

    folder: Path
    cases: dict[str, Case] = field(default_factory=dict)

    def place(self, name: str, suffix: str) -> Path:
        """Where the model of a case goes: a folder of its own."""
        path = self.folder / "models" / name.replace(" ", "-") / f"m{suffix}"
        path.parent.mkdir(parents=True)
        return path

    def canary(self, name: str) -> Path:
        """An HDF5 file outside every model's folder, full of a mark."""
        path = self.folder / "outside" / f"{name.replace(' ', '-')}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            mark = np.frombuffer(CANARY * (ODD_KERNEL.nbytes // len(CANARY)), "<f4")
            file.create_dataset(
                "kernel", data=mark.reshape(ODD_KERNEL.shape), maxshape=(3, 3, None, 4), chunks=(3, 3, 1, 4)
            )
            file.create_group("group").attrs["weight_names"] = np.array([b"odd/kernel:0"])
            file["group/odd/kernel:0"] = file["kernel"]
        return path

    def h5(
        self, name: str, end: End, reason: str = "", change: Callable[[h5py.File], None] | None = None, **more: Any
    ) -> None:
        """A case of a sound file of Keras 2 that `change` makes odd."""
        path = self.place(name, ".h5")
        config = more.pop("config", CONFIG)
        write_h5(path, config, {"good": {"good/kernel:0": GOOD_KERNEL}, "odd": {"odd/kernel:0": ODD_KERNEL}})
        if change is not None:
            with h5py.File(path, "a") as file:
                change(file)
        self.cases[name] = Case(path, end, reason, bomb=name in BOMBS, **more)

    def zip(self, name: str, end: End, reason: str, data: bytes, **more: Any) -> None:
        """A case with these bytes of an archive."""
        path = self.place(name, ".keras")
        path.write_bytes(data)
        self.cases[name] = Case(path, end, reason, bomb=name in BOMBS, **more)


def write_keras_corpus(folder: Path) -> dict[str, Case]:
    """Write every hostile file below `folder`; gives the cases by name."""
    writer = KerasWriter(folder)
    for write in (_links, _datasets, _configs, _trees, _archives, _bombs):
        write(writer)
    assert {name for name, case in writer.cases.items() if case.bomb} == set(BOMBS)
    return writer.cases


def _links(writer: KerasWriter) -> None:
    for name, target, where, inside in (
        ("an external link as a kernel", "kernel", ODD, True),
        ("an external link as a layer", "group", "model_weights/odd", True),
        ("a soft link as a kernel", "", ODD, False),
        ("a soft link as the weights", "", "model_weights", False),
    ):
        canary = writer.canary(name)

        def link(file: h5py.File, target: str = target, where: str = where, canary: Path = canary) -> None:
            file.move(where, "elsewhere")
            file[where] = h5py.ExternalLink(str(canary), target) if target else h5py.SoftLink("/elsewhere")

        reason = "expected data in the file itself, got " + ("an external link" if inside else "a soft link")
        writer.h5(name, "rejected", reason, link, canary=canary)

    for name, external in (("external storage", True), ("a virtual dataset", False)):
        canary = writer.canary(name)

        def store(file: h5py.File, external: bool = external, canary: Path = canary) -> None:
            del file[ODD]
            shape = ODD_KERNEL.shape
            if external:
                file.create_dataset(ODD, shape, "f4", external=[(str(canary), 0, h5py.h5f.UNLIMITED)])
                return
            source = h5py.VirtualSource(str(canary), "kernel", shape, maxshape=(3, 3, None, 4))
            layout = h5py.VirtualLayout(shape, "f4", maxshape=(3, 3, None, 4))
            layout[:, :, 0 : h5py.h5s.UNLIMITED, :] = source[:, :, 0 : h5py.h5s.UNLIMITED, :]
            file.create_virtual_dataset(ODD, layout)

        writer.h5(name, "rejected", f"expected data in the file itself, got {name}", store, canary=canary)


def _replace(values: Any = None, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[ODD]
        file.create_dataset(ODD, data=values, **options)

    return change


def _datasets(writer: KerasWriter) -> None:
    odd = CONFIG["config"]["layers"][1]
    loose = sequential(conv("good", GOOD_KERNEL), {**odd, "config": {"name": "odd", "use_bias": False}})
    nan = ODD_KERNEL.copy()
    nan[0, 0, 0, 0] = np.nan
    for name, change, code in (
        ("a shape of 4 TB", _replace(shape=(3, 3, 2**20, 2**17), dtype="f4"), "more than|bytes as declared"),
        ("a shape that nothing is stored of", _replace(shape=(3, 3, 100, 100), dtype="f4"), "bytes as declared"),
        ("another shape", _replace(ODD_KERNEL[:, :, :, :3]), "its layer has filters 4"),
        ("weights of int8", _replace(ODD_KERNEL.astype("i1")), "dtype int8"),
        ("weights of NaN", _replace(nan), "NaN"),
        ("a filter that must be loaded", _odd_filter, "HDF5 filters"),
        ("opaque values", _replace(ODD_KERNEL.astype("f2").view("V2")), "dtype opaque"),
        ("complex numbers", _replace(ODD_KERNEL.astype("c8")), "dtype complex64"),
    ):  # fmt: skip
        writer.h5(f"dataset/{name}", "skipped", code, change, config=CONFIG if "another" in name else loose)
    writer.h5("dataset/a kernel that is a group", "skipped", "no kernel", _group)
    writer.h5("dataset/no kernel", "skipped", "no kernel", lambda file: file.__delitem__(ODD))


def _odd_filter(file: h5py.File) -> None:
    del file[ODD]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((3, 3, 3, 4))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, ODD.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3, 3, 3, 4)), plan)


def _group(file: h5py.File) -> None:
    del file[ODD]
    file.create_group(ODD)


def _configs(writer: KerasWriter) -> None:
    def tensor(name: str) -> list[Any]:
        return [[[name, 0, 0, {}]]]

    good, odd = CONFIG["config"]["layers"]
    circle = {"class_name": "Functional", "config": {"name": "m", "input_layers": [], "output_layers": [], "layers": [
        {**good, "inbound_nodes": tensor("odd")}, {**odd, "inbound_nodes": tensor("good")}]}}  # fmt: skip
    for name, config, reason in (
        ("no JSON", "{", "JSONDecodeError"),
        ("no object", "[]", "no object"),
        ("no layer", {"class_name": "Sequential", "config": {"layers": [7]}}, "without a class_name"),
        ("settings of no kind", sequential({"class_name": "Conv2D", "config": 7}), "config is a int"),
        ("names of no kind", sequential({**good, "name": [1]}), "no text"),
        ("two layers of a name", sequential(good, good), "two layers of the name"),
        ("layers in a circle", circle, "circle"),
        ("digits without end", '{"a": 1' + "0" * 10_000 + "}", "digits"),
        ("no convolution", sequential(layer("Dense", "dense")), "no convolution found"),
        ("models inside models", '{"class_name": "Sequential", "config": {"layers": [' * 99 + "]}}" * 99, "deep"),
        ("wrappers", sequential(json.loads('{"class_name": "W", "config": {"layer": ' * 99 + "0" + "}}" * 99)),
         "deep"),
    ):  # fmt: skip
        writer.h5(f"config/{name}", "rejected", reason, config=config)
    big = {"strides": [10**30, "x"], "groups": 10**30, "dilation_rate": {"a": 1}}
    writer.h5("config/numbers of no kind", "skipped", "groups", config=sequential(good, conv("odd", ODD_KERNEL, **big)))
    strides = {"strides": [1e400, "x"], "dilation_rate": [[1], 2]}
    writer.h5("config/strides of no kind", "stored", config=sequential(good, conv("odd", ODD_KERNEL, **strides)))
    writer.h5(
        "config/a name that is no text", "skipped", "no kernel", layer="\ud800?".replace("\ud800", "?"),
        config=json.dumps(sequential(good, {**odd, "name": "\ud800?"})),
    )  # fmt: skip
    writer.h5("config/not UTF-8", "rejected", "", lambda file: file.attrs.__setitem__("model_config", b"\xff{}"))
    writer.h5("config/a list as the config", "stored", "", lambda file: file.attrs.__setitem__("model_config", [1, 2]))
    many = np.array([b"%d" % i for i in range(200_001)], dtype="S6")
    writer.h5(
        "config/layer names that are many", "rejected", "names", lambda file: _attribute(file, "layer_names", many)
    )
    writer.h5("config/layer names of no kind", "rejected", "names", lambda file: _attribute(file, "layer_names", [1.5]))


def _attribute(file: h5py.File, name: str, values: Any) -> None:
    group = file["model_weights"]
    del group.attrs[name]
    for number, part in enumerate(np.array_split(np.asarray(values), 40) if len(values) > 100 else [values]):
        group.attrs[f"{name}{number}" if len(values) > 100 else name] = part


def _trees(writer: KerasWriter) -> None:
    """Files of Keras 3 without a config, whose groups are all visited."""

    def case(name: str, end: End, reason: str, change: Callable[[h5py.File], None], **more: Any) -> None:
        path = writer.place(name, ".weights.h5")
        path.write_bytes(tree(TREE))
        with h5py.File(path, "a") as file:
            change(file)
        writer.cases[name] = Case(path, end, reason, layer="conv2d_1", **more)

    def cycle(file: h5py.File) -> None:
        file["layers/conv2d/again"] = file["layers"]
        file["layers/conv2d_1/vars/root"] = file["/"]

    def deep(file: h5py.File) -> None:
        file.create_group("/".join("a" for _ in range(3_000)))

    def bytes_as_name(file: h5py.File) -> None:
        file["layers"].move(b"conv2d_1", b"conv2d_\xff\xfe")

    canary = writer.canary("tree link")
    case("tree/groups in a circle", "stored", "", cycle)
    case("tree/groups 3,000 deep", "rejected", "deep", deep)
    case("tree/a name that is not UTF-8", "stored", "", bytes_as_name)
    case("tree/an external link", "rejected", "a link",
         lambda file: file.__setitem__("layers/z", h5py.ExternalLink(str(canary), "group")), canary=canary)  # fmt: skip


def _archive(weights: bytes | None = None, config: Any = CONFIG, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    write_keras(buffer, config, tree(TREE) if weights is None else weights, compression)  # type: ignore[arg-type]
    return buffer.getvalue()


def _patched(data: bytes, local: dict[int, bytes], central: dict[int, bytes]) -> bytes:
    """Change bytes of the two headers of the weights' member, by their offset there."""
    changed = bytearray(data)
    name = WEIGHTS.encode()
    for start, size, patch in ((data.index(name) - 30, 30, local), (data.rindex(name) - 46, 46, central)):
        assert changed[start : start + 2] == b"PK" and size
        for offset, value in patch.items():
            changed[start + offset : start + offset + len(value)] = value
    return bytes(changed)


def _archives(writer: KerasWriter) -> None:
    sound = _archive()
    size = struct.pack("<I", 2**31)
    writer.zip("zip/sound", "stored", "", sound)
    writer.zip("zip/deflated", "stored", "", _archive(compression=zipfile.ZIP_DEFLATED))
    writer.zip("zip/encrypted", "rejected", "encrypted", _patched(sound, {6: b"\1"}, {8: b"\1"}))
    writer.zip("zip/encrypted in one header", "rejected", "as the archive lists it", _patched(sound, {6: b"\1"}, {}))
    writer.zip("zip/another method", "rejected", "method 14", _archive(compression=zipfile.ZIP_LZMA))
    writer.zip(
        "zip/bytes that were changed", "rejected", "others", sound.replace(GOOD_KERNEL.tobytes()[:8], b"CHANGED!")
    )
    writer.zip("zip/sizes that differ", "rejected", "sizes that can be true", _patched(sound, {}, {24: size}))
    writer.zip("zip/more than the file", "rejected", "fewer", _patched(sound, {}, {20: size, 24: size}))
    writer.zip("zip/an offset beyond the end", "rejected", "", _patched(sound, {}, {42: size}))
    wide = struct.pack("<HHQQ", 1, 16, 2**62, 2**62)
    writer.zip("zip/zip64 that lies", "rejected", "", _zip64(sound, wide))
    writer.zip("zip/weights that are no HDF5", "rejected", "an HDF5 file, got a damaged one", _archive(b"PK" * 1000))
    writer.zip("zip/truncated", "rejected", "archive", sound[: len(sound) // 2] + sound[-200:])
    buffer = io.BytesIO(sound)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr(WEIGHTS, tree({"layers/conv2d": [GOOD_KERNEL]}))
    writer.zip("zip/two members of a name", "rejected", "one member of this name", buffer.getvalue())
    buffer = io.BytesIO(sound)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("../../evil\xe9", b"x")
        file.writestr("/etc/\u202e", b"x")
    writer.zip("zip/names that lead out", "stored", "", buffer.getvalue())
    canary = writer.canary("link inside")
    linked = io.BytesIO(tree(TREE))
    with h5py.File(linked, "a") as file:
        del file["layers/conv2d_1/vars/0"]
        file["layers/conv2d_1/vars/0"] = h5py.ExternalLink(str(canary), "kernel")
    writer.zip(
        "zip/an external link inside", "rejected", "an external link", _archive(linked.getvalue()), canary=canary
    )


def _zip64(data: bytes, extra: bytes) -> bytes:
    """Give the weights' member sizes that a zip64 field says."""
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as file:
        info = file.getinfo(WEIGHTS)
        info.extra = extra
    changed = bytearray(buffer.getvalue())
    start = changed.rindex(WEIGHTS.encode()) - 46
    changed[start + 20 : start + 28] = b"\xff" * 8
    changed[start + 30 : start + 32] = struct.pack("<H", len(extra))
    place = start + 46 + len(WEIGHTS)
    changed[place:place] = extra
    end = changed.rindex(b"PK\5\6")
    changed[end + 12 : end + 16] = struct.pack(
        "<I", int.from_bytes(changed[end + 12 : end + 16], "little") + len(extra)
    )
    return bytes(changed)


def _bombs(writer: KerasWriter) -> None:
    odd = {"class_name": "Conv2D", "config": {"name": "odd", "use_bias": False}, "name": "odd"}
    good = CONFIG["config"]["layers"][0]

    def zeros(rows: int) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            del file[ODD]
            chunk = (3, 3, 1, 2**20)
            dataset = file.create_dataset(ODD, (3, 3, rows, 2**20), "f4", chunks=chunk, compression="gzip")
            data = zlib.compress(bytes(36 * 2**20))
            for row in range(rows):
                dataset.id.write_direct_chunk((0, 0, row, 0), data)

        return change

    writer.h5(
        "chunks of zeros", "skipped", "memory", zeros(60), config=sequential(good, odd), or_else=("stored",), odd=None
    )
    names = [f"odd{number}" for number in range(300)]

    def links(file: h5py.File) -> None:
        zeros(1)(file)
        weights = file["model_weights"]
        for name in names:
            weights.create_group(name).attrs["weight_names"] = np.array([b"k"])
            weights[f"{name}/k"] = file[ODD]

    layers = [{**odd, "name": name} for name in names]
    writer.h5(
        "one compressed kernel in 300 layers", "rejected", "longer|took more", links, config=sequential(good, *layers)
    )
    writer.h5("calls of calls of calls", "rejected", "called more than", config=_exponential(good))
    deep = '{"class_name": "Sequential", "config": ' + "[" * 100_000 + "]" * 100_000 + "}"
    writer.h5("100,000 nested lists", "rejected", "Recursion", config=deep)
    _archive_bombs(writer)


def _exponential(convolution: dict[str, Any]) -> dict[str, Any]:
    """A model that calls a nested model twice, which calls another twice, 40 levels deep."""
    model = sequential(convolution)
    for level in range(40):
        inner = {
            "class_name": model["class_name"],
            "config": {**model["config"], "name": f"n{level}"},
            "name": f"n{level}",
        }
        nodes = [[["x", 0, 0, {}]], [[f"n{level}", 0, 0, {}]]]
        inner["inbound_nodes"] = nodes
        model = {"class_name": "Functional", "config": {"name": "m", "layers": [
            {**layer("InputLayer", "x"), "inbound_nodes": []}, inner],
            "input_layers": [["x", 0, 0]], "output_layers": [[f"n{level}", 1, 0]]}}  # fmt: skip
    return model


def _archive_bombs(writer: KerasWriter) -> None:
    spaces = json.dumps(CONFIG)[:-1] + " " * 200 * MIB + "}"
    writer.zip(
        "a config of 200 MB of spaces", "rejected", "at most", _archive(config=spaces, compression=zipfile.ZIP_DEFLATED)
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", json.dumps(CONFIG))
        with file.open(WEIGHTS, "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(16 * MIB))
    writer.zip("a 1 GB member of zeros", "rejected", "to decompress", buffer.getvalue())
    writer.zip("a million members", "stored", "", _many(_archive(), 300_000), or_else=("rejected",))


def _many(data: bytes, count: int) -> bytes:
    """Add empty members to an archive's list, all of the same local header."""
    end = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    listed = data[start:end]
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    more = b"".join(entry + b"%06d" % number for number in range(count))
    size, total = len(listed) + len(more), count + 3
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, total, total, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    return (
        data[:start]
        + more
        + listed
        + wide
        + locator
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, start, 0)
    )
