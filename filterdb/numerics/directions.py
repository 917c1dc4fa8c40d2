"""Name the direction that the filters of a collapsed layer share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from filterdb.numerics.moments import Moments
from filterdb.numerics.spectrum import DCT_TERMS, second_moments
from filterdb.schema import KERNEL, WEIGHTS

ENOUGH = 0.9
"""Share of the first component's energy above which a layer is called a 1×1 convolution or a box blur."""

AS_1X1 = "acts as a 1×1 convolution"
BOX_BLUR = "a box blur"

_MEANINGS = (
    "the mean", "left against right", "middle column against outer ones",
    "top against bottom", "opposite corners", "top against bottom, alternating",
    "middle row against outer ones", "left against right, alternating", "centre and corners against edges",
)  # fmt: skip
"""What each DCT term compares, row-major by (vertical, horizontal) frequency."""


DIRECTIONS = (
    "",
    AS_1X1,
    BOX_BLUR,
    *(f"DCT term ({i // KERNEL[1]},{i % KERNEL[1]}), {pattern}" for i, pattern in enumerate(_MEANINGS)),
)
"""The text of each code of `directions`; 0 is a layer without energy."""

_CENTRE = KERNEL[0] * KERNEL[1] // 2

_PATTERNS = np.stack([np.zeros(WEIGHTS), np.eye(WEIGHTS)[_CENTRE], DCT_TERMS[0], *DCT_TERMS])
"""The filter of norm 1 of each code of DIRECTIONS."""


class Directions(NamedTuple):
    """Hold the direction of each state (…,): its code in DIRECTIONS, and the share of the filters' energy in it."""

    code: NDArray[np.int64]
    share: NDArray[np.float64]


def directions(states: Moments) -> Directions:
    """Return the direction that the filters of each state share, and the share of their energy Σf² in its pattern.

    The direction is the first component of Σ + μμᵀ: the pattern whose multiples are closest to the filters. The mean
    counts, because filters that only vary in the centre weight do not act as 1×1 if they have something else in common.
    """
    second = second_moments(states)
    values, vectors = np.linalg.eigh(second)
    first = vectors[..., -1]
    in_terms = (first @ DCT_TERMS.T) ** 2
    code = 3 + in_terms.argmax(axis=-1)
    code = np.where(in_terms[..., 0] >= ENOUGH, DIRECTIONS.index(BOX_BLUR), code)
    code = np.where(first[..., _CENTRE] ** 2 >= ENOUGH, DIRECTIONS.index(AS_1X1), code)
    code = np.where(values[..., -1] > 0, code, 0).astype(np.int64)
    total = np.trace(second, axis1=-2, axis2=-1)
    energy = np.einsum("...i,...ij,...j->...", _PATTERNS[code], second, _PATTERNS[code])
    return Directions(code, np.divide(energy, total, out=np.full(total.shape, np.nan), where=total > 0))


def direction_names(codes: NDArray[np.int64], collapsed: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Return the text of codes (layers,) where a layer is collapsed, else an empty text; also for unknown codes."""
    known = collapsed & (codes > 0) & (codes < len(DIRECTIONS))
    return np.array(DIRECTIONS, object)[np.where(known, codes, 0)]
