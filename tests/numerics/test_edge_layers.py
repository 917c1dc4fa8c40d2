"""Odd layers through the whole path: one filter, fewer than nine, zeros, constants, huge, tiny, denormal weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import filterdb as fdb
from filterdb.numerics.modes import ModeName
from tests.models import chain, weights
from tests.numerics import oracles

SQUARE = (6, 6)
ODD = {
    "one": weights(1, 6, seed=1)[:, :1],
    "few": weights(4, 1, seed=2),
    "zero": np.zeros((8, 8, 3, 3), np.float32),
    "constant": np.full((8, 8, 3, 3), 0.3, np.float32),
    "huge": weights(8, 8, seed=3) * np.float32(1e30),
    "tiny": weights(8, 8, seed=4) * np.float32(1e-30),
    "denormal": (weights(8, 8, seed=5).astype(np.float64) * 1e-41).astype(np.float32),
    "random": weights(32, 32, seed=6),
    "sparse": np.where(np.arange(256).reshape(16, 16, 1, 1) % 4 == 0, weights(16, 16, seed=7), 1e-6).astype(np.float32),
    "line": (np.outer(np.arange(1, 101), np.arange(1, 10)).reshape(10, 10, 3, 3)).astype(np.float32),
    "nan": np.full((2, 2, 3, 3), np.nan, np.float32),
    "infinite": np.full((2, 2, 3, 3), np.inf, np.float32),
}


@pytest.fixture(scope="module", params=[7, 1_000_000], ids=["chunks of 7", "one chunk"])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    folder = tmp_path_factory.mktemp("odd")
    for name, w in ODD.items():
        chain(folder / f"{name}.onnx", w)
    (folder / "list.csv").write_text("path,name\n" + "".join(f"{name}.onnx,{name}\n" for name in ODD))
    return fdb.ingest(folder / "db", catalog=folder / "list.csv", chunk_rows=request.param).database


def test_layers_that_are_not_finite_stand_in_the_ledger(db: fdb.Database) -> None:
    ledger = dict(zip(db.skipped["skipped_model"].values, db.skipped["skipped_code"].values, strict=True))
    assert ledger == {"nan": "nonfinite", "infinite": "nonfinite"}
    assert db.counts["models"] == len(ODD)
    assert db.counts["layers"] == len(ODD) - 2


@pytest.mark.parametrize("scaled", [True, False])
def test_pca_of_each(db: fdb.Database, scaled: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fdb.pca(db, by="model", scaled=scaled)
    for name in found["group"].values:
        w = ODD[name].reshape(-1, 9)
        values = oracles.scaled(w) if scaled else w.astype(np.float64)
        one = found.sel(group=name)
        size = float(np.abs(values).max())
        np.testing.assert_allclose(one["mean"], values.mean(axis=0), rtol=1e-9, atol=1e-12 * size)
        singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
        singular = np.pad(singular, (0, 9 - len(singular)))
        # The root of a rounding error, which is what both have below the rank of the layer.
        rounding = 3e-7 * singular.max() + 1e-13 * size * np.sqrt(len(values))
        np.testing.assert_allclose(one["singular_values"], singular, rtol=1e-9, atol=rounding)
        assert np.isfinite(one["explained_variance_ratio"]).all()
        if name in {"one", "zero", "constant"}:
            assert not one["covariance"].values.any()
            assert not one["explained_variance_ratio"].values.any()


def test_verdicts(db: fdb.Database) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fdb.degeneration(db)
    rules = found["rule"].values
    verdicts = {
        model: set(rules[hit]) for model, hit in zip(found["layer_model"].values, found["verdict"].values, strict=True)
    }
    assert verdicts["zero"] == {"dead", "sparse", "collapsed"}
    assert verdicts["constant"] == {"collapsed"}
    assert verdicts["line"] == {"collapsed"}
    assert verdicts["random"] == {"random"}
    assert verdicts["sparse"] == {"sparse"}
    assert verdicts["one"] == verdicts["few"] == set()
    by_model = found.set_index(layer="layer_model")
    assert float(by_model["sparsity"].sel(layer="zero")) == 1
    assert float(by_model["variance_entropy"].sel(layer="zero")) == 0
    assert float(fdb.degeneration(db, mode="paper").set_index(layer="layer_model")["sparsity"].sel(layer="zero")) == 0
    assert float(by_model["sparsity"].sel(layer="sparse")) == pytest.approx(0.75, abs=0.01)
    assert not found["untrained"].any()  # one layer is not enough
    assert set(found["layer_model"].values[found["random"].values]) == {"random", "huge", "tiny", "denormal"}
    assert np.isfinite(by_model["p_value"].drop_sel(layer=["zero", "one", "few"])).all()
    assert np.isnan(by_model["p_value"].sel(layer=["zero", "one", "few"])).all()
    assert by_model["relative_spread"].sel(layer="constant") == 0
    dead = by_model.sel(layer="zero")
    assert (int(dead["clean_filters"]), float(dead["clean_variance_entropy"])) == (0, 0)
    assert np.isnan(dead["clean_ratio"])


@pytest.mark.parametrize("mode", ["sound", "paper"])
@pytest.mark.parametrize("scaled", [True, False])
def test_drift_is_finite_and_counts_every_filter(db: fdb.Database, mode: ModeName, scaled: bool) -> None:
    found = fdb.drift(db, by="model", mode=mode, scaled=scaled)
    assert np.isfinite(found["drift"]).all()
    assert (found["counts"].sum("bin") == found["count"]).all()
    assert not found["outside"].values.any()


def test_unknown_scale_gets_no_verdict(tmp_path: Path) -> None:
    from onnx import helper

    from tests.models import model, save, tensor

    q = np.random.default_rng(0).integers(-128, 128, (16, 16, 3, 3)).astype(np.int8)
    node = helper.make_node("ConvInteger", ["x", "q"], ["y"])
    path = save(tmp_path / "m.onnx", model([node], [tensor("q", q)]))
    found = fdb.degeneration(fdb.ingest(tmp_path / "db", [path]).database)
    assert np.isnan(found["sparsity"]).all() and np.isnan(found["variance_entropy"]).all()
    assert not found["verdict"].values.any()
    assert not found["untrained"].values.any()
    assert np.isnan(found["peak"]).all() and np.isnan(found["span"]).all()
    chain(tmp_path / "float.onnx", weights(16, 16))
    chain(tmp_path / "other.onnx", weights(16, 16, seed=1))
    alone = fdb.ingest(tmp_path / "alone", [tmp_path / "float.onnx", tmp_path / "other.onnx"]).database
    both = fdb.ingest(tmp_path / "db", [tmp_path / "float.onnx", tmp_path / "other.onnx"]).database
    # Its integer codes, up to 127, neither widen the raw range nor weigh in the raw basis of the others.
    for mode in ("sound", "paper"):
        expected, found = (fdb.drift(db, by="model", mode=mode, scaled=False) for db in (alone, both))
        np.testing.assert_allclose(found["drift"], expected["drift"], rtol=1e-12)
        assert found.attrs["selection"] == "scale known"
    np.testing.assert_allclose(fdb.pca(both, scaled=False)["covariance"], fdb.pca(alone, scaled=False)["covariance"])
