"""Recognise a layer's filters after their output channels were scaled, as folding a batch normalisation does.

A fingerprint has 32 numbers. Let w be the weights of an output channel as one vector, and d₁ … d₈ fixed pseudorandom
vectors of unit variance. The squares tⱼ = (w·dⱼ)² / ‖w‖² do not change if w is multiplied by a number of either sign.
The channels are dealt to 32 buckets; a bucket's number is Σ ε·tⱼ over its channels and j, with fixed pseudorandom ε,
divided by the root of the number of terms.

No rounding is free of edges, so fingerprints are not compared as texts: two layers have the same filters if at least
five eighths of their buckets agree within a tolerance. The squares are smooth, so a tie of two weights does not
matter, as it would if channels were divided by their largest weight. Relative noise of r in all weights moves a number
by about 2r. The tolerance, 6e-5, is far above the last digits of float32 (1e-7) and the noise of any exporter (1e-5);
weights that training moved by 3e-4 are told apart. It is wider for layers that are stored in half precision. A bucket
of strangers agrees by chance about once in ten thousand times. A channel that is zero in one of two files only, because
its γ is, disturbs its own bucket alone; up to twelve such channels do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.components import Components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BUCKETS = 32
"""Numbers of a fingerprint."""

FEWEST = 16
"""Fewest filters with different directions. Layers with fewer, such as fixed blurs and edge filters, have none."""

_FEWEST_BUCKETS = 8
"""Fewest buckets with a channel that is not zero."""

_VECTORS = 8
_SAMPLE = 4_096
"""Filters that are looked at, at most, to count different directions."""

_INPUTS = 4_096
"""Filters of a channel that are multiplied at a time."""

_DISTINCT = 4 * _INPUTS
"""Filters of a channel from which the vectors d repeat, so that they stay in memory."""

_ROWS = 8_192
"""Filters that are converted to float64 at a time (600 KB), in a core's cache and in memory that is used again."""

_SMALLEST = 1e-36
"""Norm below which a channel counts as zero, because the digits of subnormal numbers of float32 are too few."""

_HALF = 2.0
"""Size of a number that lies halfway from 0 to the end of the codes."""

_LARGEST = 32_767
_NARROW = 1
"""Codes by which a bucket of equal layers may differ: 6e-5 of a number near 0, and 9e-5 with the rounding."""

_PRECISION = {"float16": 11, "bfloat16": 8}
"""Bits of the significand by dtype; any other counts as float32."""

_WIDE = {11: 8, 8: 64}
"""The same if one of the layers was rounded to so many bits: three times the median difference."""

_NEIGHBOURS = 256
"""Layers with the next larger codes of a bucket that are compared, so that a hostile file costs no hours."""

_TEXT = re.compile(r"[0-9a-f]{130}")


def fingerprint(filters: NDArray[np.float32], out_channels: int, source_dtype: str = "float32") -> str:
    """Return the fingerprint of a layer: 130 hexadecimal digits, or "" if its filters are too few or too alike.

    Parameters
    ----------
    filters : (n, weights) float32
        All filters of the layer, by output channel.
    out_channels : int
        Number of output channels.
    source_dtype : str
        The dtype in which the weights are stored, which bounds their precision. Default: "float32".

    Returns
    -------
    str
        Two digits with the bits of a weight, then four for each bucket: 0 without a channel that is not zero, else
        32768 + 32767·z/(2 + |z|) for the number z, rounded.
    """
    if out_channels < 1 or len(filters) % out_channels or not _is_telling(filters):
        return ""
    squares = _squares(filters, out_channels)
    position = np.arange(max(out_channels, BUCKETS))
    rows = squares[position % out_channels]
    is_live = np.isfinite(rows[:, 0])
    bucket = position[is_live] % BUCKETS
    terms = (rows * _noise(0, len(position), seed=2))[is_live].sum(axis=1)
    number = np.bincount(bucket, minlength=BUCKETS)
    if (number > 0).sum() < _FEWEST_BUCKETS:
        return ""
    z = np.bincount(bucket, terms, BUCKETS) / np.sqrt(np.maximum(number, 1) * _VECTORS)
    codes = np.where(number > 0, np.rint(_LARGEST * z / (_HALF + np.abs(z))) + _LARGEST + 1, 0)
    return f"{_PRECISION.get(source_dtype, 24):02x}{codes.astype('>u2').tobytes().hex()}"


def same_filters(hashes: Iterable[str], fingerprints: Iterable[str], sizes: Ints) -> Ints:
    """Return for each layer the position of the first layer that has the same filters apart from scales, (layers,).

    Parameters
    ----------
    hashes : (layers,) str
        Hashes of the filters. Layers with an equal hash have the same filters; "" equals nothing.
    fingerprints : (layers,) str
        Fingerprints; "" is similar to nothing.
    sizes : (layers,) int64
        Numbers of filters. Layers of different sizes differ.
    """
    joined = Components(len(sizes))
    joined.share(text or None for text in map(str, hashes))
    first: dict[tuple[str, int], int] = {}
    for i, (text, size) in enumerate(zip(map(str, fingerprints), sizes.tolist(), strict=True)):
        if _TEXT.fullmatch(text):
            joined.join(first.setdefault((text, size), i), i)
    if first:
        content = np.frombuffer(bytes.fromhex("".join(text for text, _ in first)), np.uint8).reshape(len(first), -1)
        codes = content[:, 1:].copy().view(">u2").astype(np.int32)
        tolerance = np.array([_WIDE.get(bits, _NARROW) for bits in content[:, 0].tolist()], np.int32)
        positions = list(first.values())
        for i, j in enumerate(_similar(codes, tolerance, sizes[positions]).tolist()):
            joined.join(positions[j], positions[i])
    return joined.roots()


def models_by_filters(
    labels: Ints, fingerprints: Iterable[str], sizes: Ints, owner: Ints, models: int
) -> list[tuple[int, tuple[int, ...]] | None]:
    """Return, for each model, a key that is equal for models with the same filters; None without a fingerprint.

    `labels` (layers,) are those of `same_filters`; `owner` (layers,) is the number of each layer's model. Two models
    are the same if they have the same number of filters, and the same layers among those that can be told apart from
    others, in any order.
    """
    can_tell = np.zeros(labels.max(initial=-1) + 1, bool)
    can_tell[labels[np.array([str(text) != "" for text in fingerprints], bool)]] = True
    total = np.bincount(owner, sizes, models).astype(np.int64).tolist()
    found: list[list[int]] = [[] for _ in range(models)]
    for model, label in zip(owner.tolist(), labels.tolist(), strict=True):
        if can_tell[label]:
            found[model].append(label)
    return [(count, tuple(sorted(own))) if own else None for count, own in zip(total, found, strict=True)]


def _is_telling(filters: NDArray[np.float32]) -> bool:
    """Return whether a sample of the filters has FEWEST different directions."""
    if len(filters) < FEWEST:
        return False
    sample = filters[:: -(-len(filters) // _SAMPLE)].astype(np.float64)
    norms = (sample**2).sum(axis=1)
    sample, norms = sample[norms > 0], norms[norms > 0]
    squares = np.sort((sample @ _noise(0, filters.shape[1], seed=1)[:, 0]) ** 2 / norms)
    return bool((np.diff(squares) > 1e-5).sum() + 1 >= FEWEST) and bool(np.isfinite(squares).all())


def _squares(filters: NDArray[np.float32], out_channels: int) -> Floats:
    """Return (w·dⱼ)² / ‖w‖² of each output channel, (out_channels, 8); NaN for channels of zeros."""
    weights = filters.shape[1]
    channels = filters.reshape(out_channels, -1, weights)
    inputs = channels.shape[1]
    step = max(1, _ROWS // min(inputs, _INPUTS))
    products, norms = np.zeros((out_channels, _VECTORS)), np.zeros(out_channels)
    for first in range(0, inputs, _INPUTS):
        for start in range(0, out_channels, step):
            block = channels[start : start + step, first : first + _INPUTS].astype(np.float64)
            block = block.reshape(len(block), -1)
            products[start : start + step] += block @ _vectors(first % _DISTINCT, weights)[: block.shape[1]]
            norms[start : start + step] += np.einsum("ij,ij->i", block, block)
    norms[norms <= _SMALLEST**2] = np.nan
    squares: Floats = products**2 / norms[:, None]
    return squares


@lru_cache(maxsize=4)
def _vectors(first: int, weights: int) -> Floats:
    """Return the rows of d₁ … d₈ for the filters of a channel from number `first` on, (weights · 4096, 8)."""
    return _noise(first * weights, _INPUTS * weights, seed=1)


def _noise(first: int, rows: int, seed: int) -> Floats:
    """Return the rows of a fixed matrix of numbers that are uniform with unit variance, (rows, 8): SplitMix64."""
    number = np.arange(first * _VECTORS, (first + rows) * _VECTORS, dtype=np.uint64) + np.uint64(1)
    mixed = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed << 48)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    noise: Floats = (mixed.view(np.int64).astype(np.float64) * (3**0.5 / 2**63)).reshape(rows, _VECTORS)
    return noise


def _similar(codes: NDArray[np.int32], tolerance: NDArray[np.int32], sizes: Ints) -> Ints:
    """Return the first layer that each layer agrees with, also through others; all (layers,), but `codes` (layers, 32).

    Pairs that agree in many buckets are found among those that agree in one: neighbours in the order of its codes.
    """
    joined = Components(len(sizes))
    rank = np.unique(sizes, return_inverse=True)[1].reshape(-1) * 2 * (_LARGEST + 1)
    farthest = int(tolerance.max())
    narrow, widths = codes.astype(np.uint16), tolerance.astype(np.uint16)
    is_whole = (codes > 0).all(axis=1)
    for k, column in enumerate(codes.T):
        order = np.flatnonzero(column)
        order = order[np.argsort(rank[order] + column[order], kind="stable")]
        code, size = column[order], sizes[order]
        root, whole, beside = joined.roots()[order], is_whole[order], codes[order, k ^ 1]
        # What is too far from the layer `shift` places on is too far from all that follow.
        first = np.arange(len(order))
        for shift in range(1, _NEIGHBOURS + 1):
            first = first[: np.searchsorted(first, len(order) - shift)]
            second = first + shift
            first = first[(code[second] - code[first] <= farthest) & (size[second] == size[first])]
            if not len(first):
                break
            apart = first[root[first] != root[first + shift]]
            # Of 16 pairs of buckets, two layers with all buckets agree in both of at least four.
            both = np.abs(beside[apart + shift] - beside[apart]) <= farthest
            apart = apart[both | ~whole[apart] | ~whole[apart + shift]]
            left, right = order[apart], order[apart + shift]
            agree = _agree(narrow[left], narrow[right], np.maximum(widths[left], widths[right]))
            for pair in zip(left[agree].tolist(), right[agree].tolist(), strict=True):
                joined.join(*pair)
    return joined.roots()


def _agree(left: NDArray[np.uint16], right: NDArray[np.uint16], tolerance: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return which pairs of layers agree in five eighths of the buckets that either has, and in at least 8."""
    lower, upper = np.minimum(left, right), np.maximum(left, right)
    compared, agreeing = _number(upper > 0), _number((upper - lower <= tolerance[:, None]) & (lower > 0))
    result: NDArray[np.bool_] = (8 * agreeing >= 5 * compared) & (agreeing >= _FEWEST_BUCKETS)
    return result


def _number(of_buckets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of buckets that are marked in each row (rows, 32)."""
    words = np.packbits(of_buckets, axis=1).view(np.uint32)
    return np.bitwise_count(words[:, 0]).astype(np.int64)
