"""Files that are no models, and models under odd names."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.hostile.case import Case, Family, W, Writer, beside, odd, sparse
from tests.hostile.wire import GRAPH, part
from tests.models import save, tensor


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
    sparse(path, 3 * 10**9)
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


FAMILIES: tuple[Family, ...] = (_no_models,)
