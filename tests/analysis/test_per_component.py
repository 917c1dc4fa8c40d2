"""Drift of each component is by the metric that was asked for, and every output names it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

import filterdb as fdb
from filterdb.analysis.drift import METRICS
from filterdb.analysis.drift_metrics import MetricName
from filterdb.commands import degeneration, drift
from filterdb.commands.answer import to_json
from filterdb.numerics.modes import ModeName
from tests.models import chain, weights


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    folder = tmp_path_factory.mktemp("components")
    files = [chain(folder / f"m{i}.onnx", weights(20, 10, i) * (i + 1), weights(20, 20, i)) for i in range(3)]
    return fdb.ingest(folder / "db", files, chunk_rows=100).database


def by_scipy(metric: str, p: np.ndarray, q: np.ndarray, width: float) -> float:
    if metric == "js":
        return float(jensenshannon(p, q) ** 2)
    if metric == "hellinger":
        return float(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / np.sqrt(2))
    if metric == "wasserstein":
        places = np.arange(len(p)) * width
        return float(wasserstein_distance(places, places, p, q))
    return float(entropy(p, q) + entropy(q, p))


@pytest.mark.parametrize("mode", ["sound", "paper"])
@pytest.mark.parametrize("metric", METRICS)
def test_each_component_follows_the_metric(db: fdb.Database, metric: MetricName, mode: ModeName) -> None:
    result = fdb.drift(db, "model", mode=mode, metric=metric)
    answer = json.loads(to_json(drift.to_answer(result)))
    if metric == "frechet":  # one distance of nine-dimensional Gaussians, no sum over components
        assert "per_component" not in result and "per_component_metric" not in result.attrs
        assert answer["per_component"] is answer["per_component_metric"] is None
        return
    assert answer["per_component_metric"] == result.attrs["per_component_metric"] == metric
    np.testing.assert_array_equal(answer["per_component"], result["per_component"])
    p, width = result["probabilities"].values, float(np.diff(result["bin_edges"]).mean())
    expected = [[[by_scipy(metric, a[k], b[k], width) for b in p] for a in p] for k in range(9)]
    np.testing.assert_allclose(result["per_component"], expected, rtol=1e-9, atol=1e-12)
    total = np.einsum("k,kij->ij", result["weights"], result["per_component"])
    np.testing.assert_allclose(result["drift"], total, rtol=1e-9, atol=1e-12)
    assert result["per_component"].attrs["long_name"].startswith(metric)


def test_orthogonality_keeps_its_digits_in_every_output(db: fdb.Database) -> None:
    result = fdb.degeneration(db)
    channels = [weights(20, 10, 0).reshape(20, -1).astype(np.longdouble)]
    unit = channels[0] / np.sqrt((channels[0] ** 2).sum(axis=1, keepdims=True))
    cosines = np.abs(unit @ unit.T)
    expected = float(1 - (cosines.sum() - np.trace(cosines)) / (20 * 19))
    stored = result["orthogonality"].values[0]
    assert stored == pytest.approx(expected, rel=0, abs=1e-15)
    assert json.loads(to_json(degeneration.to_answer(result)))["rows"][0]["orthogonality"] == stored
