"""Compute the frequencies of filters from stored moments: energy by DCT term, and the share that strides alias."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.numerics.spectrum import dct_energies, kept_energies
from filterdb.schema import KERNEL, AnyKernel, Kernel
from filterdb.store.database import AnyDatabase, as_database

LARGEST_STRIDE = 2**16
"""Largest stride or dilation that is taken at its word; files may be hostile."""

LOW = 0.25
"""Largest low frequency in cycles per weight: half of the Nyquist frequency, which a stride of 2 keeps."""


def frequencies(kernel: Kernel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the vertical and the horizontal frequency of each DCT term in cycles per weight, (a·b,) each."""
    vertical, horizontal = np.divmod(np.arange(kernel[0] * kernel[1]), kernel[1])
    return vertical / (2 * kernel[0]), horizontal / (2 * kernel[1])


def shares_of(kernel: Kernel) -> dict[str, tuple[npt.NDArray[np.bool_], str]]:
    """Return the terms of each share, and its description."""
    vertical, horizontal = frequencies(kernel)
    is_low = (vertical <= LOW) & (horizontal <= LOW)
    low, high = ("up to 1/6", "of 1/3") if kernel == KERNEL else ("up to 1/4", "above 1/4")
    return {
        "low": (is_low, f"share of the terms with both frequencies {low}"),
        "high": (~is_low, f"share of the terms with a frequency {high}"),
        "constant": ((vertical == 0) & (horizontal == 0), "share of term 0,0"),
        "horizontal": ((vertical == 0) & (horizontal > 0), "share of the terms that change from left to right only"),
        "vertical": ((vertical > 0) & (horizontal == 0), "share of the terms that change from top to bottom only"),
        "diagonal": ((vertical > 0) & (horizontal > 0), "share of the terms that change both ways"),
    }


class _Sampling(NamedTuple):
    """Hold the strides and dilations of a layer, vertical first."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def is_strided(self) -> bool:
        return max(self.strides) > 1


@returns_result
def spectrum(
    db: AnyDatabase, by: Key | None = None, *, scaled: bool = False, kernel: AnyKernel | None = None
) -> xr.Dataset:
    """Compute the energy of the filters of each group by DCT term, and the share that strided layers alias.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it.
    by : str or list of str, optional
        The labels by which layers are grouped; "layer" for every layer, "depth_decile" for the depth. Default: one
        group of all layers.
    scaled : bool
        True: each filter divided by its largest |w|, so that layers with large weights do not outweigh others.
        Default: False, raw filters, without layers whose scale is unknown.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, term ("u,v": vertical and horizontal frequency index):

        - energy (group, term), float64: mean over the filters of the squared coefficient of the DCT term.
        - share (group, term), float64: the energy divided by that of all terms; NaN without energy.
        - low and high (group), float64: the share of terms with both frequencies up to 1/4 cycle per weight, and of
          the others. 3×3 filters have the frequencies 0, 1/6 and 1/3.
        - constant, horizontal, vertical, diagonal (group), float64: the share of term 0,0, and of terms that change
          from left to right only, from top to bottom only, and both ways.
        - aliasing (group), float64: in the group's strided layers, the share of the energy at frequencies above the
          Nyquist frequency after striding; NaN without such layers.
        - strided (group), int64: the number of strided layers that are in `aliasing`.
        - count (group), int64: the number of filters.
        - Coordinates along term: vertical_frequency and horizontal_frequency, in cycles per weight.

    Raises
    ------
    UsageError
        For an unknown label.
    InputError
        If the view has no layers.

    Notes
    -----
    The energy of term d is dᵀ(Σ + μμᵀ)d with Σ = m2 / n, from stored moments; no filter is read. `aliasing` is exact:
    the energy of a filter's Fourier transform outside |ω| ≤ π/stride, along either axis, dilation included. For inputs
    with equal energy at all frequencies this share of the layer's output is folded onto lower frequencies. Layers whose
    stride the database does not know (published data sets) are left out of it. Source: arXiv 2204.00491.

    Examples
    --------
    >>> result = fdb.spectrum(db, "task")
    >>> result["low"].values.round(2), result["diagonal"].values.round(2)
    (array([0.76, 0.49]), array([0.17, 0.21]))
    """
    db = as_database(db, kernel=kernel)
    question = Question.of(db, by, scaled=scaled)
    shape = question.db.kernel
    vertical, horizontal = frequencies(shape)
    energy = dct_energies(question.moments, shape)
    total = energy.sum(axis=1)
    share = _ratio(energy, total[:, None])
    aliasing, strided = _aliasing(question)
    shares = {
        name: ("group", share[:, terms].sum(axis=1), {"long_name": doc, "units": "1"})
        for name, (terms, doc) in shares_of(shape).items()
    }
    return xr.Dataset(
        {
            "count": ("group", question.filters, {"long_name": "filters"}),
            "energy": (("group", "term"), energy, {"long_name": "mean squared DCT coefficient"}),
            "share": (("group", "term"), share, {"long_name": "share of the energy", "units": "1"}),
            **shares,
            "aliasing": (
                "group",
                aliasing,
                {"long_name": "share of the strided layers' energy above the Nyquist frequency", "units": "1"},
            ),
            "strided": ("group", strided, {"long_name": "strided layers"}),
        },
        coords={
            **question.coords(),
            "term": [f"{u},{v}" for u in range(shape[0]) for v in range(shape[1])],
            "vertical_frequency": ("term", vertical, {"units": "cycles per weight"}),
            "horizontal_frequency": ("term", horizontal, {"units": "cycles per weight"}),
        },
        attrs=question.provenance(formula="d'(S + mm')d of the DCT-II terms d; method 7"),
    )


def _aliasing(question: Question) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return `aliasing` and `strided` of each group."""
    layers, index = question.db.layers, question.grouping.index
    columns = (layers[name].values.astype(str).tolist() for name in ("strides", "dilations"))
    kinds: dict[_Sampling, list[int]] = {}
    for i, (strides, dilations) in enumerate(zip(*columns, strict=True)):
        sampling = _sampling(strides, dilations)
        if sampling is not None and sampling.is_strided:
            kinds.setdefault(sampling, []).append(i)
    energy, kept = np.zeros(len(index)), np.zeros(len(index))
    if not kinds:
        return np.full(question.groups, np.nan), np.zeros(question.groups, np.int64)
    moments = question.layer_moments
    for sampling, chosen in kinds.items():
        part = moments.pick(chosen)
        energy[chosen] = part.count * dct_energies(part, question.db.kernel).sum(axis=1)
        kept[chosen] = part.count * kept_energies(part, *sampling, question.db.kernel)
    chosen = sorted(i for part in kinds.values() for i in part)
    strided = np.bincount(index[chosen], minlength=question.groups).astype(np.int64)
    total = np.bincount(index, energy, question.groups)
    share = 1 - _ratio(np.bincount(index, kept, question.groups), total)
    return np.clip(share, 0.0, 1.0), strided


@lru_cache(maxsize=1_024)
def _sampling(strides: str, dilations: str) -> _Sampling | None:
    """Return the strides and dilations in two columns of the layer table; None if they are unknown or invalid."""
    pairs = [_pair(text) for text in (strides, dilations)]
    return None if pairs[0] is None or pairs[1] is None else _Sampling(pairs[0], pairs[1])


def _pair(text: str) -> tuple[int, ...] | None:
    """Return two numbers from JSON; None if it is anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_pair = isinstance(values, Sequence) and len(values) == 2
    if not is_pair or not all(type(value) is int and 1 <= value <= LARGEST_STRIDE for value in values):
        return None
    return tuple(values)


def _ratio(part: npt.NDArray[np.float64], total: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return part / total, NaN where the total is 0."""
    whole = np.broadcast_to(total, part.shape)
    ratio: npt.NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
