"""The analyses of both papers beyond drift and PCA, against pandas and SciPy on the filters themselves."""

from __future__ import annotations

import itertools
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import filterdb as fdb
from filterdb.errors import InputError, UsageError
from filterdb.numerics import kde
from filterdb.numerics.box import STATISTICS, box, summary
from filterdb.numerics.modes import PAPER_OF_COMPARED
from tests.filters import network
from tests.models import chain, conv, model, save, tensor


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """Five models of two tasks at five epochs, in many chunks; one has a collapsed, a sparse and a dead layer."""
    folder = tmp_path_factory.mktemp("papers")
    rng = np.random.default_rng(5)
    rows = []
    for number, epoch in enumerate((9, 100, 10, 30)):
        network(folder / f"{number}.onnx", seed=number, family=number % 2)
        rows.append({"path": f"{number}.onnx", "name": f"m{number}", "task": "ab"[number % 2], "epoch": epoch})
    box_blur = np.ones((12, 10, 3, 3)) * rng.uniform(0.5, 1, (12, 10, 1, 1))
    sparse = rng.standard_normal((12, 12, 3, 3))
    sparse.reshape(-1, 9)[20:] *= 1e-4
    chain(folder / "4.onnx", *(layer.astype(np.float32) for layer in (box_blur, sparse, np.zeros((5, 12, 3, 3)))))
    rows.append({"path": "4.onnx", "name": "m4", "task": "b", "epoch": 2})
    pd.DataFrame(rows).to_csv(folder / "catalog.csv", index=False)
    with dask.config.set(scheduler="threads"):
        return fdb.ingest(folder / "db", catalog=folder / "catalog.csv", chunk_rows=1_000).database


def filters_by_layer(db: fdb.Database) -> list[np.ndarray]:
    """The filters of each layer, float64."""
    values = db.dataset["filters"].values.astype(np.float64)
    return np.split(values, np.cumsum(db.layers["row_size"].values)[:-1])


def scaled_filters(db: fdb.Database) -> np.ndarray:
    """Every filter divided by its largest weight."""
    values = db.dataset["filters"].values.astype(np.float64)
    peak = np.abs(values).max(axis=1, keepdims=True)
    return np.divide(values, peak, out=np.zeros_like(values), where=peak > 0)


def entropy(filters: np.ndarray) -> float:
    """H of P1 eq. 7, from the singular values."""
    values = np.linalg.svd(filters - filters.mean(axis=0), compute_uv=False) ** 2
    shares = values[values > 0] / values.sum() if values.sum() else np.array([1.0])
    return float(-(shares * np.log10(shares)).sum())


def sparsity(filters: np.ndarray) -> float:
    """S of P1: filters whose weights are all below a hundredth of the layer's peak."""
    peak = np.abs(filters).max()
    return float((np.abs(filters) < peak / 100).all(axis=1).mean()) if peak else 1.0


@pytest.mark.parametrize("by", ["task", "depth_decile", "task,depth_decile", None])
def test_degeneration_by_group_is_pandas(db: fdb.Database, by: str | None) -> None:
    layers = filters_by_layer(db)
    table = pd.DataFrame({"H": map(entropy, layers), "S": map(sparsity, layers)})
    depth = pd.cut(db.layers["conv_depth_norm"].values, np.arange(0, 1.1, 0.1).tolist(), include_lowest=True)
    keys = {"task": db.layers["task"].values, "depth_decile": depth.codes}
    table["group"] = "all" if by is None else list(zip(*(keys[key] for key in by.split(",")), strict=True))
    groups = table.groupby("group")
    result = fdb.degeneration(db, by=by)
    assert result.sizes["group"] == groups.ngroups
    np.testing.assert_array_equal(result["layer_count"], groups.size())
    np.testing.assert_allclose(result["mean_entropy"], groups["H"].mean(), rtol=1e-6)
    np.testing.assert_allclose(result["mean_sparsity"], groups["S"].mean(), rtol=1e-12)
    np.testing.assert_allclose(result["share_dense"], groups["S"].apply(lambda s: (s < 0.01).mean()))
    np.testing.assert_allclose(result["share_sparse"], groups["S"].apply(lambda s: (s > 0.5).mean()))
    for statistic, share in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        boxes = result.sel(statistic=statistic)
        np.testing.assert_allclose(boxes["entropy_box"], groups["H"].quantile(share), rtol=1e-6)
        np.testing.assert_allclose(boxes["sparsity_box"], groups["S"].quantile(share))
    verdicts = pd.DataFrame(result["verdict"].values, columns=result["rule"].values).groupby(table["group"]).mean()
    np.testing.assert_allclose(result["verdict_share"], verdicts[result["rule"].values])
    flagged = pd.Series(result["verdict"].values.any(axis=1)).groupby(table["group"]).mean()
    np.testing.assert_allclose(result["share_degenerated"], flagged)
    assert result["verdict_share"].values.any()
    labels = result["group"].values[pd.factorize(table["group"], sort=True)[0]]
    assert result["layer_group"].values.tolist() == labels.tolist()


def test_degeneration_without_layers(tmp_path: Path) -> None:
    nodes = [conv("x", "w", "y", "pointwise")]
    save(tmp_path / "m.onnx", model(nodes, [tensor("w", np.ones((3, 3, 1, 1), np.float32))]))
    empty = fdb.ingest(tmp_path / "db", tmp_path / "m.onnx").database
    result = fdb.degeneration(empty)
    assert result.sizes["layer"] == result.sizes["group"] == 0


def test_a_box_is_matplotlibs() -> None:
    from matplotlib.cbook import boxplot_stats

    values = np.concatenate([np.random.default_rng(1).standard_normal(200), [9.0, -7.0, np.nan]])
    (expected,) = boxplot_stats(values[np.isfinite(values)])
    row = box("x", values)
    assert row is not None and row.number == 202
    names = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi", "mean": "mean"}
    np.testing.assert_allclose(summary([values])[0], [expected[names[name]] for name in STATISTICS])
    np.testing.assert_allclose(row.outliers, np.sort(expected["fliers"]))
    assert np.isnan(summary([np.array([np.nan]), values])[0]).all()


@pytest.mark.parametrize("mode", ["sound", "paper"])
@pytest.mark.parametrize("by", [None, "epoch"])
def test_distributions_are_numpys(db: fdb.Database, by: str | None, mode: str) -> None:
    result = fdb.distributions(db, by, mode=mode)  # type: ignore[arg-type]
    drift = fdb.drift(db, "epoch", mode=mode, noise=False)  # type: ignore[arg-type]
    coefficients = fdb.coefficients(db, mode=mode)  # type: ignore[arg-type]
    values = coefficients.values
    epochs = np.repeat(db.layers["epoch"].values.astype(str), db.layers["row_size"].values)
    expected_groups = ["all"] if by is None else ["2", "9", "10", "30", "100"]  # by number, not by letter
    assert result["group"].values.tolist() == expected_groups
    if by is not None:
        xr_counts = drift["counts"].sel(group=expected_groups)
        np.testing.assert_array_equal(result["counts"], xr_counts)
        np.testing.assert_array_equal(result["probabilities"], drift["probabilities"].sel(group=expected_groups))
    for i, label in enumerate(expected_groups):
        own = values if by is None else values[epochs == label]
        np.testing.assert_allclose(result["mean"][i], own.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(result["std"][i], own.std(axis=0, ddof=1), rtol=1e-7)
        assert result["models"][i] == (5 if by is None else 1)
        for component in range(9):
            counts = np.histogram(own[:, component], result["bin_edges"].values)[0]
            on_edge = int(drift["on_edge"].values[:, component].sum())  # these may differ by rounding
            assert np.abs(result["counts"].values[i, component] - counts).sum() <= 2 * on_edge


def test_the_density_estimate_is_scipys(db: fdb.Database) -> None:
    result = fdb.distributions(db.select(model=["m0", "m1"]))
    values = fdb.coefficients(db.select(model=["m0", "m1"])).values
    for component in (0, 2, 5):
        expected = stats.gaussian_kde(values[:, component])(result["at"].values)
        estimate = result["kde"].values[0, component]
        assert np.trapezoid(np.abs(estimate - expected), result["at"].values) < 0.03
        assert np.trapezoid(estimate, result["at"].values) == pytest.approx(1, abs=1e-3)


def test_a_density_estimate_is_the_convolution_of_the_histogram() -> None:
    edges, counts = np.linspace(-1, 1, 5), np.array([0, 3, 1, 0])
    at = kde.points(edges)
    estimate = kde.kernel_density(counts, edges, np.array(0.2))
    fine = np.linspace(-0.5, 0.5, 20_001)
    mass = np.where(fine < 0, 3 / 4, 1 / 4) / 0.5
    expected = [np.trapezoid(mass * stats.norm.pdf(x, fine, 0.2), fine) for x in at]
    np.testing.assert_allclose(estimate, expected, atol=1e-4)
    assert not kde.kernel_density(np.zeros(4, int), edges, np.array(0.2)).any()
    step = kde.kernel_density(counts, edges, np.array(0.0))
    np.testing.assert_allclose(step[(at > -0.5) & (at < 0)], 1.5)


@pytest.mark.parametrize("scaled", [True, False])
def test_coefficients_rebuild_the_filters(db: fdb.Database, scaled: bool) -> None:
    result = fdb.coefficients(db, scaled=scaled)
    assert dask.is_dask_collection(result) and result.dims == ("filter", "component")
    fit = fdb.pca(db, scaled=scaled)
    original = scaled_filters(db) if scaled else db.dataset["filters"].values.astype(np.float64)
    rebuilt = fit["mean"].values[0] + result.values @ fit["components"].values[0]
    np.testing.assert_allclose(rebuilt, original, atol=1e-9)
    np.testing.assert_allclose(result["weights"], fit["explained_variance_ratio"][0])
    cross = np.cov(result.values, rowvar=False)
    np.testing.assert_allclose(cross, np.diag(fit["explained_variance"].values[0]), atol=1e-9)
    part = result.sel(task="b")
    view = fdb.coefficients(db.select(task="b"), scaled=scaled)
    np.testing.assert_array_equal(part.values, view.values)
    assert set(np.unique(view["task"].values)) == {"b"}


def test_row_means_and_boxes_of_drift(db: fdb.Database) -> None:
    result = fdb.drift(db, "model", noise=False)
    np.testing.assert_allclose(result["row_mean"], result["drift"].values.mean(axis=1))
    assert (np.diff(result["row_mean"].values) >= 0).all()
    upper = np.triu_indices(5, 1)
    np.testing.assert_allclose(result["drift_box"].sel(statistic="mean"), result["drift"].values[upper].mean())
    for component in range(9):
        pairs = result["per_component"].values[component][upper]
        box_of = result["component_box"][component]
        assert box_of.sel(statistic="mean").item() == pytest.approx(pairs.mean())
        assert box_of.sel(statistic="median").item() == pytest.approx(np.median(pairs))
    tasks = fdb.drift(db, "task", noise=False)
    assert dict(zip(tasks["group"].values, tasks["models"].values, strict=True)) == {"a": 2, "b": 3}


def test_correlation_with_drift_is_scipys(db: fdb.Database) -> None:
    result = fdb.degeneration_drift(db)
    drift, layers = fdb.drift(db, "model", noise=False), fdb.degeneration(db, by="model")
    x = drift["row_mean"].values
    for name in ("mean_entropy", "mean_sparsity", "share_sparse", "share_degenerated"):
        y = layers[name].sel(group=drift["group"].values).values
        np.testing.assert_array_equal(result[name], y)
        own = result.sel(measure=name)
        assert own["pearson"].item() == pytest.approx(stats.pearsonr(x, y).statistic)
        assert own["spearman"].item() == pytest.approx(stats.spearmanr(x, y).statistic)
        rho = [stats.spearmanr(order, y).statistic for order in itertools.permutations(x)]
        exact = np.mean(np.abs(rho) >= abs(own["spearman"].item()) - 1e-9)
        assert own["p_value"].item() == pytest.approx(exact, abs=0.02)
    with pytest.raises(InputError, match="at least 3 groups by task"):
        fdb.degeneration_drift(db, "task")
    with pytest.raises(UsageError):
        fdb.degeneration_drift(db, "colour")


@pytest.mark.parametrize(("models", "scaled"), [(("m1", "m3", "m4"), True), (("m0", "m1", "m3"), False)])
def test_the_range_of_compared_groups(db: fdb.Database, models: tuple[str, ...], scaled: bool) -> None:
    """P2 A.1: the bins span the coefficients of the compared groups, in any basis of the whole set."""
    view = db.select(model=models)
    result = fdb.drift(view, "model", mode=PAPER_OF_COMPARED, scaled=scaled)
    values = fdb.coefficients(view, mode="paper", scaled=scaled)
    low, high = result.attrs["range"]
    assert (low, high) == pytest.approx((values.values.min(), values.values.max()), abs=1e-9)
    whole = fdb.drift(view, "model", mode="paper", scaled=scaled)
    assert result.attrs["mode"] == "paper" and (low, high) != pytest.approx(whole.attrs["range"])
    assert not result["outside"].values.any()
    edges, weights = np.linspace(low, high, 71), result["weights"].values
    density = {}
    for name in models:
        counts = [np.histogram(part, edges)[0] for part in values.sel(model=name).values.T]
        heights = np.array(counts) / np.sum(counts, axis=1, keepdims=True) / np.diff(edges)
        heights[heights == 0] = 1.1920929e-07
        density[name] = heights / heights.sum(axis=1, keepdims=True)
    for a, b in itertools.combinations(density, 2):
        divergence = stats.entropy(density[a], density[b], axis=1) + stats.entropy(density[b], density[a], axis=1)
        assert result["drift"].sel(group=a, other=b).item() == pytest.approx(weights @ divergence, rel=0.02)
