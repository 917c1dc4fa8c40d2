"""Analyses of banks of other kernel shapes against independent computations on the very same filters."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.fft import dctn
from scipy.stats import entropy

import filterdb as fdb
from filterdb import schema
from filterdb.analysis.reference import read_reference
from filterdb.analysis.rules import VERDICTS
from filterdb.engine import run
from filterdb.engine.moments import MomentsReduction
from filterdb.errors import InputError, UsageError
from filterdb.numerics.eigen import DIMENSIONS
from tests.models import chain
from tests.numerics import oracles

pytestmark = pytest.mark.slow

Layer = tuple[int, int, schema.Kernel, str]

MODELS: dict[str, list[Layer]] = {
    "mobile": [
        (96, 1, (5, 5), "smooth"),
        (80, 1, (5, 5), "edges"),
        (12, 8, (1, 9), "smooth"),
        (8, 3, (3, 3), "smooth"),
    ],
    "large": [
        (128, 1, (7, 7), "smooth"),
        (90, 1, (7, 7), "noise"),
        (64, 1, (5, 5), "one"),
        (9, 9, (1, 3), "smooth"),
        (9, 9, (1, 9), "noise"),
        (28, 20, (11, 11), "smooth"),
    ],
    "factor": [
        (8, 9, (1, 3), "noise"),
        (10, 10, (1, 9), "edges"),
        (70, 1, (7, 7), "edges"),
        (8, 8, (5, 5), "noise"),
        (24, 20, (11, 11), "edges"),
    ],
}
"""Output and input channels, kernel, and what the filters are like, of each layer."""

TASKS = {"mobile": "detection", "large": "classification", "factor": "detection"}
KERNELS: list[schema.Kernel] = [(5, 5), (1, 3), (7, 7), (1, 9), (11, 11)]


def weights_of(name: str, place: int) -> np.ndarray:
    """The weights of a layer: noise, noise with different covariances, or multiples of one filter."""
    out, into, kernel, kind = MODELS[name][place]
    rng = np.random.default_rng([*map(ord, name), place])
    size = kernel[0] * kernel[1]
    filters = rng.standard_normal((out * into, size))
    if kind == "smooth":
        distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        filters = filters @ np.linalg.cholesky(0.7**distance).T * np.geomspace(1, 3, size) + 0.2
    elif kind == "edges":
        filters = filters @ rng.standard_normal((size, size)) * np.geomspace(3, 1, size)
    elif kind == "one":
        filters = rng.standard_normal((out * into, 1)) * filters[:1] + 0.01 * filters
    filters[: out * into // 8] *= 1e-3
    return filters.reshape(out, into, *kernel).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    """A database whose chunks cut layers."""
    folder = tmp_path_factory.mktemp("banks")
    for name, layers in MODELS.items():
        chain(folder / f"{name}.onnx", *(weights_of(name, i) for i in range(len(layers))))
    catalog = folder / "catalog.csv"
    rows = {"path": [f"{name}.onnx" for name in MODELS], "name": list(MODELS), "task": list(TASKS.values())}
    pd.DataFrame(rows).to_csv(catalog, index=False)
    database: fdb.Database = fdb.ingest(folder / "db", catalog=catalog, chunk_rows=50, kernels="all").database
    return database


@pytest.fixture(params=KERNELS, ids=schema.kernel_name)
def db(request: pytest.FixtureRequest, whole: fdb.Database) -> fdb.Database:
    bank: fdb.Database = whole.bank(request.param)
    return bank


def layers_of(kernel: schema.Kernel) -> list[tuple[str, np.ndarray]]:
    """The layers of a shape with their model, straight from the weights that were written."""
    return [
        (name, weights_of(name, i).reshape(-1, kernel[0] * kernel[1]))
        for name, layers in MODELS.items()
        for i, layer in enumerate(layers)
        if layer[2] == kernel
    ]


def filters_of(kernel: schema.Kernel) -> np.ndarray:
    return np.concatenate([filters for _, filters in layers_of(kernel)])


def rows_by(kernel: schema.Kernel, labels: dict[str, str]) -> dict[str, np.ndarray]:
    """The rows of each label's filters."""
    owner = np.concatenate([np.full(len(filters), labels[name]) for name, filters in layers_of(kernel)])
    return {str(label): np.flatnonzero(owner == label) for label in np.unique(owner)}


@pytest.mark.parametrize("scaled", [True, False])
def test_pca_equals_the_svd(db: fdb.Database, scaled: bool) -> None:
    filters = filters_of(db.kernel)
    values = oracles.scaled(filters) if scaled else filters.astype(np.float64)
    result = fdb.pca(db, by="task", scaled=scaled)
    assert result.attrs["kernel"] == schema.kernel_name(db.kernel)
    for i, rows in enumerate(rows_by(db.kernel, TASKS).values()):
        components, singular, ratio = oracles.svd_pca(values[rows])
        size = np.abs(values).max()
        np.testing.assert_allclose(result["mean"][i], values[rows].mean(axis=0), rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(result["singular_values"][i], singular, rtol=1e-9)
        np.testing.assert_allclose(result["explained_variance_ratio"][i], ratio, rtol=1e-9)
        np.testing.assert_allclose(result["components"][i], components, rtol=0, atol=1e-8)
    assert result.sizes["dimension"] == min(db.weights - 1, DIMENSIONS)


def test_degeneration_equals_plain_computations(db: fdb.Database) -> None:
    result = fdb.degeneration(db)
    layers = layers_of(db.kernel)
    kinds = [layer[3] for name in MODELS for layer in MODELS[name] if layer[2] == db.kernel]
    for i, ((_, filters), kind) in enumerate(zip(layers, kinds, strict=True)):
        values = filters.astype(np.float64)
        variances = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
        h = entropy(variances, base=10)
        assert float(result["variance_entropy"][i]) == pytest.approx(h, abs=1e-9)
        peaks = np.abs(values).max(axis=1)
        assert float(result["sparsity"][i]) == pytest.approx((peaks < peaks.max() / 100).mean())
        assert float(result["p_value"][i]) == pytest.approx(oracles.sphericity(filters), rel=1e-6, abs=1e-290)
        verdicts = dict(zip(VERDICTS, result["verdict"][i].values.tolist(), strict=True))
        large = len(filters) >= 64
        assert verdicts["random"] is (kind == "noise" and large)
        assert verdicts["collapsed"] is bool(large and 10**h < min(2, db.weights ** (np.log(2) / np.log(9))))
        assert verdicts["collapsed"] is (kind == "one")
    # The paper's threshold is for nine weights only.
    assert np.isfinite(result["threshold"]).all() == (db.weights == 9)
    assert fdb.degeneration(db, mode="paper")["random"].any().item() is False or db.weights == 9


def test_another_fit_of_the_threshold(whole: fdb.Database) -> None:
    bank = whole.bank("5x5")
    fit = fdb.randomness_threshold(sizes=[16, 64, 256, 1024], draws=20, repeats=1, kernel="5x5")
    result = fdb.degeneration(bank, mode="paper", threshold=fit)
    assert np.isfinite(result["threshold"]).all()
    assert result["random"].values.any()
    with pytest.raises(UsageError, match="expected one for filters of 49 weights, got one for 5×5"):
        fdb.degeneration(whole.bank("7x7"), threshold=fit)


@pytest.mark.parametrize("by", ["task", "model"])
def test_paper_drift_equals_the_double_loop(db: fdb.Database, by: str) -> None:
    groups = rows_by(db.kernel, TASKS if by == "task" else {name: name for name in MODELS})
    expected, counts = oracles.paper_drift(oracles.scaled(filters_of(db.kernel)), groups)
    result = fdb.drift(db, by=by, mode="paper")
    for label, own in zip(result["group"].values, result["counts"].values, strict=True):
        assert np.abs(own - counts[label]).sum() <= 2  # rounding at an edge
    order = [list(groups).index(label) for label in result["group"].values]
    np.testing.assert_allclose(result["drift"], expected[np.ix_(order, order)], rtol=1e-8, atol=1e-9)


def test_sound_drift_equals_its_definition(db: fdb.Database) -> None:
    values = oracles.scaled(filters_of(db.kernel))
    components, _, ratio = oracles.svd_pca(values)
    mean = values.mean(axis=0)
    bound = np.sqrt(db.weights) + np.linalg.norm(mean)
    result = fdb.drift(db, by="task")
    np.testing.assert_allclose(result.attrs["range"], [-bound, bound], rtol=1e-9)
    coefficients = (values - mean) @ components.T
    edges = np.linspace(-bound, bound, 71)
    rows = rows_by(db.kernel, TASKS)
    counts = {label: np.array([np.histogram(c, edges)[0] for c in coefficients[own].T]) for label, own in rows.items()}
    total = np.sum(list(counts.values()), axis=0)
    prior = (total + 0.5) / (len(values) + 35)
    p, q = ((own + 35 * prior) / (own.sum(axis=1, keepdims=True) + 35) for own in counts.values())
    expected = ratio @ [entropy(a, b) + entropy(b, a) for a, b in zip(p, q, strict=True)]
    first, second = rows
    assert float(result["drift"].sel(group=first, other=second)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scaled", [True, False])
def test_spectrum_equals_scipys_dct(db: fdb.Database, scaled: bool) -> None:
    filters = filters_of(db.kernel).astype(np.float64)
    values = oracles.scaled(filters_of(db.kernel)) if scaled else filters
    energy = dctn(values.reshape(-1, *db.kernel), axes=(1, 2), norm="ortho") ** 2
    result = fdb.spectrum(db, scaled=scaled)
    np.testing.assert_allclose(result["energy"][0], energy.mean(axis=0).ravel(), rtol=1e-9)
    frequencies = [np.arange(side) / (2 * side) for side in db.kernel]
    is_low = np.logical_and.outer(*(own <= 0.25 for own in frequencies))
    low = energy.mean(axis=0)[is_low].sum() / energy.mean(axis=0).sum()
    assert float(result["low"][0]) == pytest.approx(low)
    assert float(result["high"][0]) == pytest.approx(1 - low)
    assert result["term"].values[-1] == f"{db.kernel[0] - 1},{db.kernel[1] - 1}"


def test_densities_and_coefficients(db: fdb.Database) -> None:
    values = oracles.scaled(filters_of(db.kernel))
    components, _, _ = oracles.svd_pca(values)
    coefficients = (values - values.mean(axis=0)) @ components.T
    np.testing.assert_allclose(fdb.coefficients(db).values, coefficients, rtol=0, atol=1e-8)
    last = db.weights - 1
    result = fdb.density(db, components=(0, last))
    edges = result["bin_edges"].values
    expected = np.histogram2d(coefficients[:, 0], coefficients[:, last], (edges, edges))[0]
    assert np.abs(result["counts"].values[0] - expected).sum() <= 2
    with pytest.raises(UsageError, match=f"expected two different ones of 0 … {last}, got 0, {db.weights}"):
        fdb.density(db, components=(0, db.weights))
    kinds = fdb.phenotypes(db, "task")
    assert kinds.sizes["component"] == db.weights
    assert kinds.sizes["pair"] == (1 if db.weights == 3 else 4)


def test_nearest_finds_the_file_itself(db: fdb.Database, tmp_path: Path) -> None:
    """Layers of other shapes in the file do not count."""
    name = layers_of(db.kernel)[-1][0]
    path = chain(tmp_path / "file.onnx", *(weights_of(name, i) for i in range(len(MODELS[name]))))
    result = fdb.nearest(db, str(path))
    assert result["model"].values[0] == name
    assert float(result["drift"][0]) == 0
    own = sum(len(filters) for model, filters in layers_of(db.kernel) if model == name)
    assert result.attrs["query_filters"] == own
    with pytest.raises(InputError, match=f"expected at least one {schema.kernel_text(db.kernel)} convolution"):
        fdb.nearest(db, str(chain(tmp_path / "none.onnx", weights_of("mobile", 3))))


def test_explain_series_of_groups_and_relatives(db: fdb.Database) -> None:
    """Shares of a drift sum to it; models without common weights are no relatives."""
    result = fdb.explain(db, "task", "classification", "detection")
    assert float(result["component_share"].sum()) == pytest.approx(1)
    assert float(result["layer_share"].sum() + result["rest_share"]) == pytest.approx(1)
    assert float(result["drift"]) == pytest.approx(float(fdb.drift(db, "task")["drift"].values.max()), rel=1e-9)
    for metric in ("js", "hellinger", "wasserstein", "frechet"):
        assert np.isfinite(fdb.drift(db, "task", metric=metric)["drift"]).all()
    family = fdb.lineage(db)
    assert set(family["model"].values) <= set(MODELS)
    assert not family["parent"].values.astype(str).any()
    angles = fdb.principal_angles(db, "task")
    assert angles.sizes["dimension"] == min(db.weights - 1, DIMENSIONS)
    described = fdb.distributions(db, "task")
    assert described.sizes["component"] == db.weights


def test_the_snapshot_keeps_a_basis_for_each_shape(whole: fdb.Database) -> None:
    """And a basis is not fitted again: the second question reads the first one's."""
    for kernel in ((3, 3), *KERNELS):
        bank = whole.bank(kernel)
        first, second = (fdb.drift(bank, "model", noise=False).attrs for _ in range(2))
        assert first["basis"] == second["basis"]
        assert first["kernel"] == schema.kernel_name(kernel)
    bases = {fdb.drift(whole.bank(kernel), "model", noise=False).attrs["basis"] for kernel in KERNELS}
    assert len(bases) == len(KERNELS)


def test_a_reference_knows_its_shape(whole: fdb.Database, tmp_path: Path) -> None:
    """And holds entropies above 1."""
    path = tmp_path / "reference.json"
    facts = fdb.write_reference(whole.bank("7x7"), path)
    assert facts["kernel"] == "7x7"
    reference = read_reference(path)
    assert reference.kernel == (7, 7)
    assert max(values.max() for values in reference.values["variance_entropy"].values()) > 1
    assert all(not len(values) for values in reference.values["ratio"].values())
    assert "kernel" not in fdb.write_reference(whole, path)
    assert read_reference(path).kernel == (3, 3)
    path.write_text(path.read_text("utf-8").replace('"models"', '"kernel":"0x7","models"', 1), "utf-8")
    with pytest.raises(InputError, match="an unknown 'kernel'"):
        read_reference(path)


@pytest.mark.parametrize("streamed", [0, 2**26])
def test_moments_are_taken_in_parts(whole: fdb.Database, monkeypatch: pytest.MonkeyPatch, streamed: int) -> None:
    """A few layers of many weights at a time, down to a single one."""
    expected = fdb.degeneration(whole.bank("7x7")), fdb.pca(whole.bank("7x7"), "model")
    monkeypatch.setattr(run, "PART_BYTES", 1)
    monkeypatch.setattr(run, "STREAMED_BYTES", streamed)
    bank = fdb.open(whole.url).bank("7x7")
    sizes = [rows.stop - rows.start for rows, _ in run.in_parts(bank, MomentsReduction(49))]
    assert sizes == [1] * len(layers_of((7, 7)))
    xr.testing.assert_equal(fdb.degeneration(bank), expected[0])
    xr.testing.assert_allclose(fdb.pca(bank, "model"), expected[1], rtol=1e-12)


def test_tables_show_the_leading_components(db: fdb.Database, capsys: pytest.CaptureFixture[str]) -> None:
    """And say so, if there are more than nine."""
    for name, result in (
        ("pca", fdb.pca(db)),
        ("distributions", fdb.distributions(db)),
        ("phenotypes", fdb.phenotypes(db, pairs=[])),
    ):
        command = importlib.import_module(f"filterdb.commands.{name}")
        command.show(command.to_answer(result))
        text = capsys.readouterr().out
        assert (f"the leading 9 of {db.weights} components; --json has all" in text) is (db.weights > 9)
        prefix = "ratio " if name == "pca" else "c"
        assert f"{prefix}{min(db.weights, 9) - 1}" in text
        assert f"{prefix}{min(db.weights, 9)} " not in text
