"""PyTorch checkpoints: pickles that would run code, storages and views that lie, archives that lie or blow up."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile.case import GOOD, Case, End, Family, W, Writer, sparse
from tests.models.checkpoint.writer import (
    Instance,
    Raw,
    Ref,
    Storage,
    Tensor,
    archive,
    legacy_checkpoint,
    module,
    tensor,
    zip_checkpoint,
)

ODD = "odd.weight"
"""The layer beside `good.weight`."""


def beside(odd: Any = None, **others: Any) -> dict[str, Any]:
    """Return a state of the good weight, other objects, and the odd weight."""
    return {"good.weight": tensor(GOOD), **others, ODD: tensor(W) if odd is None else odd}


def _case(writer: Writer, kind: str, data: bytes, end: End, **kwargs: Any) -> None:
    writer.bytes(f"checkpoint/{kind}", data, end, layer=ODD, **kwargs)


def _payloads(writer: Writer) -> None:
    """Every operation of a pickle that calls something. All stay inert, and the weights are stored."""
    mark = str(writer.folder / "outside" / "unpickled")
    text = b"V" + mark.encode() + b"\n"
    short = b"\x8c" + bytes([len(mark)]) + mark.encode()
    code = f"__import__('os').mkdir({mark!r})"
    payloads = {
        "reduce": b"cos\nmkdir\n(" + text + b"tR",
        "stack global": b"\x8c\x02os\x8c\x05mkdir\x93" + short + b"\x85R",
        "inst": b"(" + text + b"ios\nmkdir\n",
        "obj": b"(cos\nmkdir\n" + text + b"o",
        "newobj": b"csubprocess\nPopen\n((lVmkdir\na" + text + b"at\x81",
        "newobj with keywords": b"csubprocess\nPopen\n)}Vargs\n(lVmkdir\na" + text + b"as\x92",
        "eval": b"c__builtin__\neval\n(V" + code.encode() + b"\ntR",
        "exec": b"cbuiltins\nexec\n(V" + code.encode() + b"\ntR",
        "a chain of getattr": b"cbuiltins\ngetattr\n(c__builtin__\n__import__\n(Vos\ntRVmkdir\ntR(" + text + b"tR",
        "state of a class": b"cbuiltins\nobject\n)\x81}V__reduce__\ncos\nmkdir\nsb",
        "extension": b"\x82\x01" + short + b"\x85R",
        "a nested file": b"ctorch.storage\n_load_from_bytes\n(V" + b"x" * 40 + b"\ntR",
        "partial": b"cfunctools\npartial\n(cos\nmkdir\n" + text + b"tR)R",
        "own functions with a class": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nmkdir\nNN(" + text + b"tNtR",
        "numpy": b"cnumpy.core.multiarray\n_reconstruct\n(cos\nmkdir\n(I0\ntVb\ntR",
        "dotted name": b"\x8c\x08builtins\x8c\x0eobject.__new__\x93)R",
    }
    for form in (zip_checkpoint, legacy_checkpoint):
        for kind, operations in payloads.items():
            data = form(beside(payload=Raw(operations)))
            _case(writer, f"payload {kind}, {form.__name__}", data, "stored")


def _odd_objects(writer: Writer) -> None:
    """Objects that contain themselves or each other, keys that are no names, and ids that name no storage."""
    good = {
        "dictionary in itself": b"}q\xf0Vself\nh\xf0s",
        "list in itself": b"]q\xf0h\xf0a",
        "dictionary with odd keys": b"}(NI1\n(tI2\n]I3\n\x8a\x01\x05I4\nG\x7f\xf8\0\0\0\0\0\0I5\nu",
        "memo 2**31": b"Nr\xff\xff\xff\x7f",
        "unbalanced pops": b"NN0",
    }
    for kind, operations in good.items():
        _case(writer, kind, zip_checkpoint(beside(payload=Raw(operations))), "stored")
    bad = {
        "pops too much": b"00000000",
        "mark missing": b"ttt",
        "memo missing": b"hz",
        "persistent text": b"Pabc\n",
        "persistent number": b"I1\nQ",
        "persistent list": b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI9\nlQ",
        "persistent of four": b"(Vstorage\nctorch\nFloatStorage\nV0\nI9\ntQ",
        "persistent of another class": b"(Vstorage\ncos\nsystem\nV0\nVcpu\nI9\ntQ",
        "storage missing": b"(Vstorage\nctorch\nFloatStorage\nV../../../outside/x\nVcpu\nI9\ntQ",
        "storage of -1": b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI-1\ntQ",
        "buffers out of band": b"\x97",
        "100,000 lists inside each other": b"]" * 100_000 + b"a" * 99_999,
        "state without an object": b"Nb" * 50,
        "unknown operation": b"\xff",
    }
    for kind, operations in bad.items():
        _case(writer, kind, zip_checkpoint(beside(payload=Raw(operations))), "rejected")
    twice = Raw(b"}(V" + ODD.encode() + b"\nNV" + ODD.encode() + b"\n")
    nothing = Raw(b"u")
    _case(writer, "a key twice", zip_checkpoint([twice, tensor(W), nothing]), "rejected", or_else=("stored",), odd=None)
    looped = Instance(Ref("my", "Net"), {})
    looped.state = module("my.Net", {"weight": W}, modules={"self": looped}).state
    _case(writer, "module in itself", zip_checkpoint(looped), "stored", kept=())
    surrogate = zip_checkpoint({"good.weight": tensor(GOOD), "odd\ud800": tensor(W)})
    _case(writer, "a name of half a character", surrogate, "stored")


_ABOVE = {"count above the data", "count 2**62"}
"""Views whose storage would end behind the end of the file in the form before PyTorch 1.6."""


def _views(writer: Writer) -> None:
    """Sizes, strides and offsets that are no view of the storage."""

    def view(shape: Any = W.shape, strides: Any = (27, 9, 3, 1), offset: Any = 0, count: int | None = None) -> Tensor:
        return Tensor(Storage(W.reshape(-1), count=count), shape, strides, offset)

    skipped = {
        "count above the data": view((4, 4, 3, 3), (36, 9, 3, 1), 0, 144),
        "count below the view": view(count=107),
        "count 2**62": view(offset=2**61, count=2**62),
        "offset beyond": view(offset=1),
        "offset 2**62": view(offset=2**62),
        "stride beyond": view(strides=(28, 9, 3, 1)),
        "stride 2**62": view(strides=(2**62, 9, 3, 1)),
        "expanded to 2**40": view((2**20, 2**20, 3, 3), (0, 0, 3, 1)),
        "no numbers": view((0, 3, 3, 3)),
    }
    for kind, odd in skipped.items():
        for form in (zip_checkpoint, legacy_checkpoint):
            end: End = "rejected" if form is legacy_checkpoint and kind in _ABOVE else "skipped"
            _case(writer, f"view {kind}, {form.__name__}", form(beside(odd)), end)
    rejected = {
        "offset negative": view(offset=-1),
        "stride negative": view(strides=(27, 9, -3, 1)),
        "size negative": view((4, -3, 3, 3)),
        "size 2**63": view((2**63, 3, 3, 3)),
        "sizes that overflow": view((2**62, 2**62, 3, 3)),
        "size a fraction": view((4, 3.0, 3, 3)),
        "size a truth": view((4, True, 3, 3)),
        "size a dictionary": view({}),
        "strides too few": view(strides=(27, 9, 3)),
        "rank 65": view((1,) * 65, (1,) * 65),
        "offset a text": view(offset="0"),
    }
    for kind, odd in rejected.items():
        _case(writer, f"view {kind}", zip_checkpoint(beside(odd)), "rejected")


def _archives(writer: Writer) -> None:
    """Archives whose directory lies, and members that are not what they should be."""
    whole = zip_checkpoint(beside())
    for length in (1, 30, len(whole) // 2, len(whole) - 23, len(whole) - 1):
        _case(writer, f"zip truncated at {length}", whole[:length], "rejected")
    members = {name.removeprefix("archive/"): data for name, data in _unzipped(whole).items()}
    pickled = members["data.pkl"]
    changed: dict[str, dict[str, bytes]] = {
        "pickle empty": {**members, "data.pkl": b""},
        "pickle cut": {**members, "data.pkl": pickled[:-10]},
        "pickle an archive": {**members, "data.pkl": whole},
        "two pickles": {**members, "../other/data.pkl": pickled},
        "byte order": {**members, "byteorder": b"middle"},
        "text length 2**60": {**members, "data.pkl": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a."},
        "number of 100,000 digits": {**members, "data.pkl": b"L" + b"9" * 100_000 + b"L\n."},
    }
    for kind, parts in changed.items():
        if kind != "two pickles":
            _case(writer, kind, archive(parts), "rejected")
    _case(writer, "compressed", archive(members, method=zipfile.ZIP_DEFLATED), "rejected", reason="compressed")
    bomb = {**members, "data/0": bytes(100_000_000)}
    _case(writer, "zip bomb", archive(bomb, method=zipfile.ZIP_DEFLATED), "rejected", reason="compressed")
    with warnings.catch_warnings(action="ignore"):
        buffer = writer.folder / "twice.zip"
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in [*members.items(), ("data/0", bytes(432))]:
                file.writestr(f"archive/{name}", data)
        _case(writer, "member twice", buffer.read_bytes(), "rejected")
        buffer.unlink()
    _patched(writer, whole)


def _unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _patched(writer: Writer, whole: bytes) -> None:
    """Fields of the directory and of headers that are changed in place. The odd weight is data/1."""
    entry = whole.rindex(b"PK\1\2", 0, whole.rindex(b"archive/data/1"))
    header = whole.index(b"PK\3\4", whole.index(b"archive/data/1") - 30)
    first = whole.index(b"PK\3\4", whole.index(b"archive/data/0") - 30)
    end = whole.rindex(b"PK\5\6")

    def patch(offset: int, form: str, *values: int) -> bytes:
        data = bytearray(whole)
        struct.pack_into(f"<{form}", data, offset, *values)
        return bytes(data)

    rejected = {
        "encrypted": patch(entry + 8, "H", 1),
        "compressed by name": patch(entry + 10, "H", 8),
        "version needed 99": patch(entry + 6, "H", 99),
        "size 2**32 - 2": patch(entry + 20, "II", 2**32 - 2, 2**32 - 2),
        "overlapping": patch(entry + 42, "I", first),
        "header behind the directory": patch(entry + 42, "I", len(whole)),
        "directory of 2**31 bytes": patch(end + 12, "I", 2**31),
        "directory behind the end": patch(end + 16, "I", 2**31),
        "directory at -1": patch(end + 12, "II", 2**32 - 1, 2**32 - 1),
        "name no utf-8": patch(entry + 8, "H", 0x800).replace(b"archive/data/1", b"archive/dat\xff/1"),
    }
    for kind, data in rejected.items():
        _case(writer, f"zip {kind}", data, "rejected")
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 2**63, 2**63, 2**63, 2**63 - 1)
    locator = struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    tail = bytearray(whole[end:])
    struct.pack_into("<HHII", tail, 8, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1)
    _case(writer, "zip64 of 2**63", whole[:end] + record + locator + bytes(tail), "rejected")
    extra = patch(entry + 20, "II", 2**32 - 1, 2**32 - 1)
    _case(writer, "zip64 without its field", extra, "rejected")
    lies = {
        "header encrypted": patch(header + 6, "H", 1),
        "header compressed": patch(header + 8, "H", 8),
        "header with a long name": patch(header + 26, "H", 2**16 - 1),
        "header of another kind": patch(header, "I", 0),
    }
    for kind, data in lies.items():
        _case(writer, f"zip {kind}", data, "skipped")


def _streams(writer: Writer) -> None:
    """The form before PyTorch 1.6."""
    whole = legacy_checkpoint(beside())
    for length in (20, 60, len(whole) // 3, len(whole) - 432, len(whole) - 1):
        _case(writer, f"legacy truncated at {length}", whole[:length], "rejected")
    place = len(whole) - W.nbytes - 8
    for kind, count in {"-1": -1, "2**62": 2**62, "0": 0}.items():
        data = whole[:place] + struct.pack("<q", count) + whole[place + 8 :]
        _case(writer, f"legacy count {kind}", data, "skipped")
    keys = whole.rindex(b"\x80\x02]")
    lists = {
        "no list": b"\x80\x02N.",
        "empty": b"\x80\x02].",
        "others": b"\x80\x02](VX\nVY\ne.",
        "twice": b"\x80\x02](V0\nV0\ne.",
        "objects": b"\x80\x02](}]e.",
    }
    for kind, data in lists.items():
        _case(writer, f"legacy keys {kind}", whole[:keys] + data + bytes(1_000), "rejected")
    head = b"".join((b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02M\xea\x03.", b"\x80\x02}."))
    _case(writer, "legacy protocol 1002", head, "rejected")
    views = {
        "beyond": b"(Vk\nI1\nI108\nt",
        "negative": b"(Vk\nI-1\nI8\nt",
        "of two": b"(Vk\nI1\nt",
        "a text": b"Vk\n",
    }
    for kind, view in views.items():
        pid = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI108\n" + view + b"tQ"
        _case(writer, f"legacy view {kind}", legacy_checkpoint(beside(payload=Raw(pid))), "rejected")


def _bombs(writer: Writer) -> None:
    """Much of something in few operations."""

    def bomb(kind: str, content: Any, end: End, form: Callable[[Any], bytes] = zip_checkpoint, **kwargs: Any) -> None:
        writer.bytes(f"bomb/checkpoint, {kind}", form(content), end, layer=ODD, bomb=True, **kwargs)

    double = b"q\xf0h\xf0\x86"
    bomb("tuples doubled 60 times as a key", beside(p=Raw(b"}N" + double * 60 + b"Ns")), "stored")
    bomb("dictionaries doubled 60 times", beside(p=Raw(b"}" + b"q\xf0}(Va\nh\xf0Vb\nh\xf0u" * 60)), "stored")
    net: Any = module("my.Leaf", {"weight": W})
    for _ in range(60):
        net = module("my.Net", modules={"a": net, "b": net})
    bomb("modules doubled 60 times", net, "rejected")
    bomb("4,000,000 dictionaries", beside(p=Raw(b"](" + b"}" * 4_000_000 + b"e")), "rejected", or_else=("stored",))
    bomb("30,000,000 operations", beside(p=Raw(b"N" + b"N0" * 15_000_000)), "rejected", reason="operations")
    bomb("4,000,000 marks", beside(p=Raw(b"(" * 4_000_000)), "rejected")
    pairs = b"](" + b"]K\1aNa" * 10_000 + b"eq\xf0"
    copies = b"ccollections\nOrderedDict\nq\xf1" + b"h\xf1h\xf0\x85R0" * 100_000
    bomb("100,000 copies of a dictionary", beside(p=Raw(b"(" + pairs + copies + b"l")), "rejected")
    bomb(
        "a number of 100 MB as a key",
        beside(p=Raw(b"}\x8b" + struct.pack("<i", 10**8) + b"\1" * 10**8 + b"Ns")),
        "stored",
    )
    states = b"cmy\nObject\n)\x81q\xf1" + b"}q\xf0" + b"h\xf1h\xf0b0" * 900_000
    bomb("900,000 states of an object", beside(p=Raw(b"(" + states + b"l")), "stored")
    small = Tensor(Storage(W.reshape(-1)), (2**14, 2**13, 3, 3), (0, 0, 3, 1))
    bomb("expanded to 2**27 filters", beside(small), "skipped", reason="memory")
    many = {f"w{i}": Tensor(Storage(W.reshape(-1)[:9]), (1, 1, 3, 3), (9, 9, 3, 1)) for i in range(20_000)}
    bomb("20,000 storages", {"good.weight": tensor(GOOD), **many}, "stored", odd=None, or_else=("rejected",))
    parts = {name.removeprefix("archive/"): part for name, part in _unzipped(zip_checkpoint(beside())).items()}
    data = archive({**parts, **{f"data/{i}": b"" for i in range(2, 100_000)}})
    writer.bytes("bomb/checkpoint, 100,000 members", data, "stored", bomb=True)
    _sparse_bombs(writer)


def _sparse_bombs(writer: Writer) -> None:
    """Files of gigabytes that take no place on the disk."""
    path = writer.place("bomb/checkpoint, a view over 3 GB")
    view = Tensor(Storage(np.zeros(9, np.float32), count=750_000_000), (2, 1, 3, 3), (700_000_000, 9, 3, 1))
    data = legacy_checkpoint({"good.weight": tensor(GOOD), ODD: view})
    data = data[: -36 - 8] + struct.pack("<q", 750_000_000)
    sparse(path, len(data) + 3_000_000_000, data)
    writer.cases["bomb/checkpoint, a view over 3 GB"] = Case(path, "skipped", "memory", layer=ODD, bomb=True)
    path = writer.place("bomb/checkpoint, a directory of 300 MB")
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 60_000, 60_000, 300_000_000, 100, 0)
    sparse(path, 300_000_100, b"PK\3\4" + bytes(26) + b"archive/data.pkl", end)
    writer.cases["bomb/checkpoint, a directory of 300 MB"] = Case(path, "rejected", bomb=True)


BOMBS = tuple(
    f"bomb/checkpoint, {kind}"
    for kind in (
        "tuples doubled 60 times as a key",
        "dictionaries doubled 60 times",
        "modules doubled 60 times",
        "4,000,000 dictionaries",
        "30,000,000 operations",
        "4,000,000 marks",
        "100,000 copies of a dictionary",
        "a number of 100 MB as a key",
        "900,000 states of an object",
        "expanded to 2**27 filters",
        "20,000 storages",
        "100,000 members",
        "a view over 3 GB",
        "a directory of 300 MB",
    )
)
"""The cases that are to be run alone."""

FAMILIES: tuple[Family, ...] = (_payloads, _odd_objects, _views, _archives, _streams, _bombs)
