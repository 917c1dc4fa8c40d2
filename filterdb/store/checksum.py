"""CRC32C of parts that are read in another order than they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import crc32c

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, bits reversed."""


def extend(checksum: int, data: memoryview) -> int:
    """The CRC32C of what `checksum` is of, followed by `data`."""
    return int(crc32c.crc32c(data, checksum))


def joined(checksums: Sequence[int], size: int) -> int:
    """The CRC32C of consecutive parts of `size` bytes each, from the CRC32C of each part.

    A CRC is linear over GF(2): zeros after a part change its checksum by a matrix, and then the next one's is added
    (the construction of zlib's crc32_combine).
    """
    total = 0
    for checksum in checksums:
        total = _times(_zeros(size), total) ^ checksum
    return total


@lru_cache(maxsize=64)
def _zeros(size: int) -> tuple[int, ...]:
    """The matrix, a column per bit, that `size` zero bytes apply to a CRC32C."""
    if size == 0:
        return tuple(1 << bit for bit in range(32))
    if size == 1:
        columns = [1 << bit for bit in range(32)]
        for _ in range(8):
            columns = [(c >> 1) ^ (POLYNOMIAL if c & 1 else 0) for c in columns]
        return tuple(columns)
    half = _zeros(size // 2)
    whole = tuple(_times(half, column) for column in half)
    return tuple(_times(_zeros(1), column) for column in whole) if size % 2 else whole


def _times(matrix: tuple[int, ...], vector: int) -> int:
    total = 0
    for bit in range(vector.bit_length()):
        if vector >> bit & 1:
            total ^= matrix[bit]
    return total
