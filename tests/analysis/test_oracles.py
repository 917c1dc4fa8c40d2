"""Analyses of the real models against independent computations on the very same filters, many chunks and one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import entropy

import filterdb as fdb
from filterdb.numerics.depth import DECILES
from filterdb.numerics.modes import ModeName
from tests.numerics import oracles

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["many chunks", "one chunk"])
def db(request: pytest.FixtureRequest) -> fdb.Database:
    name = "real_db" if request.param == "many chunks" else "real_db_one_chunk"
    database: fdb.Database = request.getfixturevalue(name)
    return database


@pytest.fixture(scope="module")
def filters(real_db: fdb.Database) -> np.ndarray:
    """All filters of the real models in store order, read through xarray."""
    return np.asarray(real_db.dataset.filters.values)


def rows_of(db: fdb.Database, column: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers by label of a per-layer column."""
    owner = np.repeat(column.astype(str), db.layers["row_size"].values)
    return {label: np.flatnonzero(owner == label) for label in np.unique(column.astype(str))}


def check_pca(found: xr.Dataset, i: int, values: np.ndarray) -> None:
    components, singular, ratio = oracles.svd_pca(values)
    one = found.isel(group=i)
    size = np.abs(values).max()
    np.testing.assert_allclose(one["mean"], values.mean(axis=0, dtype=np.float64), rtol=1e-9, atol=1e-12 * size)
    covariance = np.cov(values.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(one["covariance"], covariance, rtol=1e-9, atol=1e-12 * size**2)
    np.testing.assert_allclose(one["singular_values"], singular, rtol=1e-9)
    np.testing.assert_allclose(one["explained_variance_ratio"], ratio, rtol=1e-9)
    np.testing.assert_allclose(one["components"], components, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
def test_pca_equals_the_svd(db: fdb.Database, filters: np.ndarray, scaled: bool) -> None:
    values = oracles.scaled(filters) if scaled else filters.astype(np.float64)
    found = fdb.pca(db, scaled=scaled)
    check_pca(found, 0, values)
    by_model = fdb.pca(db, by="model", scaled=scaled)
    rows = rows_of(db, db.layers["model"].values)
    assert list(by_model["group"].values) == list(rows)
    for i, index in enumerate(rows.values()):
        check_pca(by_model, i, values[index])


def decile_column(db: fdb.Database) -> np.ndarray:
    labels = pd.cut(
        db.layers["conv_depth_norm"].values, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True, labels=DECILES
    )
    return np.asarray(labels, dtype=object)


@pytest.mark.parametrize("by", ["task", "model", "depth_decile", "task,depth_decile"])
def test_paper_drift_equals_the_double_loop(db: fdb.Database, filters: np.ndarray, by: str) -> None:
    task, decile = db.layers["task"].values, decile_column(db)
    column = {
        "task": task,
        "model": db.layers["model"].values,
        "depth_decile": decile,
        "task,depth_decile": np.array([f"{t} × {d}" for t, d in zip(task, decile, strict=True)], dtype=object),
    }[by]
    groups = rows_of(db, column)
    expected, counts = oracles.paper_drift(oracles.scaled(filters), groups)
    found = fdb.drift(db, by=by, mode="paper")
    assert set(found["group"].values) == set(groups)
    # Bin for bin; a coefficient within rounding of an edge may fall on either side of it.
    for label, mine in zip(found["group"].values, found["counts"].values, strict=True):
        assert np.abs(mine - counts[label]).sum() <= 2
    order = [list(groups).index(label) for label in found["group"].values]
    np.testing.assert_allclose(found["drift"], expected[np.ix_(order, order)], rtol=1e-9, atol=1e-9)
    if by == "depth_decile":
        assert list(found["group"].values) == [label for label in DECILES if label in groups]
    else:
        assert (np.diff(found["drift"].mean("other")) >= 0).all()
    assert found.attrs["sign_rule"] == "coefficient"


def test_sound_drift_equals_its_definition(db: fdb.Database, filters: np.ndarray) -> None:
    values = oracles.scaled(filters)
    mean = values.mean(axis=0)
    components, _, ratio = oracles.svd_pca(values)
    bound = 3 + np.linalg.norm(mean)
    coefficients = (values - mean) @ components.T
    edges = np.linspace(-bound, bound, 71)
    groups = rows_of(db, db.layers["model"].values)
    counts = {
        label: np.array([np.histogram(coefficients[index, k], bins=edges)[0] for k in range(9)])
        for label, index in groups.items()
    }
    whole = sum(counts.values())
    prior = (whole + 0.5) / (len(values) + 35)
    p = {label: (c + 35 * prior) / (len(groups[label]) + 35) for label, c in counts.items()}
    found = fdb.drift(db, by="model")
    for i, a in enumerate(found["group"].values):
        for j, b in enumerate(found["other"].values):
            both = [entropy(p[a][k], p[b][k]) + entropy(p[b][k], p[a][k]) for k in range(9)]
            np.testing.assert_allclose(found["drift"][i, j], ratio @ both, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(found["per_component"][:, i, j], both, rtol=1e-6, atol=1e-9)
    assert found.attrs["range"] == pytest.approx([-bound, bound], rel=2e-12)
    assert not found["outside"].values.any()
    few = {label for label, index in groups.items() if len(index) < 1_000}
    assert set(found["group"].values[found["few"].values]) == few


def test_raw_drift_takes_the_range_of_the_coefficients(db: fdb.Database, filters: np.ndarray) -> None:
    values = filters.astype(np.float64)
    components, _, ratio = oracles.svd_pca(values)
    coefficients = (values - values.mean(axis=0)) @ components.T
    found = fdb.drift(db, by="task", scaled=False)
    np.testing.assert_allclose(found.attrs["range"], [coefficients.min(), coefficients.max()], rtol=1e-9)
    np.testing.assert_allclose(found["weights"], ratio, rtol=1e-9)


@pytest.mark.parametrize("mode", ["sound", "paper"])
def test_degeneration_equals_a_svd_of_each_layer(db: fdb.Database, filters: np.ndarray, mode: ModeName) -> None:
    found = fdb.degeneration(db, mode=mode)
    stop = np.cumsum(db.layers["row_size"].values)
    for i, (end, size) in enumerate(zip(stop, db.layers["row_size"].values, strict=True)):
        layer = filters[end - size : end].astype(np.float64)
        peak = np.abs(layer).max()
        sparsity = (np.abs(layer).max(axis=1) < peak / 100).mean()
        _, _, ratio = oracles.svd_pca(layer)
        assert found["sparsity"][i] == pytest.approx(sparsity, abs=1e-12)
        assert found["variance_entropy"][i] == pytest.approx(entropy(ratio, base=10), abs=1e-9)
        threshold = 1.2618047 / (1 + np.exp(-0.88767525 * (np.log2(size) - 2.30436435))) - 0.31050834
        assert found["threshold"][i] == pytest.approx(threshold, rel=1e-12)
        p = oracles.sphericity(layer)
        assert found["p_value"][i] == pytest.approx(p, rel=1e-6, nan_ok=True)
        if mode == "paper":
            assert bool(found["random"][i]) == (entropy(ratio, base=10) >= threshold and size >= 3)
        else:
            assert bool(found["random"][i]) == (p >= 0.001 and size >= 64)
        kept = layer[np.abs(layer).max(axis=1) >= peak / 100]
        _, _, clean = oracles.svd_pca(kept)
        assert found["clean_variance_entropy"][i] == pytest.approx(entropy(clean, base=10), abs=1e-9)
        assert found["span"][i] == pytest.approx(np.ptp(layer, axis=1).mean(), rel=1e-9)


@pytest.mark.parametrize(
    ("model", "sparsity", "variance_entropy"),
    [
        ("mtcnn-onet", 0.019, 0.631),
        ("mtcnn-rnet", 0, 0.799),
        ("mtcnn-pnet", 0, 0.894),
        ("ppocr-v4-det", 0, 0.837),
        ("thin-resnet50", 0, 0.769),
    ],
)
def test_known_medians(db: fdb.Database, model: str, sparsity: float, variance_entropy: float) -> None:
    """Measured elsewhere: medians over dense layers of at least 64 filters."""
    found = fdb.degeneration(db)
    chosen = (found["layer_model"] == model) & (found["filters"] >= 64) & ~db.layers["depthwise"].values
    assert float(found["sparsity"][chosen].median()) == pytest.approx(sparsity, abs=6e-4)
    assert float(found["variance_entropy"][chosen].median()) == pytest.approx(variance_entropy, abs=6e-4)


def test_deciles_equal_pandas(db: fdb.Database) -> None:
    found = fdb.pca(db, by="depth_decile")
    expected = pd.Series(db.layers["row_size"].values).groupby(decile_column(db)).sum()
    assert dict(zip(found["group"].values, found["count"].values, strict=True)) == expected.to_dict()
