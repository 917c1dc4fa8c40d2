"""Name the direction that the filters of a collapsed layer share."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments
from filterdb.numerics.spectrum import dct_terms, second_moments
from filterdb.schema import KERNEL, Kernel

ENOUGH = 0.9
"""Share of the first component's energy above which a layer is called a 1×1 convolution or a box blur."""

AS_1X1 = "acts as a 1×1 convolution"
BOX_BLUR = "a box blur"

_MEANINGS = (
    "the mean", "left against right", "middle column against outer ones",
    "top against bottom", "opposite corners", "top against bottom, alternating",
    "middle row against outer ones", "left against right, alternating", "centre and corners against edges",
)  # fmt: skip
"""What each DCT term of 3×3 filters compares, row-major by (vertical, horizontal) frequency."""


@cache
def direction_texts(kernel: Kernel = KERNEL) -> tuple[str, ...]:
    """Return the text of each code of `directions`; 0 is a layer without energy."""
    terms = [f"DCT term ({u},{v})" for u in range(kernel[0]) for v in range(kernel[1])]
    if kernel == KERNEL:
        terms = [f"{term}, {meaning}" for term, meaning in zip(terms, _MEANINGS, strict=True)]
    return ("", AS_1X1, BOX_BLUR, *terms)


DIRECTIONS = direction_texts()
"""The texts for 3×3 filters."""


def _centre(kernel: Kernel) -> int:
    """Return the number of the weight in the centre, of the one after it where there is none."""
    return kernel[0] // 2 * kernel[1] + kernel[1] // 2


@cache
def _patterns(kernel: Kernel) -> NDArray[np.float64]:
    """Return the filter of norm 1 of each code of `direction_texts`, (codes, weights)."""
    terms = dct_terms(kernel)
    return np.stack([np.zeros(len(terms)), np.eye(len(terms))[_centre(kernel)], terms[0], *terms])


class Directions(NamedTuple):
    """Hold the direction of each state (…,): its code in `direction_texts`, and the share of filters' energy in it."""

    code: NDArray[np.int64]
    share: NDArray[np.float64]


def directions(states: Moments, kernel: Kernel = KERNEL) -> Directions:
    """Return the direction that the filters of each state share, and the share of their energy Σf² in its pattern.

    The direction is the first component of Σ + μμᵀ: the pattern whose multiples are closest to the filters. The mean
    counts, because filters that only vary in the centre weight do not act as 1×1 if they have something else in common.
    """
    second = second_moments(states)
    values, vectors = np.linalg.eigh(second)
    first = vectors[..., -1]
    in_terms = (first @ dct_terms(kernel).T) ** 2
    code = 3 + in_terms.argmax(axis=-1)
    code = np.where(in_terms[..., 0] >= ENOUGH, DIRECTIONS.index(BOX_BLUR), code)
    code = np.where(first[..., _centre(kernel)] ** 2 >= ENOUGH, DIRECTIONS.index(AS_1X1), code)
    code = np.where(values[..., -1] > 0, code, 0).astype(np.int64)
    pattern = _patterns(kernel)[code]
    total = np.trace(second, axis1=-2, axis2=-1)
    energy = np.einsum("...i,...ij,...j->...", pattern, second, pattern)
    return Directions(code, np.divide(energy, total, out=np.full(total.shape, np.nan), where=total > 0))


def direction_names(
    codes: NDArray[np.int64], collapsed: NDArray[np.bool_], kernel: Kernel = KERNEL
) -> NDArray[np.object_]:
    """Return the text of codes (layers,) where a layer is collapsed, else an empty text; also for unknown codes."""
    texts = np.array(direction_texts(kernel), object)
    known = collapsed & (codes > 0) & (codes < len(texts))
    return texts[np.where(known, codes, 0)]
