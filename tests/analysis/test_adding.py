"""A new metric is one class, and a new analysis a Question and a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import filterdb as fdb
from filterdb.analysis.drift_metrics import METRICS, HistogramMetric, Metric, as_metric, register
from filterdb.analysis.grouping import Key
from filterdb.analysis.question import Question
from filterdb.errors import UsageError
from filterdb.plotting import figures
from tests.analysis.families import MODELS, ingested


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> fdb.Database:
    return ingested(tmp_path_factory.mktemp("adding"))


@pytest.fixture
def total_variation() -> Iterator[Metric]:
    @register
    class TotalVariation(HistogramMetric):
        """Half the sum of the absolute differences of probabilities."""

        name = "total_variation"
        formula = "sum_i a_i 1/2 sum |P_i - Q_i|"
        is_square = False

        def distance(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
            return np.asarray(np.abs(p - q).sum(axis=-1) / 2)

    yield as_metric("total_variation")
    del METRICS["total_variation"]


def test_a_metric_is_one_class(db: fdb.Database, total_variation: Metric) -> None:
    result = fdb.drift(db, "task", metric=total_variation)
    p = result["probabilities"].values
    parts = np.moveaxis(np.abs(p[:, None] - p).sum(axis=-1) / 2, -1, 0)
    np.testing.assert_allclose(result["per_component"], parts, rtol=1e-12, atol=1e-15)
    drift = np.einsum("k,kij->ij", result["weights"], parts)
    np.testing.assert_allclose(result["drift"], drift, rtol=1e-12, atol=1e-15)
    assert result.attrs["metric"] == result.attrs["per_component_metric"] == "total_variation"
    assert result.attrs["formula"].startswith("sum_i a_i 1/2")
    figures.per_component(result)


def test_a_new_metric_has_noise_floors_and_verdicts(db: fdb.Database, total_variation: Metric) -> None:
    result = fdb.drift(db, "task", metric=total_variation)
    pair = result.sel(group="classify", other="segment")
    assert 0 < pair["floor"] < pair["floor_q95"] < pair["drift"]
    assert pair["permutations"] == 252  # five models against five
    assert 0 < pair["model_floor"] < pair["model_floor_q95"]
    assert pair["verdict"].item() == ("different" if pair["drift"] > pair["model_floor_q95"] else "indistinguishable")
    assert pair["judged_by"].item() == "model"
    low, high = pair["interval"].values
    assert np.isnan([low, high]).all()  # five models of unequal sizes are fewer than five effective units
    assert pair["effective_units"].item() < 5 or result.sel(group="segment")["effective_units"] < 5
    same = fdb.drift(db, "task", metric=total_variation)
    xr.testing.assert_identical(result, same)


def test_a_new_metric_works_in_paper_mode_and_within_strata(db: fdb.Database, total_variation: Metric) -> None:
    paper = fdb.drift(db, "task", mode="paper", metric=total_variation)
    assert "floor" not in paper and np.triu(paper["drift"], 1).any()
    together = fdb.drift(db, "task", metric=total_variation, within="family", noise=False)
    alone = fdb.drift(db.select(family="alpha"), "task", metric=total_variation, noise=False)
    labels = alone["group"].values
    np.testing.assert_array_equal(
        together["drift"].sel(stratum="alpha", group=labels, other=labels), alone["drift"].values
    )


def test_an_unknown_metric_names_the_known_ones(db: fdb.Database) -> None:
    with pytest.raises(
        UsageError, match="metric: expected one of kl, psi, js, hellinger, wasserstein, frechet, got 'x'"
    ):
        fdb.drift(db, "task", metric="x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mode: expected one of sound, paper, got 'x'"):
        fdb.drift(db, "task", mode="x")  # type: ignore[arg-type]


def peak_percentile(db: fdb.AnyDatabase, by: Key, percentile: float = 90.0) -> xr.Dataset:
    """Return a percentile of the layers' peaks by group: `peak` (group)."""
    question = Question.of(db, by, scaled=False)
    peaks = question.db.layers["peak"].values
    values = [np.percentile(peaks[question.grouping.index == group], percentile) for group in range(question.groups)]
    return xr.Dataset(
        {"peak": ("group", values)},
        coords=question.coords(),
        attrs=question.provenance(formula=f"percentile {percentile:g} of max |w|"),
    )


def test_an_analysis_is_a_question_and_a_few_lines(db: fdb.Database) -> None:
    result = peak_percentile(db, "task")
    assert result["group"].values.tolist() == sorted({task for task, _, _ in MODELS.values()})
    filters = db.dataset.filters.values.reshape(-1, 9)
    layer = np.repeat(np.arange(db.layers.sizes["layer"]), db.layers["row_size"].values)
    peaks = np.array([np.abs(filters[layer == i]).max().astype(np.float64) for i in range(db.layers.sizes["layer"])])
    tasks = db.layers["task"].values.astype(str)
    expected = [np.percentile(peaks[tasks == task], 90) for task in result["group"].values]
    np.testing.assert_array_equal(result["peak"], expected)
    assert result.attrs["by"] == "task" and result.attrs["snapshot"] == db.snapshot
    assert result.attrs["selection"] == "all" and result.attrs["filters"] == len(filters)


def test_an_analysis_groups_by_a_product_and_respects_selections(db: fdb.Database) -> None:
    result = peak_percentile(db.select(family=["alpha", "beta"]), "task,family")
    assert set(result.coords) == {"group", "task", "family"}
    assert "family" in result.attrs["selection"]
    whole = peak_percentile(db, "task,family")
    np.testing.assert_array_equal(result["peak"], whole["peak"].sel(group=result["group"]))


def test_a_question_about_layers_commits_no_basis(tmp_path: Path) -> None:
    db = ingested(tmp_path, ["a0", "b0"])
    peak_percentile(db, "task")
    assert fdb.open(db.url).snapshot == db.snapshot
    with pytest.raises(TypeError, match=r"Question.in_basis"):
        Question.of(db, "task").counts  # noqa: B018
