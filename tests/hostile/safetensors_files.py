"""safetensors files whose headers lie, blow up, or say things twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.hostile.case import GOOD, Case, Family, W, Writer

Header = dict[str, Any]


def entry(shape: tuple[int, ...], first: int, last: int, dtype: str = "F32") -> Header:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


def file_of(header: Header | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


SIZE = GOOD.nbytes
"""Bytes of each of the two weights."""

DATA = GOOD.tobytes() + W.tobytes()


def two(odd: Header | None = None, name: str = "odd") -> Header:
    """The good weight, and beside it the odd one."""
    return {"good": entry(GOOD.shape, 0, SIZE), name: odd or entry(W.shape, SIZE, 2 * SIZE)}


def _lies(writer: Writer) -> None:
    good = json.dumps(entry(GOOD.shape, 0, SIZE))
    rejected: dict[str, bytes] = {
        "offsets behind the end": file_of(two(entry(W.shape, SIZE + 4, 2 * SIZE + 4)), DATA),
        "a length of 2^64": b"\xff" * 8 + b"{" + DATA,
        "a length of nothing": bytes(8) + DATA,
        "overlapping tensors": file_of(two(entry(W.shape, 0, SIZE)), GOOD.tobytes()),
        "a gap": file_of(two(entry(W.shape, SIZE + 8, 2 * SIZE + 8)), DATA + bytes(8)),
        "a huge shape": file_of(two(entry((2**31, 2**31, 3, 3), SIZE, 2 * SIZE)), DATA),
        "a negative shape": file_of(two(entry((-4, -3, 3, 3), SIZE, 2 * SIZE)), DATA),
        "a rank of a thousand": file_of(two(entry((1,) * 1_000, SIZE, SIZE + 4)), DATA[: SIZE + 4]),
        "repeated keys": file_of(f'{{"good":{good},"good":{good}}}'.encode(), GOOD.tobytes()),
        "no utf-8": file_of(b'{"\xff\xfe":' + good.encode() + b"}", GOOD.tobytes()),
        "nested ten thousand times": file_of(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        "cut": file_of(two(), DATA)[:-1],
        "cut in the header": file_of(two(), DATA)[:40],
        "no convolution": file_of({"fc": entry((GOOD.size,), 0, SIZE)}, GOOD.tobytes()),
        "numbers that are not finite": file_of(b'{"good":{"dtype":"F32","shape":[NaN],"data_offsets":[0,Infinity]}}'),
        "metadata only": file_of({"__metadata__": {"format": "pt"}}),
    }
    for kind, data in rejected.items():
        writer.bytes(f"safetensors/{kind}", data, "rejected", reason="safetensors|convolution|ONNX")
    nan = np.full_like(W, np.nan).tobytes()
    writer.bytes("safetensors/not finite", file_of(two(), GOOD.tobytes() + nan), "skipped", reason="NaN")
    unknown = two(entry(W.shape, SIZE, 2 * SIZE, "F99"))
    writer.bytes("safetensors/an unknown type", file_of(unknown, DATA), "skipped", reason="F99")
    writer.bytes("safetensors/sound", file_of(two(), DATA), "stored")
    writer.bytes("safetensors/escapes in a name", file_of(two(name="odd\x1b[2J\n\u202e"), DATA), "stored")
    writer.bytes(
        "safetensors/a surrogate in a name", file_of(two(name="odd\ud800"), DATA), "rejected", or_else=("stored",)
    )
    writer.bytes("safetensors/a name of a megabyte", file_of(two(name="o" * 2**20), DATA), "rejected")


def _bombs(writer: Writer) -> None:
    # 90 MB of header: a million tensors without a number, and nothing but spaces.
    many = b",".join(b'"%d":{"dtype":"F32","shape":[0,3,3,3],"data_offsets":[0,0]}' % i for i in range(1_400_000))
    writer.bytes("bomb/1.4 million empty tensors", file_of(b"{" + many + b"}"), "rejected", bomb=True)
    writer.bytes("bomb/90 MB of spaces", file_of(b"{" + b" " * 90_000_000 + b"}"), "rejected", bomb=True)
    path = writer.place("bomb/3 GB in one tensor")
    header = json.dumps({"odd": entry((2**18, 320, 3, 3), 0, 2**18 * 320 * 36)}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**18 * 320 * 36)
    writer.cases["bomb/3 GB in one tensor"] = Case(
        path, "skipped", "memory|many|filters", ("rejected",), kept=(), bomb=True
    )


FAMILIES: tuple[Family, ...] = (_lies, _bombs)

BOMBS = ("bomb/1.4 million empty tensors", "bomb/90 MB of spaces", "bomb/3 GB in one tensor")
"""The cases that are to be run alone."""
