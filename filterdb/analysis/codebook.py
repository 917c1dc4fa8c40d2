"""Describe filters by the codes of a codebook: how many filters each stands for, and how well, compared with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.analysis.returning import returns_result
from filterdb.choices import CODES, MOST_CODES, MOST_PASSES, NORMALISATION_NAMES, Normalisation
from filterdb.engine.run import view_parts
from filterdb.errors import UsageError
from filterdb.numerics.codebook import MOST_WEIGHTS, SEEDING, THRESHOLDS, Codes, Figures, Floats, squares_about
from filterdb.numerics.histogram import sum_groups
from filterdb.reduce.codebook import CodebookFit, CodeHistograms
from filterdb.schema import AnyKernel
from filterdb.store.database import AnyDatabase, as_database
from filterdb.store.summary import Arrays

Z95 = 1.6448536269514722
"""95 % quantile of the standard normal distribution."""


@returns_result
def codebook(
    db: AnyDatabase,
    by: Key | None = None,
    *,
    k: int = CODES,
    normalise: Normalisation = "scale",
    seed: int = 0,
    passes: int = 1,
    kernel: AnyKernel | None = None,
) -> xr.Dataset:
    """Fit k codes to the filters of a view by k-means, and tell how well they describe each group, compared with noise.

    Parameters
    ----------
    db : Database, str or path
        The database or a view of it. The codes are fitted to the filters of the view.
    by : str or list of str, optional
        The labels by which layers are grouped. All groups have the same codes. Default: one group of all layers.
    k : int
        Number of codes, 1 to 4,096; the codes have at most 131,072 weights. Default: 256.
    normalise : {"scale", "ax+b"}
        "scale" divides a filter by its norm. "ax+b" subtracts its mean first, so that filters a·x + b with a > 0 count
        as the same. Default: "scale".
    seed : int
        Seed of the sample, of the first codes, and of the noise. Default: 0.
    passes : int
        Lloyd's steps on all filters after the fit to a sample of 1,024 filters for each code. Default: 1, since more
        change the explained variance by less than 0.001.
    kernel : (int, int) or str, optional
        Shape of the filters, such as "5x5". Default: that of `db`, which is 3×3 for a path or URL.

    Returns
    -------
    xarray.Dataset
        With dims group, code (the most frequent first), weight, threshold:

        - codes (code, weight), float64: means of normalised filters.
        - counts (group, code), int64: filters by nearest code; share (code), float64: of all filters.
        - count (group), int64: filters; flat (group), int64: filters without a direction, which have no code: all
          weights zero or, with "ax+b", all weights equal.
        - inertia (group), float64: sum of the squared distances of normalised filters from their codes; total (group),
          float64: sum of their squared distances from the mean of all filters of the view.
        - explained_variance (group), float64: 1 − inertia / total; NaN without filters that have a direction.
        - coverage (group, threshold), float64: share of the filters whose correlation with their code, x·c / ‖c‖, is at
          least the threshold.
        - noise_explained_variance, noise_explained_variance_q95 (group), and noise_coverage (group, threshold): the
          same figures for as many filters of isotropic Gaussian noise, to which codes were fitted in the same way, and
          the 95 % quantile for a group of this size.
        - Coordinate threshold, float64. The attributes explained_variance and noise_explained_variance are those of
          all filters of the view.

    Raises
    ------
    UsageError
        For arguments that are out of range, or fewer filters that differ than codes.
    InputError
        If the view has no layers.

    Notes
    -----
    The nearest code is that of brute force in double precision, the lowest of several at the same distance. The first
    call reads the filters `passes` + 2 times and stores the codes and a histogram of codes by layer; later calls, for
    any grouping, read no filter. See docs/explanation/codebook.md.

    Examples
    --------
    >>> result = fdb.codebook(db, "task", k=8)
    >>> result["counts"].sum("code").values
    array([11264, 11264])
    """
    db = as_database(db, kernel=kernel)
    _check(k, normalise, seed, passes)
    question = Question.of(db, by)
    weights = question.db.weights
    if k * weights > MOST_WEIGHTS // SEEDING:
        most = MOST_WEIGHTS // SEEDING // weights
        raise UsageError(f"k: expected at most {most:,} codes of {weights} weights, got {k:,}; ask for fewer codes")
    fit = CodebookFit(question.db, Codes(k, normalise, seed, passes))
    fixed = fit.fixed()
    sums = _group_sums(question, CodeHistograms(fixed))
    with_direction = sums["counts"].sum(axis=1)
    filters = int(with_direction.sum())
    noise = fit.noise(filters)
    total = squares_about(with_direction, sums["sums"], sums["sums"].sum(axis=0) / filters)
    order = np.argsort(-sums["counts"].sum(axis=0), kind="stable")
    counts = sums["counts"][:, order]
    return xr.Dataset(
        {
            "count": ("group", question.filters, {"long_name": "filters"}),
            "flat": ("group", sums["flat"], {"long_name": "filters without a direction"}),
            "codes": (("code", "weight"), fixed.array[order], {"long_name": "normalised filters"}),
            "counts": (("group", "code"), counts, {"long_name": "filters by nearest code"}),
            "share": ("code", counts.sum(axis=0) / int(question.filters.sum()), {"units": "1"}),
            "inertia": ("group", sums["inertia"]),
            "total": ("group", total),
            **_figures(sums, total, with_direction, noise),
        },
        coords={**question.coords(), "threshold": list(THRESHOLDS)},
        attrs=question.provenance(
            scaled=None,
            k=k,
            normalise=normalise,
            seed=seed,
            passes=fit.passes,
            sample=fit.sample,
            noise_filters=noise.filters,
            explained_variance=float(1 - sums["inertia"].sum() / total.sum()) if total.sum() > 0 else np.nan,
            noise_explained_variance=noise.explained_variance,
            formula="k-means on unit filters; 1 - inertia / sum |x - mean|^2",
        ),
    )


def _figures(sums: Arrays, total: Floats, filters: npt.NDArray[np.int64], noise: Figures) -> dict[str, Any]:
    """Return the explained variance and coverage of groups with so many `filters`, and those of noise."""
    groups = np.ones(len(filters))
    deviation = noise.deviation / np.sqrt(np.maximum(filters, 1))
    explained = {"long_name": "share of the squared distances from the mean that the codes explain", "units": "1"}
    covered = {"long_name": "share of filters whose correlation with their code reaches the threshold", "units": "1"}
    return {
        "explained_variance": ("group", 1 - _ratio(sums["inertia"], total), explained),
        "noise_explained_variance": ("group", noise.explained_variance * groups, explained),
        "noise_explained_variance_q95": ("group", noise.explained_variance + Z95 * deviation, explained),
        "coverage": (("group", "threshold"), _ratio(sums["within"], filters[:, None]), covered),
        "noise_coverage": (("group", "threshold"), groups[:, None] * noise.coverage, covered),
    }


def _check(k: int, normalise: str, seed: int, passes: int) -> None:
    """Raise UsageError for arguments that are out of range."""
    if normalise not in NORMALISATION_NAMES:
        raise UsageError(f"normalise: expected {' or '.join(NORMALISATION_NAMES)}, got {normalise!r}")
    limits: list[tuple[str, Any, int, int]] = [
        ("k", k, 1, MOST_CODES),
        ("seed", seed, 0, 2**63 - 1),
        ("passes", passes, 0, MOST_PASSES),
    ]
    for name, value, low, high in limits:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{name}: expected a whole number from {low} to {high:,}, got {value!r}")


def _group_sums(question: Question, reduction: CodeHistograms) -> Arrays:
    """Return the sums of the view's layers by group, from those of some layers at a time."""
    index, total = question.grouping.index, reduction.empty(question.groups)
    for _, part, arrays in view_parts(question.db, reduction):
        for name, array in arrays.items():
            total[name] += sum_groups(array, index[part], question.groups)
    return total


def _ratio(part: npt.NDArray[Any], total: npt.NDArray[Any]) -> Floats:
    """Return part / total, NaN where the total is 0."""
    whole = np.broadcast_to(total, part.shape)
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
