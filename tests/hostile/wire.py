"""Protobuf by hand: a field that occurs again is merged, so that bytes can be added to a whole message."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


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
