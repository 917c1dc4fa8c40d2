"""Analyses of every other kernel shape of the demo's trained models against plain NumPy and SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import entropy

import filterdb as fdb
from filterdb import schema
from tests.numerics import oracles

pytestmark = pytest.mark.slow

SHAPES = ["1x3", "1x128", "1x256", "2x2", "3x39", "5x5", "7x3", "7x7"]


def test_all_shapes_are_here(real_db: fdb.Database) -> None:
    assert {schema.kernel_name(kernel) for kernel in real_db.kernels} == {"3x3", *SHAPES}


@pytest.mark.parametrize("shape", SHAPES)
def test_of_trained_models(shape: str, real_db: fdb.Database) -> None:
    bank = real_db.bank(shape)
    filters = bank.dataset["filters"].values
    components, singular, ratio = oracles.svd_pca(oracles.scaled(filters))
    result = fdb.pca(bank)
    known = len(singular)  # fewer than weights if there are fewer filters
    np.testing.assert_allclose(result["singular_values"][0][:known], singular, rtol=1e-8, atol=1e-7 * singular[0])
    np.testing.assert_allclose(result["explained_variance_ratio"][0][:known], ratio, rtol=1e-8, atol=1e-12)
    # Where filters mirror each other, as in the audio models, the sign of a component is a matter of rounding.
    clear = np.flatnonzero(np.abs(np.diff(ratio, append=0)) > 1e-4)[:4]
    cosines = (result["components"][0].values[clear] * components[clear]).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, rtol=0, atol=1e-8)
    degeneration = fdb.degeneration(bank)
    bounds = np.concatenate([[0], np.cumsum(bank.layers["row_size"].values)])
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
        values = filters[start:stop].astype(np.float64)
        variances = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
        expected = entropy(variances, base=10) if variances.sum() > 0 else 0.0
        assert float(degeneration["variance_entropy"][i]) == pytest.approx(expected, abs=1e-6)
        peaks = np.abs(values).max(axis=1)
        assert float(degeneration["sparsity"][i]) == pytest.approx((peaks < peaks.max() / 100).mean())
